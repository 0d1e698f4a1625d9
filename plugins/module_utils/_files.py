"""Changes to the file system that are atomic: each leaves the old state or the new one, whenever it is killed."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import hashlib
import os
import shutil
import stat
import time
import typing as t

#: Ends the names under which files are prepared, so that a later run knows what a killed one left.
TEMPORARY_SUFFIX = ".preload-jemalloc"

_AT_FDCWD = -100  # linux/fcntl.h
_RENAME_EXCHANGE = 2  # linux/fs.h


def sha256(path: str) -> str:
    """Return the SHA-256 digest of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def about(path: str) -> t.Iterator[None]:
    """Let the errors of the block say which file they are about: those of a write or an fsync name none."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = path, None
        raise


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    with about(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_directories(path: str, mode: int = 0o755) -> None:
    """Create a directory and its missing parents, durably, with this mode whatever the umask is."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for each in reversed(missing):
        try:
            os.mkdir(each)
        except FileExistsError:
            if not os.path.isdir(each):
                raise
            continue  # another run was faster
        os.chmod(each, mode)
        sync_directory(os.path.dirname(each))


def sync_tree(top: str) -> None:
    """Make a whole tree durable, and readable for everybody whatever the umask was: files and names."""
    for directory, _subdirectories, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.islink(path):
                continue
            descriptor = os.open(path, os.O_RDONLY)
            try:
                executable = os.fstat(descriptor).st_mode & 0o100
                os.fchmod(descriptor, 0o755 if executable else 0o644)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        os.chmod(directory, 0o755)
        sync_directory(directory)


def write_file(path: str, data: bytes, mode: int = 0o644) -> None:
    """Replace a file by one with this content and mode; atomic, durable."""
    temporary = temporary_name(path)
    try:
        with about(path):
            write_new(temporary, data, mode)
            os.replace(temporary, path)
    except BaseException:
        remove_file(temporary)
        raise
    sync_directory(os.path.dirname(path))


def write_new(
    path: str,
    data: bytes,
    mode: int = 0o644,
    owner: t.Optional[t.Tuple[int, int]] = None,
    directory: t.Optional[int] = None,
) -> None:
    """Write a file that is not there yet, durably; owner is a user and a group by number, directory an open one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600, dir_fd=directory)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        if owner and owner != (os.geteuid(), os.getegid()):
            os.fchown(stream.fileno(), *owner)
        # The mode is set here, not left to the umask: root's may be 077, and then nobody could read the file.
        os.fchmod(stream.fileno(), mode)
        os.fsync(stream.fileno())


def replace_link(path: str, target: str) -> None:
    """Make path a symbolic link to target, in place of a link or file that stands there; atomic, durable."""
    temporary = temporary_name(path)
    try:
        os.symlink(target, temporary)
        os.replace(temporary, path)
    except BaseException:
        remove_file(temporary)
        raise
    sync_directory(os.path.dirname(path))


def temporary_name(path: str) -> str:
    """Return the name under which path is prepared, in its own directory: a rename works only in one file system.

    The name is always the same for a path, so that what a killed run left is found and cleared by the next one.
    """
    temporary = prepared_name(path)
    remove_file(temporary)
    return temporary


def prepared_name(path: str) -> str:
    """Return the name under which path is prepared."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}{TEMPORARY_SUFFIX}")


def remove_file(path: str) -> None:
    """Remove a file or link; one that is not there is fine."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def remove_tree(path: str) -> None:
    """Remove a tree, a file or a link; one that is not there is fine."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        remove_file(path)


def lock(path: str) -> t.Optional[int]:
    """Take the lock that a file stands for; return a descriptor, which has it until it is closed, by the kernel too.

    None: another process has it, or has just given it back by removing the file.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with about(path):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.ENOENT):
            os.close(descriptor)
            raise
    os.close(descriptor)
    return None


def wait_for_lock(path: str, timeout: float, meanwhile: t.Callable[[], object] = lambda: None) -> t.Optional[int]:
    """Take a lock as lock() does; timeout has the seconds to wait for another process that has it, None after them.

    meanwhile is called before each further attempt.
    """
    deadline = time.monotonic() + timeout
    descriptor = lock(path)
    while descriptor is None and time.monotonic() <= deadline:
        meanwhile()
        time.sleep(0.1)
        descriptor = lock(path)
    return descriptor


def read_text(path: str) -> t.Optional[str]:
    """Return a text file's content, None when it is not there; bytes that are no UTF-8 survive a round trip.

    A pipe and a device have none: a service's own user may have put them there, to be waited for or read without end.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="", opener=_without_waiting) as stream:
            return stream.read() if stat.S_ISREG(os.fstat(stream.fileno()).st_mode) else ""
    except FileNotFoundError:
        return None


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe is opened without its other end."""
    return os.open(path, flags | os.O_NONBLOCK)


def exchange(one: str, other: str) -> bool:
    """Swap two paths in one step (renameat2); return False where the kernel or the file system has no such thing."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:  # glibc has it since 2.28, musl since 1.2.6
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EXDEV):  # NFS; old kernels; a lower layer of an overlay
        return False
    raise OSError(number, os.strerror(number), one, None, other)


def leftovers(directories: t.Iterable[str]) -> t.List[str]:
    """Return what only a run that is at work, or was killed, has in directories."""
    patterns = (f"{glob.escape(directory)}/.*{TEMPORARY_SUFFIX}" for directory in directories)
    return [path for pattern in patterns for path in glob.glob(pattern)]
