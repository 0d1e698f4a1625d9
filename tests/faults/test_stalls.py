# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module, its watchdog or the guard of a profile is stopped for longer than others wait for it: none writes late."""

from __future__ import annotations

import json
import typing as t

import pytest
from hosts import ABSENT, LAB, LIST, Host, rendered

STALLS = f"{LAB}/ansible_collections/preload/jemalloc/tests/faults/stalls.py"

LD_SO_PRELOAD = "/etc/ld.so.preload"

#: The kinds of stalls of stalls.py, each with the number of changes among which its moments are.
KINDS = {"given_up": 6, "late": 6, "orphaned": 6, "module": 40, "edited": 40}
GUARDS = ("guard_of_a_run_that_hangs", "guard_that_is_stopped", "guard_that_is_stopped_at_work")

#: Moments for each kind; in full there are 60.
MOMENTS, MOMENTS_OF_LISTS_IN_FULL, MOMENTS_OF_GUARDS_IN_FULL = 1, 9, 5


def stall(host: Host, kind: str, second: dict[str, t.Any], number: int) -> dict[str, t.Any]:
    """Let runs be stalled; return how they ended, after which nothing changed any more."""
    modules = [["jemalloc_preload", rendered(arguments)] for arguments in (LIST, second)]
    status, output = host.ask("execute", command=["python3", STALLS, json.dumps([kind, *modules, number])])
    assert status == 0, output
    said: dict[str, t.Any] = json.loads(output.splitlines()[-1])
    assert said["late"] == []
    for run in said["runs"]:
        assert "Traceback" not in run["msg"]
    return said


def check_given_up(host: Host, said: dict[str, t.Any], _absent: bool) -> None:
    """See that a stalled run changed nothing, or all."""
    first = said["runs"][0]
    host.check_unchanged("before" if first["status"] else "after")
    assert first["status"] == 0 or first["msg"].endswith("all files are as before."), first


def check_orphaned(host: Host, said: dict[str, t.Any], absent: bool) -> None:
    """See that the run after one that was killed made the host what it wants."""
    assert said["runs"][-1]["status"] == 0, said
    host.check_unchanged("before" if absent else "after")


def check_module(host: Host, said: dict[str, t.Any], absent: bool) -> None:
    """See that a module that was stopped kept the lock."""
    first, second = said["runs"]
    assert first["status"] == 0, said
    if said["reached"]:
        assert second["msg"] == "Another run has been changing who preloads for 0.5 s; wait for it to end."
    host.check_unchanged("before" if absent and not said["reached"] else "after")


def check_edited(host: Host, said: dict[str, t.Any], _absent: bool) -> None:
    """See that what somebody wrote in the meantime is there, and all else as before or as wanted."""
    first = said["runs"][0]
    found = host.ask("differences", name="before" if first["status"] else "after")
    assert set(found) == {LD_SO_PRELOAD}, said
    assert found[LD_SO_PRELOAD][1][3] == "# by hand\n"


CHECKS = {
    "given_up": check_given_up,
    "late": check_given_up,
    "orphaned": check_orphaned,
    "module": check_module,
    "edited": check_edited,
}


@pytest.mark.parametrize("kind", KINDS)
def test_stalls(host: Host, pytestconfig: pytest.Config, kind: str) -> None:
    host.ask("keep", name="before")
    assert host.run(LIST).status == 0
    host.ask("keep", name="after")
    moments = MOMENTS_OF_LISTS_IN_FULL if pytestconfig.getoption("full") else MOMENTS
    reached = 0
    for moment in range(moments):
        host.ask("restore", name="before")
        absent = moment % 2 == 0
        number = 1 + int(KINDS[kind] * (moment + 0.5) / moments)
        said = stall(host, kind, ABSENT if absent else LIST, number)
        reached += said["reached"]
        CHECKS[kind](host, said, absent)
        host.check_processes()
    assert reached >= moments / 2


@pytest.mark.parametrize("kind", GUARDS)
def test_stalls_of_guards(host: Host, pytestconfig: pytest.Config, kind: str) -> None:
    host.ask("keep", name="before")
    for moment in range(MOMENTS_OF_GUARDS_IN_FULL if pytestconfig.getoption("full") else MOMENTS):
        said = stall(host, kind, ABSENT, moment)
        assert said["reached"]
        assert said["runs"][0]["status"] == -9, said
        for other in said["runs"][1:]:
            assert (other["status"], other.get("unchanged", True)) == (0, True), said
        host.check_unchanged("before")
        assert host.ask("shell", script="systemctl show --property=Environment,ActiveState app").split() == [
            "Environment=",
            "ActiveState=active",
        ]
        host.check_processes()
