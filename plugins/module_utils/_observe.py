"""What runs on a host, read from /proc in one pass: each process with its place, its allocator and what it takes."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import os
import re
import struct
import time
import typing as t
from dataclasses import dataclass, field

from ansible_collections.preload.jemalloc.plugins.module_utils import _allocators as allocators
from ansible_collections.preload.jemalloc.plugins.module_utils import _cgroups as cgroups
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform

# Behind the name, which can hold anything, proc(5): 9 flags, 20 num_threads, 22 starttime, 24 rss.
_STAT = re.compile(
    rb"[0-9]{1,10} \((.*)\) \S (?:\S+ ){5}([0-9]{1,15}) (?:\S+ ){10}(\d{1,9}) \S+ (\d{1,19}) \S+ (\d{1,15})", re.DOTALL
)
_PF_KTHREAD = 0x00200000  # linux/sched.h
_SWAP = re.compile(rb"\nVmSwap:\s+([0-9]{1,15}) kB\n")

_AT_SECURE = 23  # linux/auxvec.h
_MOST_KINDS = 1 << 16

# More than most maps have, so that one read does.
_MAPS = 1 << 17
_PAGE = 1 << 12


class Process(t.NamedTuple):
    """A process: where it belongs, what it allocates with, and what it takes, in bytes; started is in epoch seconds.

    preloads is the LD_PRELOAD that it was started with. secure: the dynamic linker does not heed that (AT_SECURE).
    """

    pid: int
    place: cgroups.Place
    command: str
    allocator: allocators.Allocator
    rss: int
    swap: int
    threads: int
    started: float
    heaps: allocators.Heaps = allocators.Heaps()
    # what with_start() adds
    malloc_conf: str = ""
    preloads: str = ""
    secure: bool = False


@dataclass(frozen=True)
class Look:
    """One look at /proc: where it is, what tells our libraries, and what was learned already.

    booted is when the host started, in epoch seconds. own has the containers that we are in ourselves, namespace is
    that of our mounts. swapped: whether anything is.
    """

    prefix: str
    proc: str = "/proc"
    booted: float = field(default_factory=lambda: time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))
    own: t.Tuple[str, ...] = ()
    namespace: str = ""
    swapped: bool = True
    hertz: int = os.sysconf("SC_CLK_TCK")
    page: int = os.sysconf("SC_PAGE_SIZE")
    places: t.Dict[bytes, cgroups.Place] = field(default_factory=dict)
    programs: t.Dict[t.Tuple[int, int], str] = field(default_factory=dict)


def look_at(prefix: str, proc: str = "/proc") -> Look:
    """Return the look of this process at /proc."""
    own, namespace, swapped = "", "", True
    with contextlib.suppress(OSError):
        swap = re.findall(rb"^Swap(?:Total|Free): +([0-9]+) kB", _read(f"{proc}/meminfo"), re.MULTILINE)
        swapped = len(set(swap)) != 1
        own = _read(f"{proc}/self/cgroup").decode("utf-8", "replace")
        namespace = os.readlink(f"{proc}/self/ns/mnt")
    return Look(prefix, proc, own=cgroups.containers(own), namespace=namespace, swapped=swapped)


def processes(look: Look, wanted: t.Callable[[cgroups.Place], bool] = lambda place: True) -> t.List[Process]:
    """Return the processes in places that are wanted; threads of the kernel and what ends meanwhile are left out."""
    found = []
    for pid in sorted(int(name) for name in os.listdir(look.proc) if name.isascii() and name.isdigit()):
        with contextlib.suppress(OSError):
            process = _process(look, pid, wanted)
            found += [process] if process else []
    return found


def _process(look: Look, pid: int, wanted: t.Callable[[cgroups.Place], bool]) -> t.Optional[Process]:
    """Return a process; None for a thread of the kernel, one that is ending, and one that is not wanted."""
    directory = f"{look.proc}/{pid}"
    try:
        fields = _STAT.match(_read(f"{directory}/stat"))
        place = _place(look, _read(f"{directory}/cgroup"))
    except PermissionError:  # /proc is mounted with hidepid=1
        unknown = Process(pid, cgroups.Place(), "", allocators.Allocator(allocators.UNREADABLE), 0, 0, 0, time.time())
        return unknown if wanted(unknown.place) else None
    if not fields or int(fields.group(2)) & _PF_KTHREAD or not wanted(place):
        return None
    name, _flags, threads, started, pages = fields.groups()
    try:
        maps = _maps(f"{directory}/maps")
        if not maps:
            return None
        allocator = _allocator(look, pid, place, maps)
    except PermissionError:
        maps, allocator = b"", allocators.Allocator(allocators.UNREADABLE)
    swap = _SWAP.search(_read(f"{directory}/status")) if look.swapped else None
    # only threads get arenas, and to look for them takes as long as all the rest
    arenas = allocator.kind == allocators.GLIBC and int(threads) > 1
    return Process(
        pid,
        place,
        name.decode("utf-8", "replace"),
        allocator,
        int(pages) * look.page,
        int(swap.group(1)) * 1024 if swap else 0,
        int(threads),
        look.booted + int(started) / look.hertz,
        allocators.heaps(maps) if arenas else allocators.Heaps(),
    )


def with_start(process: Process, proc: str) -> Process:
    """Return a process with what it was started with, as far as that can be read; few processes need it."""
    directory = f"{proc}/{process.pid}"
    with contextlib.suppress(OSError):
        environment = _read(f"{directory}/environ")
        return process._replace(
            malloc_conf=_variable(environment, b"MALLOC_CONF"),
            preloads=_variable(environment, b"LD_PRELOAD"),
            secure=is_secure(_read(f"{directory}/auxv")),
        )
    return process


def _read(path: str) -> bytes:
    """Return a file of /proc that is given out as one, by the calls that cost least."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(descriptor, _PAGE)]
        while len(parts[-1]) == _PAGE:
            parts.append(os.read(descriptor, _PAGE))
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _maps(path: str) -> bytes:
    """Return maps, of which each call gives some whole lines, however few: only one that gives none is the last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(descriptor, _MAPS), b""))
    finally:
        os.close(descriptor)


def _place(look: Look, cgroup: bytes) -> cgroups.Place:
    """Return where a process belongs; those of a unit have the same text."""
    place = look.places.get(cgroup)
    if place is None:
        place = look.places[cgroup] = cgroups.place_of(cgroup.decode("utf-8", "replace"), look.own)
    return place


def _variable(environment: bytes, name: bytes) -> str:
    """Return the value of a variable of an environment, the first, as getenv(3) does."""
    _before, found, rest = (b"\0" + environment).partition(b"\0" + name + b"=")
    return rest.partition(b"\0")[0].decode("utf-8", "replace") if found else ""


def is_secure(auxv: bytes) -> bool:
    """Whether an auxiliary vector says that the program runs with rights that who started it had not."""
    for layout in ("QQ", "II"):  # as wide as the program's pointers; read too wide, its small numbers are not small
        size = struct.calcsize(layout)
        entries = dict(struct.iter_unpack(layout, auxv[: len(auxv) // size * size]))
        if all(kind < _MOST_KINDS for kind in entries):
            return bool(entries.get(_AT_SECURE, 0))
    return False


def _allocator(look: Look, pid: int, place: cgroups.Place, maps: bytes) -> allocators.Allocator:
    """Return what a process allocates with."""

    def own(library: allocators.Library) -> bool:
        return library.path.startswith(f"{look.prefix}/") and _is_here(look, pid, place, library)

    found = allocators.classify(allocators.libraries(maps), own, _brought(look, pid), allocators.libc(maps))
    if found.kind != allocators.OURS:
        return found
    return found._replace(release=allocators.release_in(found.path) or _mapped_release(look, pid, found.path, maps))


def _is_here(look: Look, pid: int, place: cgroups.Place, library: allocators.Library) -> bool:
    """Whether a path that a process maps is the file of that path here: others can have a file system of their own."""
    directory = f"{look.proc}/{pid}"
    try:
        namespace = os.readlink(f"{directory}/ns/mnt")
    except OSError:
        namespace = look.namespace
    if namespace == look.namespace and not place.container:
        return True
    if library.deleted:
        return not place.container
    try:
        return os.path.samestat(os.stat(f"{directory}/root{library.path}"), os.stat(library.path))
    except OSError:
        return False


def _brought(look: Look, pid: int) -> str:
    """Return the kind of allocator that the program of a process brings; each program is looked at once."""
    path = f"{look.proc}/{pid}/exe"
    try:
        status = os.stat(path)
        key = (status.st_dev, status.st_ino)
        if key not in look.programs:
            look.programs[key] = allocators.built_in(path)
    except OSError:  # what maps say has to do
        return ""
    return look.programs[key]


def _mapped_release(look: Look, pid: int, path: str, maps: bytes) -> str:
    """Return the release of a library that is gone, from what is still mapped of it; that takes the rights of root."""
    line = re.search(rb"^0*([0-9a-f]+-)0*([0-9a-f]+) [^\n]* " + re.escape(os.fsencode(path)), maps, re.MULTILINE)
    if line:
        name = b"".join(line.groups()).decode("ascii")
        with contextlib.suppress(OSError), open(f"{look.proc}/{pid}/map_files/{name}", "rb") as stream:
            return platform.library_version(stream.read())
    return ""
