# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics as text, read back by Prometheus' own parser."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.preload.jemalloc.plugins.module_utils import _metrics as metrics

Result = t.Dict[str, t.Any]
Series = t.Dict[t.Tuple[str, t.FrozenSet[t.Tuple[str, str]]], float]


def unit(name: str = "puma.service", **more: t.Any) -> Result:
    """Return a unit as jemalloc_info returns it."""
    whole: Result = {"name": name, "scope": "system", "container": "", "uid": None, "allocators": {"glibc": 1}}
    whole.update({"threads": 3, "rss": 2048, "pss": None, "swap": 0, "started": 1700000000})
    return {**whole, "configured": "", "drift": [], "candidate": None, **more}


def host(*units: Result, **more: t.Any) -> Result:
    """Return what jemalloc_info returns of a host."""
    return {"units": list(units), "installations": [], "unreadable": {"processes": 0, "files": []}, **more}


def parsed(text: str) -> Series:
    """Return all series of a text; one that is there twice is an error, as it is for Prometheus."""
    found: Series = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type == "gauge"
        for sample in family.samples:
            # a label that is empty is one that is not there
            key = sample.name, frozenset((name, value) for name, value in sample.labels.items() if value)
            assert key not in found
            found[key] = sample.value
    return found


def values(series: Series, name: str) -> t.List[t.Tuple[t.Dict[str, str], float]]:
    """Return the labels and the values of one metric."""
    return [(dict(labels), value) for (each, labels), value in series.items() if each == name]


def test_the_whole_text() -> None:
    release = {"version": "5.3.1", "current": True, "previous": False, "damage": "lib is not what its receipt says"}
    puma = unit(
        allocators={"jemalloc 5.3.1": 2, "glibc": 1},
        pss=1024,
        uid=1000,
        scope="user",
        configured="5.3.1",
        drift=["1 of its 3 processes runs without."],
        candidate={"why": "because"},
    )
    result = host(puma, installations=[release], unreadable={"processes": 2, "files": ["/etc/x"]})
    lines = metrics.render(result, 0.25).splitlines()
    who = 'unit="puma.service",scope="user",container="",uid="1000"'
    assert [line for line in lines if not line.startswith("#")] == [
        f'jemalloc_unit_processes{{{who},allocator="glibc",release=""}} 1',
        f'jemalloc_unit_processes{{{who},allocator="jemalloc",release="5.3.1"}} 2',
        f"jemalloc_unit_threads{{{who}}} 3",
        f"jemalloc_unit_resident_memory_bytes{{{who}}} 2048",
        f"jemalloc_unit_proportional_memory_bytes{{{who}}} 1024",
        f"jemalloc_unit_swap_bytes{{{who}}} 0",
        f"jemalloc_unit_start_time_seconds{{{who}}} 1700000000",
        f'jemalloc_unit_configured_info{{{who},release="5.3.1"}} 1',
        f"jemalloc_unit_drift{{{who}}} 1",
        f"jemalloc_unit_candidate{{{who}}} 1",
        'jemalloc_installation_info{release="5.3.1",current="true",previous="false"} 1',
        'jemalloc_installation_damaged{release="5.3.1"} 1',
        "jemalloc_unreadable_processes 2",
        "jemalloc_unreadable_files 1",
        "jemalloc_collect_duration_seconds 0.25",
    ]
    heads = [line.split(" ", 3)[1:3] for line in lines if line.startswith("#")]
    assert heads == [[kind, family.name] for family in metrics.FAMILIES for kind in ("HELP", "TYPE")]


def test_what_is_not_known_is_left_out() -> None:
    text = metrics.render(host(unit()), 0.5)
    for name in ("proportional_memory_bytes", "configured_info"):
        assert f"jemalloc_unit_{name}" not in text
    assert "jemalloc_installation" not in text
    assert values(parsed(text), "jemalloc_unit_drift")[0][1] == 0


def test_a_container_is_told_from_the_host() -> None:
    both = host(unit(rss=1), unit(scope="container", container="0123456789ab", rss=2), unit(scope="user", uid=0, rss=4))
    found = values(parsed(metrics.render(both, 1.0)), "jemalloc_unit_resident_memory_bytes")
    assert sorted(value for _labels, value in found) == [1, 2, 4]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("jemalloc 5.3.1", ("jemalloc", "5.3.1")),
        ("jemalloc unknown", ("jemalloc", "unknown")),
        ("jemalloc (other)", ("jemalloc (other)", "")),
        ("jemalloc (built in)", ("jemalloc (built in)", "")),
        ("glibc", ("glibc", "")),
    ],
)
def test_split(label: str, expected: t.Tuple[str, str]) -> None:
    assert metrics.split(label) == expected


def test_a_large_size_keeps_its_digits() -> None:
    text = metrics.render(host(unit(rss=(1 << 53) - 1)), 1e-05)
    assert " 9007199254740991\n" in text
    assert values(parsed(text), "jemalloc_collect_duration_seconds") == [({}, 1e-05)]


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(['a"b\\', "a\nb", "\\n", "\r"])
PLACES = st.tuples(NAMES, NAMES, NAMES, st.none() | st.integers(0, 1 << 32))


@settings(deadline=None)
@given(places=st.lists(PLACES, unique=True, max_size=6), allocators=st.sets(NAMES, min_size=1, max_size=4))
def test_units_in_different_places_never_give_a_series_twice(
    places: t.List[t.Tuple[str, str, str, t.Optional[int]]], allocators: t.Set[str]
) -> None:
    counts = dict.fromkeys((f"jemalloc {name}" for name in allocators), 7)
    units = [
        unit(name, scope=scope, container=container, uid=uid, allocators=counts, pss=number)
        for number, (name, scope, container, uid) in enumerate(places)
    ]
    text = metrics.render(host(*units), 0.1)
    found = values(parsed(text), "jemalloc_unit_proportional_memory_bytes")
    expected = {
        (name, scope, container, "" if uid is None else str(uid)): number
        for number, (name, scope, container, uid) in enumerate(places)
    }
    assert {tuple(labels.get(key, "") for key in metrics.UNIT): value for labels, value in found} == expected
    assert len(values(parsed(text), "jemalloc_unit_processes")) == len(places) * len(counts)
    assert text == metrics.render(host(*reversed(units)), 0.1)
