# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status of made-up hosts: each state, what a table says of it, and that nothing a host answers can break it."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _layout as layout
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _report as reporting
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _status as status_util
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _status_table as drawing
from tests import fleets
from tests.fleets import answer, unit

Result = t.Dict[str, t.Any]

LIBRARY = "/opt/jemalloc/current/lib/libjemalloc.so"
UNITS = "/etc/systemd/system"
NEW = {"jemalloc 5.3.1": 3}
RESTART = "Its process runs without jemalloc 5.3.1, which /a.conf configures: started before that was written, restart."
ODD = "Its process runs without jemalloc 5.3.1, which /a.conf configures: its LD_PRELOAD does not name it."


def release(version: str, link: str = "", damage: str = "") -> Result:
    """Return an installation as the module returns it."""
    return {"version": version, "current": link == "current", "previous": link == "previous", "damage": damage}


def scope(kind: str, name: str = "", *preloads: str, path: str = "") -> Result:
    """Return a scope of ours as the module returns it."""
    path = path or f"{UNITS}/{name}.d/zz-preload-jemalloc.conf"
    return {"path": path, "kind": kind, "unit": name, "ours": True, "preloads": list(preloads), "malloc_conf": ""}


def enabled(name: str, **more: t.Any) -> Result:
    """Return an enabled service that runs with the library."""
    return unit(name, **{"allocators": NEW, "processes": 3, "configured": "5.3.1", **more})


def host(*units: Result, scopes: t.Sequence[Result] = (), **more: t.Any) -> Result:
    """Return the answer of a host with two releases."""
    installed = [release("5.3.0", "previous"), release("5.3.1", "current")]
    return answer(fleets.START, units, scopes=list(scopes), installations=installed, **more)


PUMA = scope("service", "puma.service", LIBRARY)
LOST = {"unreachable": True, "msg": "Task failed: Failed to connect to the host via ssh: ssh: No\r\nroute to host"}
CONFIGURED = host(enabled("puma.service"), unit("cron.service"), scopes=[PUMA])
DRIFT = host(
    enabled("puma.service"),
    enabled("shop.service", allocators={"glibc": 1}, processes=1, uptime=90, drift=[ODD]),
    enabled("sidekiq@1.service", allocators={"glibc": 1}, processes=1, drift=[RESTART]),
    scopes=[PUMA, scope("service", "shop.service", LIBRARY), scope("service", "sidekiq@.service", LIBRARY)],
)


def judge(result: t.Any) -> status_util.Status:
    """Return what an answer says of a host."""
    return status_util.judge(reporting.read("web1", result))


def table(*results: t.Any, full: t.Optional[bool] = None) -> list[str]:
    """Return the table of hosts with these answers."""
    hosts = [reporting.read(f"web{number}", result) for number, result in enumerate(results, 1)]
    return drawing.table([status_util.judge(each) for each in hosts], full)


@pytest.mark.parametrize(
    ("result", "state"),
    [
        (CONFIGURED, "as configured"),
        (host(scopes=[PUMA]), "as configured"),
        (host(enabled("puma.service")), "as configured"),
        (host(unit("puma.service")), "nothing enabled"),
        (host(unit("puma.service"), scopes=[scope("command", path="/usr/local/bin/jemalloc.sh")]), "nothing enabled"),
        (host(scopes=[scope("host", "", LIBRARY)]), "as configured"),
        (DRIFT, "with drift"),
        (host(unit("puma.service", drift=["Its process runs with jemalloc 5.3.1."])), "with drift"),
        (host(unreadable={"processes": 2, "reason": "Run it as root."}), "with warnings"),
        (LOST, "unreachable"),
        ({"failed": True, "msg": "No Python."}, "unreadable"),
        ({"unreachable": "true", "msg": "No route."}, "unreadable"),
        (None, "unreadable"),
    ],
)
def test_states(result: t.Any, state: str) -> None:
    assert judge(result).state == state


