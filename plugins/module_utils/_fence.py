"""End a process that may hold a lock for another run, for certain: known by its number and its start."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import os
import signal
import time
import typing as t


def now() -> float:
    """Return the seconds since the host started; all processes read this clock, and no one sets it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def start_of(pid: int, proc: str = "/proc") -> str:
    """Return when a process started, in ticks since the host did; empty for one that is not there."""
    try:
        with open(os.path.join(proc, str(pid), "stat"), encoding="utf-8", errors="replace") as stream:
            # after the name, which can hold anything, the third field comes first, and the start is the 22nd
            return stream.read().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def end(pid: int, start: str) -> None:
    """Kill a process, also one that is stopped; another process with the same number is left alone."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = _opened(pid)
        try:
            if start and start_of(pid) == start:
                _kill(pid, descriptor)
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _opened(pid: int) -> t.Optional[int]:
    """Return a descriptor that stands for this process and no later one; None where the kernel has none."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except (AttributeError, OSError):  # Linux before 5.3, or a Python that was built for one
        return None


def _kill(pid: int, descriptor: t.Optional[int]) -> None:
    if descriptor is None:
        os.kill(pid, signal.SIGKILL)
    else:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
