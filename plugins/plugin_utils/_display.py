# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print lines for people, and keep standard output valid where a callback writes it for machines."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import sys
import threading
import time
import typing as t

from ansible import constants
from ansible.utils.display import Display

#: Callbacks for standard output whose output people read: of ansible-core, ansible.posix, community.general and AWX.
FOR_PEOPLE = frozenset(
    {
        *("default", "minimal", "oneline", "debug", "skippy", "awx_display"),
        *("counter_enabled", "default_without_diff", "dense", "diy", "print_task", "selective", "unixy", "yaml"),
    }
)

#: Callbacks whose users want the result and nothing else, on standard error neither: a cron job would send it as mail.
FOR_MACHINES = frozenset({"json", "jsonl", "null"})

#: Seconds between two lines about work that goes on.
INTERVAL = 15.0

#: Seconds between two lines about a download.
DOWNLOAD_INTERVAL = 2.0

# Ansible's forks have no terminal; this is read before they are made.
_TERMINAL = sys.stdout.isatty()

_DISPLAY = Display()


def say(text: str, **options: t.Any) -> None:
    """Print text to standard output if people read that, for a machine not at all, and else to standard error.

    The options are those of Ansible's own display.
    """
    callback = str(constants.DEFAULT_STDOUT_CALLBACK).rpartition(".")[2]
    if callback not in FOR_MACHINES:
        _DISPLAY.display(text, stderr=callback not in FOR_PEOPLE, **options)


@contextlib.contextmanager
def going_on(text: str) -> t.Iterator[None]:
    """Print every INTERVAL while the block runs what goes on, and for how long already."""
    ended, began = threading.Event(), time.monotonic()

    def report() -> None:
        while not ended.wait(INTERVAL):
            say(f"{text} ({time.monotonic() - began:.0f} s)")

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def progress(what: str) -> t.Callable[[int, int], None]:
    """Return what shows the progress of a download on a terminal, and in lines elsewhere if it takes long.

    It is called with the bytes that have come and those that are going to (0: nobody knows).
    """
    said = [time.monotonic()]
    interval = 0.1 if _TERMINAL else DOWNLOAD_INTERVAL

    def show(come: int, total: int) -> None:
        ended = come >= total
        if time.monotonic() - said[0] < interval and not (ended and _TERMINAL):
            return
        said[0] = time.monotonic()
        share = f"{come * 100 // total} %" if total else f"{come >> 10} KiB"
        if _TERMINAL:
            filled = "#" * (come * 30 // total) if total else ""
            say(f"\r{what} [{filled:30}] {share}", screen_only=True, newline=ended)
        else:
            say(f"{what}: {share} downloaded")

    return show
