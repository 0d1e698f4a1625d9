# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed at any moment leaves a store that works, and the next run finishes what it began."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from lab import OPERATIONS, Lab, Operation, again, check_consistent, names

#: Moments for each operation; all six together have 300 in full.
MOMENTS, MOMENTS_IN_FULL = 6, 50


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_kill(lab: Lab, tmp_path: Path, pytestconfig: pytest.Config, operation: Operation) -> None:
    prefix = tmp_path / "opt" / "jemalloc"
    prefix.parent.mkdir()
    whole, duration = lab.measured(operation, prefix)
    expected = names(prefix)
    moments = MOMENTS_IN_FULL if pytestconfig.getoption("full") else MOMENTS
    killed = 0
    while killed < moments:
        lab.store(operation, prefix)
        process = lab.start(prefix, operation.version, operation.arguments)
        # From the start of the module's own work, as it takes most of the time to load Python, to its end.
        time.sleep(duration * (killed + 0.5) / moments)
        process.send_signal(signal.SIGKILL)
        if lab.end(process).status == -signal.SIGKILL:
            killed += 1
        else:
            duration *= 0.9  # it was faster than the run that was measured; what it left is checked all the same
        check_consistent(prefix)
        done = again(lab, operation, prefix, whole)
        assert {key: done.result[key] for key in ("installations", "current", "previous")} == {
            key: whole.result[key] for key in ("installations", "current", "previous")
        }
        assert names(prefix) == expected
        assert list(lab.temporary.iterdir()) == []
