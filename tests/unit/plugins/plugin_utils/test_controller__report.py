# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of a fleet, and that nothing a host answers can break them."""

from __future__ import annotations

import typing as t

import hypothesis
import hypothesis.strategies as st
import pytest

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _page as paging
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _report as reporting
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _tables as tables
from ansible_collections.preload.jemalloc.plugins.plugin_utils._measurements import Point, Unit
from ansible_collections.preload.jemalloc.plugins.plugin_utils._report import File

MIB = 1 << 20

ENTRY = {
    "name": "puma.service",
    "scope": "system",
    "container": "",
    "allocators": {"glibc": 1, "jemalloc 5.3.1": 3},
    "processes": 4,
    "threads": 40,
    "rss": 500 * MIB,
    "pss": 400 * MIB,
    "swap": 0,
    "uptime": 7200,
    "started": 1,
    "malloc_conf": "narenas:2",
    "configured": "5.3.1",
    "drift": ["Restart it."],
    "candidate": {"arenas": 64, "arena_bytes": 1, "threads": 40, "uptime": 7200, "rss": 1, "why": "Many arenas."},
}

INSTALLED = [
    {"version": "5.3.1", "path": "/opt/jemalloc/5.3.1", "current": True, "previous": False, "damage": ""},
    {
        "version": "5.3.0",
        "path": "/opt/jemalloc/5.3.0",
        "current": False,
        "previous": True,
        "damage": "A file is gone.",
    },
]

SCOPES = [
    {"path": "/a", "kind": "service", "unit": "puma.service", "ours": True}
    | {"preloads": ["/usr/lib/libfoo.so", "/opt/jemalloc/current/lib/libjemalloc.so"]},
    {"path": "/b", "kind": "ld_so_preload", "unit": "", "ours": True, "preloads": ["/usr/lib/libjemalloc.so.2", 3]},
    {"path": "/c", "kind": "login", "unit": "", "ours": False},
]


def answer(*units: t.Any, **more: t.Any) -> t.Dict[str, t.Any]:
    """Return what the module returns."""
    return {"installations": [], "scopes": [], "units": list(units), "unreadable": {}, "time": 10**9, **more}


def test_a_host() -> None:
    unreadable = {"processes": 1, "reason": "Only root may."}
    found = reporting.read("web1", answer(ENTRY, installations=INSTALLED, scopes=SCOPES, unreadable=unreadable))
    assert (found.unread, found.time, found.current, found.releases) == ("", 10**9, "5.3.1", ("5.3.1", "5.3.0"))
    assert found.previous == "5.3.0"
    assert found.files == (
        File("/a", "service", "puma.service", True),
        File("/b", "ld_so_preload", "", False),
    )
    assert found.scopes == ("service puma.service", "ld so preload")
    assert found.notes == ("jemalloc 5.3.0 is damaged: A file is gone.", "1 process could not be read. Only root may.")
    (row,) = found.rows
    assert row.unit == Unit("web1", "system", "", "puma.service")
    assert row.now == Point(10**9, 7200, 4, 40, 500 * MIB, 400 * MIB, 0, "jemalloc 5.3.1 + glibc")
    assert (row.configured, row.malloc_conf, row.drift) == ("5.3.1", "narenas:2", ("Restart it.",))
    assert row.candidate == "Many arenas."
    assert reporting.points([found]) == {row.unit: row.now}


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (None, "It was not looked at."),
        ({"unreachable": True, "msg": "No route to host."}, "No route to host."),
        ({"units": "none"}, "It gave no answer that can be read."),
    ],
)
def test_a_host_that_was_not_read(result: t.Any, reason: str) -> None:
    found = reporting.read("web1", result)
    assert (found.unread, found.rows) == (reason, ())
    assert found.unreachable == (reason == "No route to host.")
    assert reporting.newest([found]) == 0


def test_wrong_types_count_as_missing() -> None:
    broken = {
        "name": 7,
        "allocators": {"glibc": 0, "x": "y", 3: 3},
        "rss": -1,
        "pss": "1",
        "uptime": float("nan"),
        "swap": 1 << 80,
        "drift": ["a\x1b[31m\u202eb\n", 3, ""],
        "candidate": {"why": None},
    }
    found = reporting.read("web1", answer(broken, broken, None, "unit", unreadable=[], scopes=3, installations=[{}]))
    (row,) = found.rows
    assert row.unit == Unit("web1", "", "", "")
    assert row.now == Point(10**9, 0, 0, 0, 0, None, 0, "")
    assert row.drift == ("a\ufffd[31m\ufffdb\ufffd",)
    assert row.candidate == "It looks like a candidate."
    assert (found.notes, found.scopes, found.releases) == ((), (), ())


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=9,
)
_UNIT = st.fixed_dictionaries({}, optional=dict.fromkeys(ENTRY, _ANYTHING))
_RESULT = st.fixed_dictionaries(
    {"units": st.lists(_UNIT, max_size=3)}, optional={key: _ANYTHING for key in answer() if key != "units"}
)


