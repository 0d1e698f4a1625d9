"""Files in a directory that another user may own: no link of that user is followed, and nothing waits for that user."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

_DIRECTORY = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# How many links the kernel follows in a path, path_resolution(7).
_MOST_LINKS = 40


class Directory:
    """A directory that stays the same one, whatever its path leads to later; root alone decides where that leads.

    Raises JemallocError where a link of another user is in the path, and OSError.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with files.about(path):
            self._descriptor = _opened(path)

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._descriptor)

    def identity(self, name: str) -> t.Optional[t.Tuple[int, int]]:
        """Return what tells a file, a link or a pipe from the one that takes its place; None where there is none."""
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                return status.st_ino, status.st_mtime_ns
        return None

    def read(self, name: str, limit: int) -> bytes:
        """Return the first bytes of a regular file, nothing for a link, a pipe and whatever else is none."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=self._descriptor)
        except OSError:
            return b""
        with os.fdopen(descriptor, "rb") as stream:
            return stream.read(limit) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""

    def replace(self, name: str, data: bytes) -> None:
        """Replace a file, or what stands under its name, by one that everybody may read; atomic, durable."""
        temporary = os.path.basename(files.prepared_name(name))
        with files.about(os.path.join(self.path, name)):
            self.remove(temporary)
            try:
                files.write_new(temporary, data, directory=self._descriptor)
                os.replace(temporary, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
            except BaseException:
                self.remove(temporary)
                raise
            os.fsync(self._descriptor)

    def remove(self, name: str) -> None:
        """Remove a file, a link or a pipe; one that is not there is fine."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def clear(self, name: str) -> None:
        """Remove what a killed run prepared to replace a file with."""
        self.remove(os.path.basename(files.prepared_name(name)))


def _opened(path: str) -> int:
    """Open a directory by one component after the other."""
    names = _components(path)
    links = 0
    descriptor = os.open("/", os.O_PATH | _DIRECTORY)
    try:
        while names:
            name = names.pop()
            target = _target(descriptor, name, path)
            links += target is not None
            if links > _MOST_LINKS:
                raise JemallocError(f"{path}: too many links lead to it; name the directory itself.")
            names += _components(target or "")
            into = "/" if target and target.startswith("/") else "." if target is not None else name
            parent, descriptor = descriptor, os.open(into, os.O_PATH | _DIRECTORY, dir_fd=descriptor)
            os.close(parent)
        return os.open(".", os.O_RDONLY | _DIRECTORY, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def _components(path: str) -> t.List[str]:
    """Return the components of a path, the last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _target(directory: int, name: str, path: str) -> t.Optional[str]:
    """Return where a link leads to, None for what is none. Raises JemallocError where root did not make it."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        return None
    around = os.fstat(directory)
    if {status.st_uid, around.st_uid} - {0, os.geteuid()} or around.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise JemallocError(
            f"{path}: {name} in it is a link, and a user other than root may have made it, so nothing is read or "
            "written there; name the directory that it leads to, or remove the link."
        )
    return os.readlink(name, dir_fd=directory)
