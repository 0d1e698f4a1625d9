"""Changes to several files as one: all of them or none, whatever fails; and complete files whenever it is killed."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import os
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

#: Our drop-ins have this name in whatever directory they stand: so they are found again without a record. It sorts
#: behind others, override.conf of systemctl edit among them: the last one to set LD_PRELOAD counts.
DROP_IN = "zz-preload-jemalloc.conf"

#: Held by the run that is at work, and by its watchdog when it was killed.
LOCK = "/run/preload-jemalloc.lock"

#: Seconds to wait for another run; one that waits for slow services does not hold the lock meanwhile.
LOCK_TIMEOUT = 300

# Under these names stand what takes the place of a file, and the file that it took the place of.
_NEW, _KEPT = "", ".kept"


@dataclass(frozen=True)
class Change:
    """One file or link that is going to be different; None stands for not there, a link's text is its target."""

    path: str
    before: t.Optional[str]
    after: t.Optional[str]
    link: bool = False
    mode: int = 0o644

    @property
    def directory(self) -> str:
        """The directory that it stands in."""
        return os.path.dirname(self.path)

    @property
    def alone(self) -> bool:
        """Whether its directory comes and goes with it, as that of a drop-in does."""
        return os.path.basename(self.path) == DROP_IN


@contextlib.contextmanager
def applied(changes: t.Sequence[Change]) -> t.Iterator[None]:
    """Make all changes; take them back when one of them fails, or when the block does.

    What needs space on the disk is done before anything changes. Each file changes by one rename, and what was there
    is kept under another name until the block ends, so that the way back needs no space.
    """
    with contextlib.ExitStack() as clear:
        for change in changes:
            _clear(change)
            clear.callback(_clear, change)
            with files.about(change.path):
                _prepare(change)
        with contextlib.ExitStack() as undo:
            for change in changes:
                undo.callback(take_back, change)
                with files.about(change.path):
                    _carry_out(change)
            yield
            undo.pop_all()


def apply(changes: t.Sequence[Change]) -> None:
    """Make all changes, or on the first that fails none."""
    with applied(changes):
        pass


def _beside(path: str, kind: str) -> str:
    """Return the name of what belongs to a path, in the same directory: a rename works only in one file system."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}{kind}{files.TEMPORARY_SUFFIX}")


def _prepare(change: Change) -> None:
    """Write what is going to take the place of a file, together with its directory where that comes with it."""
    if change.after is None:
        return
    path = _beside(change.path, _NEW)
    if change.alone and not os.path.isdir(change.directory):
        path = os.path.join(_beside(change.directory, _NEW), os.path.basename(change.path))
    if not os.path.isdir(os.path.dirname(path)):
        os.makedirs(os.path.dirname(path))
        os.chmod(os.path.dirname(path), 0o755)
    if change.link:
        os.symlink(change.after, path)
        return
    # Whoever it belongs to and may read it: that is nobody's business here.
    status = os.stat(change.path) if os.path.exists(change.path) else None
    mode = status.st_mode & 0o7777 if status else change.mode
    owner = (status.st_uid, status.st_gid) if status else None
    files.write_new(path, change.after.encode("utf-8", "surrogateescape"), mode, owner)


def _carry_out(change: Change) -> None:
    """Bring one file to what was prepared, in one step; what was there gets another name."""
    new, kept = _beside(change.path, _NEW), _beside(change.path, _KEPT)
    if change.after is None:
        if _is_all(change):
            os.rename(change.directory, _beside(change.directory, _KEPT))
        elif os.path.lexists(change.path):
            os.rename(change.path, kept)
    elif not os.path.isdir(change.directory):
        os.rename(_beside(change.directory, _NEW), change.directory)
    elif os.path.lexists(change.path):
        os.link(change.path, kept, follow_symlinks=False)
        os.replace(new, change.path)
    else:  # the other name stays for now, by which take_back_trial() knows it
        os.link(new, change.path, follow_symlinks=False)
    _sync(change)


def take_back(change: Change) -> None:
    """Bring one file back to what it was, as far as it was changed; what was kept is enough for it."""
    kept, kept_directory = _beside(change.path, _KEPT), _beside(change.directory, _KEPT)
    try:
        if change.alone and os.path.lexists(kept_directory):
            os.rename(kept_directory, change.directory)
        elif os.path.lexists(kept):
            os.replace(kept, change.path)
        elif change.before is None and _is_all(change):
            os.rename(change.directory, _beside(change.directory, _NEW))
        elif change.before is None:
            files.remove_file(change.path)
    except OSError as error:
        raise JemallocError(
            f"{change.path}: {error.strerror}, and it cannot be brought back to what it was; run this again."
        ) from error
    with contextlib.suppress(OSError):  # it is what it was, if not yet on the disk
        _sync(change)
    _clear(change)


def take_back_trial(path: str) -> None:
    """Bring back what a file was before a change that nobody finished: who made it was killed, and what watched too."""
    new, kept = _beside(path, _NEW), _beside(path, _KEPT)
    if os.path.lexists(kept):
        os.replace(kept, path)
    elif os.path.exists(new) and os.path.exists(path) and os.path.samefile(new, path):
        files.remove_file(path)


def _is_all(change: Change) -> bool:
    """Whether a file is all that there is in a directory that goes with it."""
    return change.alone and os.path.isdir(change.directory) and os.listdir(change.directory) == [DROP_IN]


def _sync(change: Change) -> None:
    """Make the names durable."""
    directory = change.directory if os.path.isdir(change.directory) else os.path.dirname(change.directory)
    files.sync_directory(directory)


def _clear(change: Change) -> None:
    """Remove what was prepared and what was kept; what cannot be removed now is so by the next run."""
    places = [change.path, change.directory] if change.alone else [change.path]
    for path in places:
        for kind in (_NEW, _KEPT):
            with contextlib.suppress(OSError):
                files.remove_tree(_beside(path, kind))


def clear(path: str) -> None:
    """Remove what a killed run prepared and kept for a path, whatever the path is to be now."""
    _clear(Change(path, None, None))


@contextlib.contextmanager
def locked(timeout: float = LOCK_TIMEOUT) -> t.Iterator[bool]:
    """Be the only run that changes files of this host while the block runs; timeout is in seconds.

    The block gets whether the run before was killed: only then there is something in the file, which the one who has
    the lock writes there and removes in the end.
    """
    descriptor = files.wait_for_lock(LOCK, timeout)
    if descriptor is None:
        raise JemallocError(f"Another run has been changing who preloads for {timeout:g} s; wait for it to end.")
    try:
        killed = os.fstat(descriptor).st_size > 0
        with files.about(LOCK):
            os.write(descriptor, b"A run of preload.jemalloc.jemalloc_preload is at work, or was killed.\n")
        yield killed
    finally:
        files.remove_file(LOCK)
        os.close(descriptor)


def is_taken() -> bool:
    """Whether another run changes files of this host, or was killed while it did."""
    return os.path.exists(LOCK)
