# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of jemalloc_preload that is killed, or cut off, at any moment harms nothing, and the next run finishes it."""

from __future__ import annotations

import itertools

import pytest
from hosts import ABSENT, CUTS, OPERATIONS, Host, Operation

#: Moments for each operation; all eight together have 200 in full.
MOMENTS, MOMENTS_IN_FULL = 2, 25

#: Whether systemd knows units otherwise than their files are.
STALE = "systemctl show --property=NeedDaemonReload --value app other out"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_kill(host: Host, pytestconfig: pytest.Config, operation: Operation) -> None:
    host.begin(operation)
    whole = host.run(operation.arguments)
    assert (whole.status, whole.result.get("changed")) == (0, True), whole.output
    host.ask("keep", name="after")
    host.check_processes()
    moments = MOMENTS_IN_FULL if pytestconfig.getoption("full") else MOMENTS
    cuts = itertools.cycle(CUTS)
    reached = 0
    for moment in range(moments):
        # By turns before a change to a file, of which the rest of the time has few, and after a part of the time.
        part = (moment + 0.5) / moments
        when = {"change": 1 + int(whole.changes * part)} if moment % 2 else {"seconds": whole.seconds * part}
        host.ask("restore", name="before")
        answer = host.run(operation.arguments, cut=next(cuts), **when)
        reached += answer.cut
        for _look in range(2):  # at once, and when the watchdog has ended
            assert host.ask("inconsistent", before="before", after="after") == {}, when
            host.check_processes()
            host.ask("settle")
        arguments, result = [(operation.arguments, "after"), (ABSENT, "foreign")][moment // 2 % 2]
        again = host.run(arguments)
        assert again.status == 0, again.output
        host.check_unchanged(result)
        assert set(host.ask("shell", script=STALE).split()) == {"no"}
        host.check_processes()
    assert reached >= moments / 2
