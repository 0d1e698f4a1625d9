# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs from what is configured, and which services look worth the library: each sentence as it is said."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _drift as drift
from ansible_collections.preload.jemalloc.plugins.module_utils._allocators import Allocator, Heaps
from ansible_collections.preload.jemalloc.plugins.module_utils._cgroups import Place
from ansible_collections.preload.jemalloc.plugins.module_utils._observe import Process
from ansible_collections.preload.jemalloc.plugins.module_utils._scopes import Scope, Wish

CURRENT = "/opt/jemalloc/current/lib/libjemalloc.so"
OURS = Allocator("jemalloc", "5.3.1", "/opt/jemalloc/5.3.1/lib/libjemalloc.so.2")
OLD = Allocator("jemalloc", "5.2.1", "/opt/jemalloc/5.2.1/lib/libjemalloc.so.2")
GONE = OURS._replace(deleted=True)
GLIBC, STATIC, UNREADABLE = Allocator("glibc"), Allocator("static"), Allocator("unreadable")
SERVICE = Wish("5.3.1", Scope("/puma.conf", "service", "puma.service", True, (CURRENT,)), 500)
HOST = Wish("5.3.1", Scope("/host.conf", "host", "", True, (CURRENT,)), 500)
LIST = Wish("5.3.1", Scope("/etc/ld.so.preload", "ld_so_preload", "", True, (CURRENT,)), 500)
OUT = Wish("", Scope("/puma.conf", "service", "puma.service", True), 500)
NONE = Wish()


def process(allocator: Allocator, **more: t.Any) -> Process:
    """Return a process of puma.service that was started after its scope was written."""
    return Process(1, Place("puma.service", "system"), "puma", allocator, 0, 0, 1, 1000)._replace(**more)


WITHOUT = "runs without jemalloc 5.3.1, which /puma.conf configures:"


@pytest.mark.parametrize(
    ("processes", "wish", "sentences"),
    [
        ([process(OURS)], SERVICE, []),
        ([process(GLIBC)], NONE, []),
        ([process(UNREADABLE)], SERVICE, []),
        ([process(OURS), process(UNREADABLE)], SERVICE, []),
        # an old release
        (
            [process(OLD, started=100), process(OURS)],
            SERVICE,
            [
                "1 of its 2 processes runs with jemalloc 5.2.1, but 5.3.1 is configured: started before that was "
                "written, restart."
            ],
        ),
        (
            [process(OLD)] * 3,
            SERVICE,
            [
                "All its 3 processes run with jemalloc 5.2.1, but 5.3.1 is configured: started after that was "
                "written, so something else decides."
            ],
        ),
        (
            [process(OLD, started=500)],
            SERVICE,
            [
                "Its process runs with jemalloc 5.2.1, but 5.3.1 is configured: started after that was written, so "
                "something else decides."
            ],
        ),
        # a deleted library
        ([process(GONE)], SERVICE, ["Its process runs with a jemalloc that was removed or replaced since: restart."]),
        ([process(GONE)], NONE, ["Its process runs with a jemalloc that was removed or replaced since: restart."]),
        # configured but not loaded, with times that count whole seconds
        (
            [process(GLIBC, started=500)],
            SERVICE,
            [f"Its process {WITHOUT} its LD_PRELOAD does not name it, so another setting may win."],
        ),
        ([process(GLIBC, started=100)], SERVICE, [f"Its process {WITHOUT} started before that was written, restart."]),
        (
            [process(STATIC)],
            SERVICE,
            [f"Its process {WITHOUT} a static program, into which nothing can be preloaded."],
        ),
        (
            [process(GLIBC, secure=True, preloads=CURRENT)],
            SERVICE,
            [
                f"Its process {WITHOUT} secure-execution mode (set-user-ID or file capabilities), in which "
                "LD_PRELOAD is not heeded."
            ],
        ),
        (
            [process(GLIBC, preloads="/lib/x.so")],
            SERVICE,
            [f"Its process {WITHOUT} its LD_PRELOAD does not name it, so another setting may win."],
        ),
        (
            [process(GLIBC, preloads=CURRENT)],
            SERVICE,
            [f"Its process {WITHOUT} the dynamic linker passed over it, the journal of the service may say why."],
        ),
        (
            [process(Allocator("jemalloc (built in)"))],
            SERVICE,
            [f"Its process {WITHOUT} the program has an allocator of its own built in."],
        ),
        (
            [process(Allocator("tcmalloc", "", "/usr/lib/libtcmalloc.so.4"), preloads=CURRENT)],
            SERVICE,
            [f"Its process {WITHOUT} the dynamic linker passed over it, the journal of the service may say why."],
        ),
        # the whole host, as far as the dynamic linker goes
        ([process(STATIC), process(Allocator("tcmalloc")), process(GLIBC, secure=True)], HOST, []),
        ([process(STATIC)], LIST, []),
        (
            [process(GLIBC, secure=True), process(OURS), process(GLIBC, started=1)],
            LIST,
            [
                "1 of its 3 processes runs without jemalloc 5.3.1, which /etc/ld.so.preload configures: the dynamic "
                "linker passed over it, the journal of the service may say why.",
                "1 of its 3 processes runs without jemalloc 5.3.1, which /etc/ld.so.preload configures: started before "
                "that was written, restart.",
            ],
        ),
        # loaded but not configured
        (
            [process(OURS)],
            NONE,
            [
                "Its process runs with jemalloc 5.3.1, which no scope configures: one did at the start, or jemalloc.sh "
                "started it."
            ],
        ),
        ([process(OURS, place=Place("session-1.scope", "system"))], NONE, []),
        ([process(OURS, place=Place())], NONE, []),
        ([process(OURS, place=Place("puma.service", "container", "1" * 12))], NONE, []),
        (
            [process(OURS, started=1)],
            OUT,
            [
                "Its process runs with jemalloc 5.3.1, which /puma.conf keeps out: started before that was written, "
                "restart."
            ],
        ),
        ([process(GLIBC)], OUT, []),
    ],
)
def test_drift(processes: t.Sequence[Process], wish: Wish, sentences: t.Sequence[str]) -> None:
    assert drift.drift(processes, wish) == sentences


