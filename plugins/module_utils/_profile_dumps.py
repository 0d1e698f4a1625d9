"""The dumps of a profile: the service's user owns their directory, so nothing in it is taken for what it says it is."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import os
import re
import stat
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _profile as profile

# jemalloc's prof_dump_filename(): process, number, and what it was written for, an interval or another event.
_NAME = re.compile(rf"{profile.DUMP}\.([0-9]{{1,10}})\.([0-9]{{1,10}})\.[imu][0-9]{{0,10}}\.heap", re.ASCII)

# What the last part of a dump begins with, the same as /proc/PID/maps; one that was cut off is without it, or amid it.
_MAPS = b"\nMAPPED_LIBRARIES:\n"
_MAPPED_FILE = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ +\S+ +(/.*)$", re.MULTILINE)

# The whole of a dump, in bytes that are in use as the sample has them; the first form is that of 3.6.0.
_TOTAL = re.compile(rb"^(?:heap profile: +| +t\*: +)[0-9]+: +([0-9]{1,18}) \[", re.MULTILINE)


class Dump(t.NamedTuple):
    """A file that may be a dump: the process that wrote it, its number in the order of that process, and its size."""

    pid: int
    number: int
    name: str
    size: int


class Content(t.NamedTuple):
    """A dump that is whole: the program of its process, and how many bytes that had in use, as the sample has them."""

    data: bytes
    program: str
    used: int


class Found(t.NamedTuple):
    """A process that left dumps: its program, the bytes that it had in use, its last dump, and its first if another."""

    pid: int
    program: str
    used: int
    last: Dump
    first: t.Optional[Dump]


class Directory:
    """A directory of dumps that stays the same one, whatever its name leads to later."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self.uid = os.fstat(self._descriptor).st_uid
        self.gid = os.fstat(self._descriptor).st_gid

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._descriptor)

    def scan(self) -> t.List[Dump]:
        """Return the dumps that are there: what is no regular file of the service's user is none."""
        found = []
        for name in os.listdir(self._descriptor):
            match = _NAME.fullmatch(name)
            with contextlib.suppress(FileNotFoundError):
                if match:
                    status = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
                    if self._is_dump(status):
                        found.append(Dump(int(match.group(1)), int(match.group(2)), name, status.st_size))
        return sorted(found)

    def _is_dump(self, status: os.stat_result) -> bool:
        """Whether a file can be a dump: another name for somebody else's file belongs to somebody else."""
        return stat.S_ISREG(status.st_mode) and status.st_uid == self.uid and status.st_nlink == 1

    def remove(self, dumps: t.Iterable[Dump]) -> None:
        """Remove dumps."""
        for dump in dumps:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(dump.name, dir_fd=self._descriptor)

    def read(self, dump: Dump, limit: int) -> t.Optional[Content]:
        """Return a dump's content; None for one that is not whole, is larger than the limit, or is no dump by now."""
        try:
            # it would wait for a pipe's other end
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(dump.name, flags, dir_fd=self._descriptor)
        except OSError:
            return None
        with os.fdopen(descriptor, "rb") as stream:
            if not self._is_dump(os.fstat(descriptor)):
                return None
            data = stream.read(limit + 1)
        return None if len(data) > limit else content(data)


def content(data: bytes) -> t.Optional[Content]:
    """Return what a dump holds, None when it was cut off. A process' program is the first file that it maps."""
    head, marked, maps = data.partition(_MAPS)
    program, total = _MAPPED_FILE.search(maps), _TOTAL.search(head)
    if not marked or not maps.endswith(b"\n") or not program:
        return None
    return Content(data, os.fsdecode(program.group(1)), int(total.group(1)) if total else 0)


def surplus(dumps: t.Iterable[Dump], limit: int) -> t.Tuple[t.List[Dump], bool]:
    """Return which dumps to remove so that the rest takes no more than a limit in bytes, and whether it then does.

    The first one of each process stays, to compare with, and the last two: that may be the one that is being written.
    """
    by_process: t.Dict[int, t.List[Dump]] = {}
    for dump in sorted(dumps):
        by_process.setdefault(dump.pid, []).append(dump)
    size = sum(dump.size for each in by_process.values() for dump in each)
    removed = []
    for dump in sorted((dump for each in by_process.values() for dump in each[1:-2]), key=lambda dump: dump.number):
        if size <= limit:
            break
        removed.append(dump)
        size -= dump.size
    return removed, size <= limit


def ranked(directory: Directory, limit: int) -> t.List[Found]:
    """Return the processes that left a whole dump, those first that had the most in use."""
    by_process: t.Dict[int, t.List[Dump]] = {}
    for dump in directory.scan():
        by_process.setdefault(dump.pid, []).append(dump)
    found = []
    for pid, dumps in by_process.items():
        whole = ((dump, directory.read(dump, limit)) for dump in reversed(dumps))
        last, read = next(((dump, each) for dump, each in whole if each), (dumps[0], None))
        if read:
            found.append(Found(pid, read.program, read.used, last, dumps[0] if last != dumps[0] else None))
    return sorted(found, key=lambda each: (-each.used, each.pid))
