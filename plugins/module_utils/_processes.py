"""Which processes run with which installation: the proof, read from /proc."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import os
import re
import time
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _cgroups as cgroups
from ansible_collections.preload.jemalloc.plugins.module_utils import _fence as fence
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.module_utils._systemd import template_of

_PSS = re.compile(r"^Pss:\s+([0-9]{1,15}) kB$", re.MULTILINE | re.ASCII)

# A line of /proc/PID/maps that maps code of a file, and what stands there when that file is gone.
_CODE = re.compile(rb"[0-9a-f]+-[0-9a-f]+ ..x. [0-9a-f]+ \S+ [0-9]+ +(/.*?)( \(deleted\))?")

#: Stands for a library of ours that is mapped but no longer there: it was replaced or removed.
DELETED = "deleted"

#: Stands for whatever the host as a whole gives a process: nobody named its service, so that nothing is to be proved.
ANY = "any"


class Member(t.NamedTuple):
    """A unit that has processes: the listed unit that it is or that is its template, its name, and whose it is.

    uid is the number of the user whose own systemd runs it, None for a unit of the host's.
    """

    unit: str
    name: str
    uid: t.Optional[int] = None


def members(units: t.Collection[t.Tuple[str, bool]], proc: str = "/proc") -> t.Dict[Member, t.List[int]]:
    """Return the processes of these units (name, whether a user's), found as systemd does it: by their control groups.

    A template stands for all its instances. The services of a container are not those of its host.
    """
    found: t.Dict[Member, t.List[int]] = {}
    own = cgroups.containers(_cgroup("self", proc).decode("utf-8", "replace"))
    known: t.Dict[bytes, t.Optional[Member]] = {b"": None}  # processes of a unit have the same text
    for name in os.listdir(proc):
        cgroup = _cgroup(name, proc) if name.isdigit() else b""
        if cgroup not in known:
            text = cgroup.decode("utf-8", "replace")
            known[cgroup] = member_of(text, units) if cgroups.containers(text) == own else None
        member = known[cgroup]
        if member:
            found.setdefault(member, []).append(int(name))
    return found


def _cgroup(name: str, proc: str) -> bytes:
    """Return the control groups of a process, empty for one that has ended."""
    try:
        with open(f"{proc}/{name}/cgroup", "rb", buffering=0) as stream:
            return stream.read()
    except OSError:
        return b""


def member_of(cgroup: str, units: t.Collection[t.Tuple[str, bool]]) -> t.Optional[Member]:
    """Return which of the units a /proc/PID/cgroup belongs to: a unit of a user's systemd, or that systemd itself."""
    name, uid = cgroups.unit_of(cgroup)
    owners = [(name, uid)] if uid is None else [(name, uid), (f"user@{uid}.service", None)]
    for name, uid in owners:
        for unit in (name, template_of(name)):
            if (unit, uid is not None) in units:
                return Member(unit, name, uid)
    return None


def code(maps: bytes, name: bytes) -> t.Iterator[t.Tuple[bytes, bool]]:
    """Yield the files with a name in their path whose code a /proc/PID/maps holds, each with whether it was deleted.

    Only what is mapped for execution runs. Where that is refused, the dynamic linker leaves a readable segment behind.
    """
    position = maps.rfind(name)  # from the end: a search by a pattern is slower
    while position != -1:
        start, end = maps.rfind(b"\n", 0, position) + 1, maps.find(b"\n", position)
        match = _CODE.fullmatch(maps, start, len(maps) if end == -1 else end)
        if match:
            yield match.group(1), bool(match.group(2))
        position = maps.rfind(name, 0, start)


def mapped(maps: bytes, prefix: str) -> t.Set[str]:
    """Return the installations of a store whose code a /proc/PID/maps holds; DELETED for a library that is gone."""
    found = set()
    pattern = re.compile(rf"{re.escape(prefix)}/(\S+?)/lib/libjemalloc\.so\S*".encode())
    for path, deleted in code(maps, b"/libjemalloc.so"):
        match = pattern.fullmatch(path)
        if match:
            found.add(DELETED if deleted or b"/" in match.group(1) else match.group(1).decode("utf-8", "replace"))
    return found


def installations_of(pids: t.Iterable[int], prefix: str, proc: str = "/proc") -> t.Dict[int, t.Set[str]]:
    """Return the installations of a store that each process runs with.

    Processes that have ended, and those without memory, are left out.
    """
    found = {}
    for pid in pids:
        try:
            with open(f"{proc}/{pid}/maps", "rb", buffering=0) as stream:
                maps = stream.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError as error:
            raise JemallocError(
                f"{error.filename} cannot be read, so nothing can be proved; run this as root (become: true), and in a "
                "container with the capability CAP_SYS_PTRACE."
            ) from error
        if maps:
            found[pid] = mapped(maps, prefix)
    return found


def unproved(found: t.Mapping[int, t.Collection[str]], wanted: t.Optional[str]) -> t.List[int]:
    """Return the processes that do not map just the wanted installation; wanted None: those that map one at all."""
    if wanted == ANY:
        return []
    expected = {wanted} if wanted else set()
    return sorted(pid for pid, installations in found.items() if set(installations) != expected)


def variables(pid: int, proc: str = "/proc") -> t.Dict[str, str]:
    """Return the environment that a process was started with; empty when it has ended."""
    try:
        with open(f"{proc}/{pid}/environ", "rb", buffering=0) as stream:
            words = stream.read().decode("utf-8", "surrogateescape").split("\0")
    except OSError:
        return {}
    return {name: value for name, _equals, value in (word.partition("=") for word in words)}


def started(pid: int, proc: str = "/proc") -> float:
    """Return when a process was started, in epoch seconds; 0 when it has ended."""
    ticks = fence.start_of(pid, proc)
    return time.time() - fence.now() + int(ticks) / os.sysconf("SC_CLK_TCK") if ticks else 0


def count_with(wanted: t.Mapping[Member, t.Optional[str]], prefix: str, proc: str = "/proc") -> t.Dict[Member, int]:
    """Return the number of processes of each unit that run with the installation that the unit wants."""
    found = members({(each.unit, each.uid is not None) for each in wanted}, proc)
    maps = {each: installations_of(found.get(each, []), prefix, proc) for each in wanted}
    return {each: len(maps[each]) - len(unproved(maps[each], wanted[each])) for each in wanted}


def memory(pids: t.Iterable[int], proc: str = "/proc") -> int:
    """Return the bytes of memory that processes take together, pages that they share counted once (PSS)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += memory_of(pid, proc)
    return total


def memory_of(pid: int, proc: str = "/proc") -> int:
    """Return the bytes of memory that a process takes, its part of what is shared (PSS)."""
    with open(os.path.join(proc, str(pid), "smaps_rollup"), encoding="ascii", errors="replace") as stream:
        return 1024 * sum(map(int, _PSS.findall(stream.read())))


def has_our_root(name: str, proc: str) -> bool:
    """Whether a process sees the same files below / as this one: that of a container has paths of its own."""
    return os.path.samefile(os.path.join(proc, name, "root"), "/")


def descendants(pid: int, proc: str = "/proc") -> t.List[int]:
    """Return the processes that a process has started, and those that these have."""
    children: t.Dict[int, t.List[int]] = {}
    for name in os.listdir(proc):
        if name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                with open(os.path.join(proc, name, "stat"), encoding="utf-8", errors="replace") as stream:
                    # behind the name, which can hold anything: the state and the parent
                    parent = int(stream.read().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found[1:]


def mapping(path: str, proc: str = "/proc") -> t.List[int]:
    """Return the processes that map a library, as far as no LD_PRELOAD asked for one."""
    found = []
    for name in os.listdir(proc):
        if name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                with open(os.path.join(proc, name, "maps"), encoding="utf-8", errors="replace") as stream:
                    maps_it = f" {path}\n" in stream.read()
                with open(os.path.join(proc, name, "environ"), encoding="utf-8", errors="replace") as stream:
                    asked_for = "LD_PRELOAD=" in stream.read()
                found += [int(name)] if maps_it and not asked_for and has_our_root(name, proc) else []
    return found