def test_a_fleet() -> None:
    assert table(CONFIGURED, DRIFT, LOST, None) == [
        "HOST  CURRENT  PREVIOUS  STATE",
        "web1  5.3.1    5.3.0     as configured: 1 service",
        "  puma       jemalloc 5.3.1  3 processes   for 24 h",
        "web2  5.3.1    5.3.0     with drift: 2 units differ, 1 restart pending, 3 services",
        "  puma       jemalloc 5.3.1  3 processes   for 24 h",
        "  shop       glibc           1 process     for 90 s",
        "    Its process runs without jemalloc 5.3.1, which /a.conf configures: its LD_PRELOAD does not name",
        "    it.",
        "  sidekiq@1  glibc           1 process     for 24 h",
        "    Its process runs without jemalloc 5.3.1, which /a.conf configures: started before that was",
        "    written, restart.",
        "  pending: restart sidekiq@1",
        "web3  unreachable: ssh: No route to host",
        "web4  unreadable: It was not looked at.",
        "4 hosts: 1 as configured, 1 with drift, 1 unreadable, 1 unreachable; 1 restart pending",
    ]


def test_what_is_as_configured_takes_one_line() -> None:
    lines = table(CONFIGURED, DRIFT, full=False)
    assert lines[1:3] == [
        "web1  5.3.1    5.3.0     as configured: 1 service",
        "web2  5.3.1    5.3.0     with drift: 2 units differ, 1 restart pending, 3 services",
    ]
    assert lines[-3:-1] == ["  1 more service", "  pending: restart sidekiq@1"]
    assert len(lines) == 12


@pytest.mark.parametrize(("hosts", "lines"), [(10, 22), (11, 13)])
def test_few_hosts_have_all_their_lines(hosts: int, lines: int) -> None:
    assert len(table(*[CONFIGURED] * hosts)) == lines


def test_the_whole_host() -> None:
    late = {"allocators": {"glibc": 1}, "processes": 1, "drift": [RESTART]}
    result = host(
        enabled("cron.service"),
        enabled("dbus.service", **late),
        enabled("puma.service"),
        enabled("web.service", allocators={"glibc": 1}, drift=[ODD]),
        enabled("", **late),
        unit("kept.service"),
        unit("mysql.service", candidate={"why": "Many arenas."}),
        scopes=[
            *[scope("host", "", LIBRARY), scope("login", "", LIBRARY), PUMA, scope("service", "kept.service")],
            *[scope("service", "idle.service", LIBRARY), scope("user_service", "agent.service", LIBRARY)],
            *[scope("command", path=f"/usr/local/bin/{name}") for name in ("jemalloc.sh", "chromium")],
        ],
        unreadable={"processes": 1, "reason": "\x1b[1mRun it\nas root."},
    )
    result["installations"] += [release("5.1.0"), release("4.5.0", damage="lib is gone.")]
    assert table(result) == [
        "HOST  CURRENT  PREVIOUS  STATE",
        "web1  5.3.1    5.3.0     with drift: 3 units differ, 2 restarts pending, whole host, 3 services, ...",
        "  puma  jemalloc 5.3.1  3 processes   for 24 h",
        "  web   glibc           3 processes   for 24 h",
        "    Its process runs without jemalloc 5.3.1, which /a.conf configures: its LD_PRELOAD does not name",
        "    it.",
        "  not running: agent, idle",
        "  enabled: whole host, by the environment of services and logins; 1 of 4 other units run with it",
        "  pending: restart processes in no unit, dbus",
        "  excluded: chromium, kept",
        "  warning: jemalloc 4.5.0 is damaged: lib is gone.",
        "  warning: 1 process could not be read. Run it as root.",
        "  also installed: 5.1.0, 4.5.0",
        "  candidate: mysql: Many arenas.",
        "1 host: 1 with drift; 2 restarts pending",
    ]


