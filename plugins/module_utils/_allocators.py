"""Which allocator a process really uses: read from what it maps, and from the bytes of its program."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _elf as elf
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes

#: Kinds of allocators, as they are reported; OURS is followed by its release.
OURS = "jemalloc"
OTHER = "jemalloc (other)"
BUILT_IN = "jemalloc (built in)"
TCMALLOC, MIMALLOC = "tcmalloc", "mimalloc"
GLIBC, MUSL, STATIC, UNREADABLE = "glibc", "musl", "static", "unreadable"

#: All that is jemalloc, and so reads MALLOC_CONF.
JEMALLOCS = (OURS, OTHER, BUILT_IN)

# The libraries that replace malloc, in the order in which they count when a process maps several.
_FAMILIES = {b"jemalloc": OTHER, b"tcmalloc": TCMALLOC, b"mimalloc": MIMALLOC}

# The path of such a library.
_LIBRARY = re.compile(rb"/(?:.*/)?lib(jemalloc|tcmalloc|mimalloc)[^/]*\.so[^/]*")

# How C libraries show in maps, commonest first; the loader alone tells it for a program that maps no C library.
_C_LIBRARIES = (
    (b"/libc.so.6", GLIBC),
    (b"/libc-2.", GLIBC),
    (b"/ld-musl-", MUSL),
    (b"/libc.musl-", MUSL),
    (b"/ld-linux", GLIBC),
    (b"/ld-2.", GLIBC),
    (b"/ld64.so.", GLIBC),
)

# A heap of an arena of glibc, other than the main one: what it uses, then what it keeps for itself (malloc/arena.c).
# The end of the latter is a multiple of HEAP_SIZE, by which heaps are found: fixed bytes are, and a pattern is not.
_HEAP = re.compile(
    rb"([0-9a-f]{1,16})-([0-9a-f]{1,16}) rw-p 00000000 00:00 0 [^\n]*\n\2-([0-9a-f]{1,16}) ---p 00000000 00:00 0 "
)
_HEAP_END = b"000000 ---p 00000000 00:00 0 "

#: HEAP_MAX_SIZE where pointers have 64 bits; each heap begins at a multiple of it.
HEAP_SIZE = 64 << 20

# Texts that these allocators print, and nothing that only mentions them.
_TEXTS = {
    b"<jemalloc>: ": BUILT_IN,
    b"Bytes in use by application": TCMALLOC,
    b"mimalloc: warning: ": MIMALLOC,
}

# Python holds mimalloc since 3.13, for objects of its own and only when it was built without the GIL.
_PYTHON = b"PYTHONMALLOC"

_BLOCK = 1 << 18
_LONGEST = 32  # of the texts


class Library(t.NamedTuple):
    """A library that replaces malloc, as a process maps it."""

    kind: str
    path: str
    deleted: bool = False


class Allocator(t.NamedTuple):
    """What a process allocates with; release and path are those of a library, where it has one."""

    kind: str
    release: str = ""
    path: str = ""
    deleted: bool = False

    @property
    def label(self) -> str:
        """The kind, with the release of ours."""
        return f"{OURS} {self.release or 'unknown'}" if self.kind == OURS else self.kind


class Heaps(t.NamedTuple):
    """The heaps of glibc's arenas but the main one: how many, and the bytes that they have opened for use."""

    number: int = 0
    size: int = 0


def libraries(maps: bytes) -> t.List[Library]:
    """Return the libraries that replace malloc and whose code is mapped, the one that counts first."""
    found = set()
    for path, deleted in processes.code(maps, b"malloc"):
        match = _LIBRARY.fullmatch(path)
        if match:
            found.add(Library(_FAMILIES[match.group(1)], path.decode("utf-8", "replace"), deleted))
    order = list(_FAMILIES.values())
    return sorted(found, key=lambda library: (order.index(library.kind), library))


def libc(maps: bytes) -> str:
    """Return whose malloc a process has without any other library; STATIC when it maps no C library and no loader."""
    # they are mapped last, so that the search from behind ends soon
    return next((kind for name, kind in _C_LIBRARIES if maps.rfind(name) != -1), STATIC)


def heaps(maps: bytes) -> Heaps:
    """Return the heaps of glibc's arenas; neighbours that the kernel shows as one are told apart by their size."""
    number = size = 0
    position = maps.find(_HEAP_END)
    while position != -1:
        line = maps.rfind(b"\n", 0, position)
        match = _HEAP.match(maps, maps.rfind(b"\n", 0, max(line, 0)) + 1)
        if match:
            start, used, end = (int(digits, 16) for digits in match.groups())
            if start % HEAP_SIZE == 0 and start < used < end:
                number += max(1, (end - start) // HEAP_SIZE)
                size += used - start
        position = maps.find(_HEAP_END, position + len(_HEAP_END))
    return Heaps(number, size)


def built_in(path: str) -> str:
    """Return the kind of allocator that a program brings in its own file, nothing when it brings none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = _held(descriptor, _TEXTS)
        if MIMALLOC in found and _held(descriptor, {_PYTHON: MIMALLOC}):
            found.remove(MIMALLOC)
    finally:
        os.close(descriptor)
    return next((kind for kind in _TEXTS.values() if kind in found), "")


def _held(descriptor: int, texts: t.Mapping[bytes, str]) -> t.Set[str]:
    """Return the kinds whose texts are among a program's constants.

    These are read in blocks: programs can be large, and one that is cut short meanwhile must not end us.
    """
    found: t.Set[str] = set()
    for start, size in elf.constants(lambda position, count: os.pread(descriptor, count, position)):
        for position in range(start, start + size, _BLOCK):
            block = os.pread(descriptor, min(_BLOCK + _LONGEST, start + size - position), position)
            if not block:
                break
            found.update(kind for text, kind in texts.items() if text in block)
    return found


def classify(mapped: t.Sequence[Library], own: t.Callable[[Library], bool], brought: str, c_library: str) -> Allocator:
    """Return what a process allocates with.

    A program's own malloc wins over every library, ours over any other: it stands first in LD_PRELOAD.
    """
    if brought:
        return Allocator(brought)
    ours = [library for library in mapped if library.kind == OTHER and own(library)]
    if ours:
        # one that is there goes before one that is gone: a program can have loaded it again since
        library = min(ours, key=lambda each: each.deleted)
        return Allocator(OURS, path=library.path, deleted=library.deleted)
    if mapped:
        return Allocator(mapped[0].kind, path=mapped[0].path, deleted=mapped[0].deleted)
    return Allocator(c_library)


def release_in(path: str) -> str:
    """Return the release that the path of a library of ours names, also where it was moved away to be removed."""
    match = re.search(r"/([0-9]+\.[0-9]+\.[0-9]+)/lib/[^/]*\Z", path)
    return match.group(1) if match else ""
