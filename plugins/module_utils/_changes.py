"""Changes to several files as one: all of them or none, whatever fails; and complete files whenever it is killed."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import os
import re
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

#: What is said of a file that somebody else changed after this run did.
CHANGED = "changed since by another run, or by hand"

# How the lock names the process that writes a file for the run: its number, its start, and when its time is over.
_WATCHDOG = re.compile(r"^watchdog (\d+) (\d+) (\d+)$", re.MULTILINE | re.ASCII)

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


def standing(change: Change) -> t.Optional[str]:
    """Return what a file or link holds at this moment, None where there is none."""
    if change.link:
        return os.readlink(change.path) if os.path.islink(change.path) else None
    return files.read_text(change.path)


@contextlib.contextmanager
def applied(changes: t.Sequence[Change], check: t.Callable[[], None] = lambda: None) -> t.Iterator[None]:
    """Make all changes; roll them back when one of them fails, or when the block does.

    What needs space on the disk is done before anything changes. Each file changes by one rename, and what was there
    is kept under another name until the block ends, so that rolling back needs no space. A file that is no longer
    what it was when the changes were planned is an error, and check may raise one immediately before each rename.
    """
    made: t.List[Change] = []
    left: t.List[str] = []

    def back(change: Change) -> None:
        if not take_back(change) and change in made:
            left.append(change.path)

    with contextlib.ExitStack() as clear:
        for change in changes:
            _clear(change)
            clear.callback(_clear, change)
            with files.about(change.path):
                _prepare(change)
        try:
            with contextlib.ExitStack() as undo:
                for change in changes:
                    with files.about(change.path):
                        if standing(change) == change.after:  # somebody else did it
                            continue
                        undo.callback(back, change)
                        _carry_out(change, check)
                        made.append(change)
                yield
                undo.pop_all()
        except BaseException as error:
            if left:
                raise JemallocError(f"{_sentence(error)} {', '.join(left)}: {CHANGED}; left as it is.") from error
            raise


def _sentence(error: BaseException) -> str:
    """Return an error as a sentence."""
    return f"{str(error).rstrip('.') or type(error).__name__}."


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
    files.make_directories(os.path.dirname(path))
    if change.link:
        os.symlink(change.after, path)
        return
    # Whoever it belongs to and may read it: that is nobody's business here.
    status = os.stat(change.path) if os.path.exists(change.path) else None
    mode = status.st_mode & 0o7777 if status else change.mode
    owner = (status.st_uid, status.st_gid) if status else None
    files.write_new(path, change.after.encode("utf-8", "surrogateescape"), mode, owner)


def _carry_out(change: Change, check: t.Callable[[], None]) -> None:
    """Bring one file to what was prepared, in one step; what was there gets another name."""
    new, kept = _beside(change.path, _NEW), _beside(change.path, _KEPT)
    there = os.path.lexists(change.path)
    if there and change.after is not None:
        os.link(change.path, kept, follow_symlinks=False)
    # These two come last: whoever stopped this process may let it go on much later.
    if standing(change) != change.before:
        raise JemallocError(f"{change.path}: {CHANGED}, after this run had read it; all files are as before.")
    check()
    if change.after is None:
        if _is_all(change):
            os.rename(change.directory, _beside(change.directory, _KEPT))
        else:
            os.rename(change.path, kept)
    elif not os.path.isdir(change.directory):
        os.rename(_beside(change.directory, _NEW), change.directory)
    elif there:
        os.replace(new, change.path)
    else:  # the other name stays for now, by which take_back_trial() knows it
        os.link(new, change.path, follow_symlinks=False)
    _sync(change)


def take_back(change: Change) -> bool:
    """Bring one file back to what it was, where this change still stands; return whether the file is what it was.

    What somebody else wrote over it stays. What was kept is enough.
    """
    kept, kept_directory = _beside(change.path, _KEPT), _beside(change.directory, _KEPT)
    try:
        if standing(change) == change.after:
            if change.alone and os.path.lexists(kept_directory):
                os.rename(kept_directory, change.directory)
            elif os.path.lexists(kept):
                os.replace(kept, change.path)
            elif change.before is None and _is_all(change):
                os.rename(change.directory, _beside(change.directory, _NEW))
            elif change.before is None:
                files.remove_file(change.path)
        unchanged = standing(change) == change.before
    except OSError as error:
        raise JemallocError(
            f"{change.path}: {error.strerror}, and it cannot be brought back to what it was; run this again."
        ) from error
    with contextlib.suppress(OSError):  # it is what it was, if not yet on the disk
        _sync(change)
    _clear(change)
    return unchanged


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
    """Make the names durable: that of the file, and that of a directory which comes and goes with it."""
    if os.path.isdir(change.directory):
        files.sync_directory(change.directory)
    if change.alone:
        files.sync_directory(os.path.dirname(change.directory))


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


class Lock(t.NamedTuple):
    """The lock of the run that changes files of this host, by its descriptor; and whether the run before was killed."""

    descriptor: int
    killed: bool = False

    def name_watchdog(self, pid: int, start: str, over: float) -> None:
        """Let other runs know the process that works for this one, and when (by _fence.now()) its time is over."""
        with files.about(LOCK):
            os.write(self.descriptor, f"watchdog {pid} {start} {over:.0f}\n".encode("ascii"))

    def is_held(self) -> bool:
        """Whether this is the lock that other runs wait for, and not one that somebody removed."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), os.stat(LOCK))
        except OSError:
            return False


@contextlib.contextmanager
def locked(timeout: float = LOCK_TIMEOUT, recovers: bool = False) -> t.Iterator[Lock]:
    """Be the only run that changes files of this host while the block runs; timeout is in seconds.

    The file of the lock stays, as a process that was stopped may hold it. It is empty unless a run is at work or was
    killed. A run that recovers makes good what a killed one left undone; another one leaves that to the next.
    """
    descriptor = files.wait_for_lock(LOCK, timeout, _end_watchdog)
    if descriptor is None:
        raise JemallocError(f"Another run has been changing who preloads for {timeout:g} s; wait for it to end.")
    clear = True
    try:
        killed = os.lseek(descriptor, 0, os.SEEK_END) > 0
        clear = not killed
        with files.about(LOCK):
            os.write(descriptor, b"A run of preload.jemalloc is at work, or was killed.\n")
        yield Lock(descriptor, killed)
        clear = clear or recovers
    finally:
        if clear:
            os.ftruncate(descriptor, 0)
        os.close(descriptor)


@contextlib.contextmanager
def scopes_kept() -> t.Iterator[None]:
    """Let no other run change the scopes of this host while the block runs; nobody but root can."""
    with locked() if os.geteuid() == 0 else contextlib.nullcontext():
        yield


def _end_watchdog() -> None:
    """End the watchdog of a run that was killed, when its time is over: stopped, it would hold the lock for ever."""
    found = _WATCHDOG.findall(files.read_text(LOCK) or "")
    if not found:
        return
    from ansible_collections.preload.jemalloc.plugins.module_utils import _fence as fence

    pid, start, over = found[-1]
    if fence.now() > int(over):
        fence.end(int(pid), start)


def is_taken() -> bool:
    """Whether another run changes files of this host, or was killed while it did."""
    try:
        return os.stat(LOCK).st_size > 0
    except FileNotFoundError:
        return False