@pytest.mark.parametrize(("kind", "text"), [("ld_so_preload", "every process"), ("login", "logins, ssh and cron")])
def test_ways_of_the_whole_host(kind: str, text: str) -> None:
    assert text in table(host(scopes=[scope(kind, "", LIBRARY)]))[2]


def test_units_with_the_same_name_are_told_apart() -> None:
    name = "puma.service"
    found = host(enabled(name, scope="user"), enabled(name), enabled(name, scope="container", container="c0ffee"))
    assert [line.split("  ")[1] for line in table(found)[2:-1]] == ["puma (c0ffee)", "puma", "puma (user)"]
    mine = judge(host(enabled(name, scope="user"), scopes=[PUMA]))
    assert mine.stopped == (name,)


def test_a_long_name_has_a_line_of_its_own() -> None:
    lines = table(host(enabled(f"{'long-' * 9}name.service"), enabled("a.service")))
    assert lines[3:5] == [f"  {'long-' * 9}name", f"  {'':34}  jemalloc 5.3.1  3 processes   for 24 h"]


def test_much_is_counted() -> None:
    names = [f"job-{number:02}.service" for number in range(50)]
    result = host(*(enabled(name, drift=[RESTART]) for name in names))
    lines = table(result)
    assert "  30 more services" in lines
    (first,) = (number for number, line in enumerate(lines) if line.startswith("  pending: restart job-00, job-01"))
    assert lines[first + 1].endswith(" and 30 more")
    assert table() == ["HOST  CURRENT  PREVIOUS  STATE", "0 hosts: none"]


def test_a_thousand_hosts() -> None:
    results = fleets.result(1000, 14, 13, 14)
    statuses = [status_util.judge(reporting.read(name, found)) for name, found in results.items()]
    lines = drawing.table(statuses)
    drifted = sum(status.state == "with drift" for status in statuses)
    assert 0 < drifted < 200
    assert lines[-1] == f"1,000 hosts: {1000 - drifted} as configured, {drifted} with drift"
    assert sum(line.startswith("web") for line in lines) == 1000
    assert len(lines) < 1002 + 6 * drifted
    assert max(map(len, lines)) <= drawing.COLUMNS


_TEXT = st.text(max_size=600) | st.sampled_from(["\x1b[31m\nred", "\u202e\u65e5\u672c" * 99, "puma.service", LIBRARY])
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


def mapping(*keys: str) -> st.SearchStrategy[Result]:
    """Return mappings with these keys and anything in them."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(keys, _ANYTHING | _TEXT))


HOSTILE = st.fixed_dictionaries(
    {
        "units": st.lists(
            mapping("name", "scope", "container", "processes", "uptime", "configured", "candidate", "allocators")
            | st.fixed_dictionaries({"name": _TEXT, "drift": st.lists(_TEXT, max_size=30), "configured": _TEXT}),
            max_size=4,
        ),
        "scopes": st.lists(
            st.fixed_dictionaries(
                {"ours": st.just(True), "unit": _TEXT, "path": _TEXT}
                | {"kind": st.sampled_from(["service", "user_service", "command", "host"])}
                | {"preloads": st.lists(_TEXT, max_size=2)}
            ),
            max_size=4,
        ),
        "installations": st.lists(mapping("version", "current", "previous", "damage"), max_size=3),
        "unreadable": mapping("processes", "reason"),
        "time": _ANYTHING,
    }
)


@given(_TEXT, HOSTILE | _ANYTHING | mapping("msg", "unreachable"), st.booleans())
def test_a_host_cannot_break_the_table(name: str, result: t.Any, full: bool) -> None:
    lines = drawing.table([status_util.judge(reporting.read(name, result))], full)
    assert [line for line in lines if not line.isprintable() or layout.width(line) > drawing.COLUMNS] == []
    assert lines[-1].startswith("1 host: 1 ")