NOW = 1000 + 3 * 86400
WORTH = process(GLIBC, threads=16, rss=300 << 20, heaps=Heaps(12, 200 << 20))


def test_a_candidate() -> None:
    small = process(GLIBC, rss=1 << 20, threads=2, started=5000)
    assert drift.candidate([WORTH, small, process(UNREADABLE)], NONE, NOW) == {
        "arenas": 12,
        "arena_bytes": 200 << 20,
        "threads": 18,
        "uptime": 3 * 86400,
        "rss": 301 << 20,
        "why": "18 threads in 2 processes have 12 arenas of glibc with 200 MiB open, after 3 days, and 301 MiB "
        "resident; how much of that jemalloc gives back only a trial shows.",
    }


def test_a_candidate_that_just_is_one() -> None:
    least = Heaps(drift.LEAST_ARENAS, drift.LEAST_ARENA_BYTES)
    assert drift.candidate([WORTH._replace(heaps=least)], NONE, 1000 + drift.LEAST_UPTIME) is not None
    assert (drift.LEAST_ARENAS, drift.LEAST_ARENA_BYTES, drift.LEAST_UPTIME) == (4, 64 << 20, 3600)


@pytest.mark.parametrize(
    ("processes", "wish", "now"),
    [
        ([WORTH], SERVICE, NOW),
        ([WORTH], OUT, NOW),
        ([WORTH], NONE, 1000 + 3599),
        ([WORTH._replace(heaps=Heaps(3, 200 << 20))], NONE, NOW),
        ([WORTH._replace(heaps=Heaps(40, 5 << 20))], NONE, NOW),
        ([WORTH._replace(heaps=Heaps(40, (64 << 20) - 1))], NONE, NOW),
        ([WORTH._replace(secure=True)], NONE, NOW),
        ([WORTH, process(OURS)], NONE, NOW),
        ([WORTH, process(Allocator("jemalloc (other)"))], NONE, NOW),
        ([process(UNREADABLE)], NONE, NOW),
        ([WORTH._replace(place=Place("puma.service", "container", "1" * 12))], NONE, NOW),
        ([WORTH._replace(place=Place("session-1.scope", "system"))], NONE, NOW),
        ([WORTH._replace(place=Place())], NONE, NOW),
    ],
)
def test_no_candidate(processes: t.Sequence[Process], wish: Wish, now: float) -> None:
    assert drift.candidate(processes, wish, now) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "5 seconds"), (60, "1 minute"), (7300, "2 hours"), (86400, "1 day"), (10 * 86400, "10 days")],
)
def test_durations(seconds: int, text: str) -> None:
    assert drift._duration(seconds) == text


@pytest.mark.parametrize(
    ("found", "wish", "pending"),
    [
        (process(GONE), NONE, True),
        (process(OLD, started=100), SERVICE, True),
        (process(GLIBC, started=100), SERVICE, True),
        (process(OURS, started=100), OUT, True),
        (process(OLD), SERVICE, False),
        (process(STATIC, started=100), SERVICE, False),
        (process(OURS), NONE, False),
        (process(OURS), SERVICE, False),
    ],
)
def test_a_restart_is_pending(found: Process, wish: Wish, pending: bool) -> None:
    sentences = drift.drift([found], wish)
    assert drift.is_pending(sentences) == pending
    assert drift.is_pending([*sentences, "Its process runs with jemalloc 5.3.1, which no scope configures."]) == pending
