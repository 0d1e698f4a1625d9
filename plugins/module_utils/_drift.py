"""What differs between what runs and what is configured, and which services look worth the library; in sentences."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _allocators as allocators
from ansible_collections.preload.jemalloc.plugins.module_utils import _observe as observe
from ansible_collections.preload.jemalloc.plugins.module_utils import _scopes as scopes

# What makes a service on glibc's malloc look worth it. Only threads get arenas of their own, and these grow with what
# is allocated and freed over time: few small ones, or an hour's worth, say nothing.
LEAST_ARENAS = 4
LEAST_ARENA_BYTES = 64 << 20
LEAST_UPTIME = 3600

# What is in a program itself when no library is named with it.
_OWN = (allocators.BUILT_IN, allocators.TCMALLOC, allocators.MIMALLOC)

_UNITS_OF_TIME = ((86400, "day"), (3600, "hour"), (60, "minute"))


def drift(processes: t.Sequence[observe.Process], wish: scopes.Wish) -> t.List[str]:
    """Return what differs between the processes of a unit and what they are to run with, each with its reason."""
    readable = [process for process in processes if process.allocator.kind != allocators.UNREADABLE]
    found: t.Dict[str, int] = {}
    for process in readable:
        sentence = _differs(process, wish)
        if sentence:
            found[sentence] = found.get(sentence, 0) + 1
    return [f"{_share(count, len(readable))} {sentence}." for sentence, count in found.items()]


def is_pending(sentences: t.Iterable[str]) -> bool:
    """Return whether a restart of the unit would end its drift, by the sentences of drift()."""
    return any(sentence.endswith((", restart.", ": restart.")) for sentence in sentences)


def _share(count: int, whole: int) -> str:
    if count == whole:
        return "Its process runs" if whole == 1 else f"All its {whole} processes run"
    return f"{count} of its {whole} processes {'runs' if count == 1 else 'run'}"


def _differs(process: observe.Process, wish: scopes.Wish) -> str:
    """Return how a process runs that is not as wanted, from after the verb; nothing when it is."""
    allocator = process.allocator
    if allocator.kind == allocators.OURS:
        if allocator.deleted:
            return "with a jemalloc that was removed or replaced since: restart"
        if not wish.release:
            return _unasked(process, wish)
        if allocator.release != wish.release:
            return f"with jemalloc {allocator.release}, but {wish.release} is configured: {_when(process, wish)}"
        return ""
    if not wish.release or wish.scope is None or _is_out_of_reach(process, wish.scope):
        return ""
    return f"without jemalloc {wish.release}, which {wish.scope.path} configures: {_why_not(process, wish)}"


def _unasked(process: observe.Process, wish: scopes.Wish) -> str:
    """Return what to say of our library where no scope wants it; the wrapper may load it for whom it likes."""
    what = f"with jemalloc {process.allocator.release}"
    if wish.scope is not None:
        return f"{what}, which {wish.scope.path} keeps out: {_when(process, wish)}"
    if not process.place.unit.endswith(".service") or process.place.container:
        return ""
    return f"{what}, which no scope configures: one did at the start, or jemalloc.sh started it"


def _when(process: observe.Process, wish: scopes.Wish) -> str:
    if process.started < wish.since:
        return "started before that was written, restart"
    return "started after that was written, so something else decides"


def _is_out_of_reach(process: observe.Process, scope: scopes.Scope) -> bool:
    """Whether a scope for the whole host leaves a process out by the dynamic linker's rules: no fault of it."""
    if scope.unit:
        return False
    secure = process.secure and scope.kind != "ld_so_preload"
    return secure or process.allocator.kind == allocators.STATIC or _brings_its_own(process)


def _brings_its_own(process: observe.Process) -> bool:
    return process.allocator.kind in _OWN and not process.allocator.path


def _why_not(process: observe.Process, wish: scopes.Wish) -> str:
    """Return why a process is without the library that is wanted, by what is known of it."""
    kind, scope = process.allocator.kind, wish.scope
    by_environment = scope is not None and scope.kind != "ld_so_preload"
    if kind == allocators.STATIC:
        return "a static program, into which nothing can be preloaded"
    if _brings_its_own(process):
        return "the program has an allocator of its own built in"
    if process.secure and by_environment:
        return "secure-execution mode (set-user-ID or file capabilities), in which LD_PRELOAD is not heeded"
    if process.started < wish.since:
        return "started before that was written, restart"
    if by_environment and wish.release not in process.preloads and "/current/" not in process.preloads:
        return "its LD_PRELOAD does not name it, so another setting may win"
    return "the dynamic linker passed over it, the journal of the service may say why"


def candidate(processes: t.Sequence[observe.Process], wish: scopes.Wish, now: float) -> t.Optional[t.Dict[str, t.Any]]:
    """Return why a service looks worth the library: evidence, no promise. None when it does not, or has it anyway."""
    place = processes[0].place
    if wish.scope is not None or place.container or not place.unit.endswith(".service"):
        return None
    if any(process.allocator.kind in allocators.JEMALLOCS for process in processes):
        return None
    # the environment reaches none of those in secure-execution mode
    found = [each for each in processes if each.allocator.kind == allocators.GLIBC and not each.secure]
    arenas = sum(process.heaps.number for process in found)
    size = sum(process.heaps.size for process in found)
    uptime = int(now - min((process.started for process in found), default=now))
    if arenas < LEAST_ARENAS or size < LEAST_ARENA_BYTES or uptime < LEAST_UPTIME:
        return None
    threads, rss = sum(process.threads for process in found), sum(process.rss for process in found)
    why = (
        f"{threads} threads in {len(found)} {'process' if len(found) == 1 else 'processes'} have {arenas} arenas of "
        f"glibc with {size >> 20} MiB open, after {_duration(uptime)}, and {rss >> 20} MiB resident; how much of that "
        "jemalloc gives back only a trial shows."
    )
    return {"arenas": arenas, "arena_bytes": size, "threads": threads, "uptime": uptime, "rss": rss, "why": why}


def _duration(seconds: int) -> str:
    for size, name in _UNITS_OF_TIME:
        if seconds >= size:
            return f"{seconds // size} {name}{'s' if seconds >= 2 * size else ''}"
    return f"{seconds} seconds"
