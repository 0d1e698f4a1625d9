# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controllers with different wishes work on one host at once: it ends as one of them wants it, completely.

That is: the drop-ins of all services, the link current, and what every service maps are those that this play alone
would leave, and this play ended well. The others may fail, by a sentence.
"""

from __future__ import annotations

import json
import random
import typing as t
from pathlib import Path

import pytest
from hosts import LAB, PREFIX, Host, rendered

CONTROLLERS = f"{LAB}/ansible_collections/preload/jemalloc/tests/faults/controllers.py"

ROUNDS, ROUNDS_IN_FULL = 3, 20

#: The seconds of other work between two tasks of a controller, at most.
PAUSE = 1.0

SERVICES = [f"s{number}" for number in range(1, 6)]

#: The versions and services of two controllers; the third one removes everything.
WISHES: list[tuple[str, list[str]]] = [("9.9.9", SERVICES[:3]), ("9.9.8", SERVICES[1:]), ("", [])]

PREPARE = """
for unit in s1 s2 s3 s4 s5; do
  printf '[Service]\\nType=exec\\nExecStart=/bin/sleep infinity\\n' > /etc/systemd/system/$unit.service
done
"""

# The link current counts where a drop-in follows it.
STATE = f"""
cd /etc/systemd/system
drop_ins=$(ls -d s?.service.d/* 2>/dev/null || true)
for path in $drop_ins; do echo $path; cat $path; done
[ -z "$drop_ins" ] || readlink {PREFIX}/current
for unit in s1 s2 s3 s4 s5; do
  systemctl is-active $unit || true
  pid=$(systemctl show --property=MainPID --value $unit)
  echo maps: $(grep -o '{PREFIX}/[^/]*' /proc/$pid/maps | sort -u)
done
"""


@pytest.fixture
def both(host: Host, library: Path) -> t.Iterator[Host]:
    """The container with two releases and five services, which run without them."""
    host.ask("install", prefix=PREFIX, version="9.9.8", library=host.give(library))
    host.ask("shell", script=PREPARE)
    host.ask("keep", name="both")
    yield host
    host.ask("shell", script=f"systemctl stop {' '.join(SERVICES)}")


def play(host: Host, wishes: t.Sequence[tuple[str, list[str]]], chance: random.Random) -> tuple[list[str], str]:
    """Let controllers work at once, from the same beginning; return their failures, and what the host is like then."""
    host.ask("restore", name="both")
    host.ask("shell", script=f"systemctl restart {' '.join(SERVICES)}")
    plays = [
        {"version": version, "services": services, "pauses": [chance.uniform(0, PAUSE) for _task in range(3)]}
        for version, services in wishes
    ]
    whole = [{**each, "texts": rendered({})["texts"]} for each in plays]
    status, output = host.ask("execute", command=["python3", CONTROLLERS, json.dumps(whole)])
    assert status == 0, output
    return json.loads(output.splitlines()[-1]), host.ask("shell", script=STATE)


def test_controllers_at_once(both: Host, pytestconfig: pytest.Config) -> None:
    chance = random.Random(15)
    states = []
    for wish in WISHES:
        failures, state = play(both, [wish], chance)
        assert failures == [""]
        states.append(state)
    assert len(set(states)) == len(WISHES)
    assert [state.count(f"maps: {PREFIX}/9.9.9\n") for state in states] == [3, 0, 0]
    assert [state.count(f"maps: {PREFIX}/9.9.8\n") for state in states] == [0, 4, 0]
    assert [state.count("maps:\n") for state in states] == [2, 1, 5]
    stood = []
    for _round in range(ROUNDS_IN_FULL if pytestconfig.getoption("full") else ROUNDS):
        failures, state = play(both, WISHES, chance)
        assert state in states, (failures, state)
        stood.append(states.index(state))
        assert failures[stood[-1]] == "", failures
        for failure in failures:
            assert "Traceback" not in failure
    print("the plays that stood:", stood)