@hypothesis.given(_RESULT)
@hypothesis.settings(max_examples=60, deadline=None)
def test_whatever_a_host_answers(result: t.Any) -> None:
    found = reporting.read("web1", result)
    hosts = reporting.with_histories([found], {row.unit: [row.now] for row in found.rows})
    assert paging.embedded(paging.data(hosts)).count("<") == 0
    assert tables.as_json(hosts)
    assert tables.as_csv(hosts).encode("utf-8")


def test_more_than_a_host_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "MOST_UNITS", 2)
    monkeypatch.setattr(reporting, "MOST_ENTRIES", 1)
    units = [{**ENTRY, "name": name, "drift": ["x", "y"], "allocators": {"a": 1, "b": 2}} for name in "abc"]
    found = reporting.read("web1", answer(*units))
    assert [row.unit.name for row in found.rows] == ["a", "b"]
    assert {row.drift for row in found.rows} == {("x",)}
    assert {row.now.allocator for row in found.rows} == {"a"}


def test_a_clock_that_is_ahead() -> None:
    hosts = [reporting.Host(str(time), time=time) for time in (100, 200, 300, 300 + reporting.AHEAD * 9)]
    assert reporting.newest(hosts) == 300


def series(name: str, factor: t.Optional[float], number: int = 6) -> t.Tuple[reporting.Row, t.List[Point]]:
    """Return a unit with a history of both sides, or of the first one only."""
    unit = Unit("web1", "system", "", name)
    points = [
        Point(86400 * day, 86400, 1, 1, int(mib * MIB), None, 0, label)
        for day, (mib, label) in enumerate(
            [(1000, "glibc")] * number + [(1000 * (factor or 0), "jemalloc 5.3.1")] * (number if factor else 0)
        )
    ]
    return reporting.Row(unit, points[-1], "", "", (), ""), points


def summary(*units: t.Tuple[reporting.Row, t.List[Point]]) -> t.Dict[str, t.Any]:
    """Return the summary of a host with such units."""
    host = reporting.Host("web1", time=1, rows=tuple(row for row, _points in units))
    known = {row.unit: points for row, points in units}
    return reporting.summary(reporting.with_histories([host, reporting.Host("web2", unread="No.")], known))


def test_the_summary() -> None:
    found = summary(
        *(series("a", 0.5), series("b", 1.25), series("c", 1.01), series("d", 0.1, number=2), series("e", None))
    )
    assert {key: found[key] for key in ("hosts", "unread", "units", "enabled")} == {
        "hosts": 2,
        "unread": 1,
        "units": 5,
        "enabled": 4,
    }
    assert {key: found[key] for key in ("saves", "costs", "no_difference", "too_thin")} == {
        "saves": 1,
        "costs": 1,
        "no_difference": 1,
        "too_thin": 1,
    }
    assert (found["before"], found["after"]) == (3000 * MIB, 2760 * MIB)
    assert found["headline"] == "jemalloc saves 240 MiB, 8 %."
    assert found["detail"] == (
        "3 units with evidence enough, compared at equal uptimes: 2.93 GiB before and 2.70 GiB after. "
        "1 saves memory, 1 takes more, 1 shows no difference. "
        "For 1 more unit with jemalloc the measurements are too few, or of other uptimes."
    )


@pytest.mark.parametrize(
    ("units", "headline"),
    [
        ([], "Nothing was measured with jemalloc yet."),
        ([series("a", None)], "Nothing was measured with jemalloc yet."),
        ([series("a", 0.5, number=2)], "The evidence is still too thin to say what jemalloc saves."),
        ([series("a", 1.01)], "jemalloc makes no difference to 1 unit."),
        ([series("a", 1.5), series("b", 1.0)], "jemalloc costs 500 MiB, 25 %."),
    ],
)
def test_headlines(units: t.List[t.Tuple[reporting.Row, t.List[Point]]], headline: str) -> None:
    assert summary(*units)["headline"] == headline
