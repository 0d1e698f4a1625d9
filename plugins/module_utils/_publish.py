"""Every change to the store: one writer at a time, each step atomic, and all of them taken back when one fails."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
import time
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _sandbox as sandbox
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _wrapper as wrapper
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

#: Seconds to wait for another run that writes to the same store; the slowest build takes a few minutes.
LOCK_TIMEOUT = 1800

#: The steps back from what was done to a store, taken in reverse order when something fails.
Undo = contextlib.ExitStack


@contextlib.contextmanager
def locked(prefix: str, timeout: t.Optional[float] = None) -> t.Iterator[Undo]:
    """Be the only writer of a store while the block runs; make the prefix, and clear what a killed run left.

    The block gets what its changes are recorded in: an error in it takes them back, so that the store is as before.
    The kernel drops the lock with the process that holds it; timeout is in seconds, LOCK_TIMEOUT without it. When the
    block leaves nothing in the store, the prefix goes as well if it was this run that made it.
    """
    made = not os.path.isdir(prefix)
    try:
        files.make_directories(prefix)
        descriptor = _acquire(prefix, LOCK_TIMEOUT if timeout is None else timeout)
    except BaseException:
        with contextlib.suppress(OSError):  # another run may use it
            if made:
                os.rmdir(prefix)
        raise
    try:
        if os.path.isdir(f"{prefix}/{store.STAGING}"):
            sandbox.end(f"{prefix}/{store.STAGING}")
        for left in store.leftovers(prefix):
            files.remove_tree(left)
        with contextlib.ExitStack() as undo:
            yield undo
            undo.pop_all()
    except BaseException:
        # What went wrong first is what the operator has to know, not that on such a disk clearing up fails as well.
        with contextlib.suppress(OSError):
            _release(prefix, descriptor, made)
        raise
    _release(prefix, descriptor, made)


def clear_leftovers(prefix: str) -> None:
    """Clear what a killed run left, also where there is nothing else to do; a run that is at work is left alone."""
    if store.leftovers(prefix):
        with contextlib.suppress(JemallocError, OSError), locked(prefix, timeout=0):
            pass


def _acquire(prefix: str, timeout: float) -> int:
    """Take the lock; the one who had it may have removed the file or the prefix meanwhile: then it starts again."""
    path = f"{prefix}/{store.LOCK}"
    deadline = time.monotonic() + timeout
    while True:
        files.make_directories(prefix)
        try:
            descriptor = files.lock(path)
        except FileNotFoundError:
            continue
        if descriptor is not None:
            return descriptor
        if time.monotonic() > deadline:
            raise JemallocError(f"Another run has been writing to {prefix} for {timeout} s; wait for it to end.")
        time.sleep(0.1)


def _release(prefix: str, descriptor: int, made: bool) -> None:
    """Clear the staging area, and with it the prefix when this run made it for nothing; then give the lock back."""
    try:
        files.remove_tree(f"{prefix}/{store.STAGING}")
        if made and os.listdir(prefix) == [store.LOCK]:
            _remove_prefix(prefix)
    finally:
        os.close(descriptor)


def _remove_prefix(prefix: str) -> None:
    """Remove the lock and the prefix; a prefix that holds something foreign stays, without our lock."""
    files.remove_file(f"{prefix}/{store.LOCK}")
    with contextlib.suppress(OSError):
        os.rmdir(prefix)


def stage(prefix: str) -> str:
    """Return a new directory in the store's own file system, so that what is made there can be renamed.

    It is closed to others, who could sit in it; the sandbox of a build lets its own user pass.
    """
    staging = f"{prefix}/{store.STAGING}"
    os.makedirs(staging, 0o700, exist_ok=True)
    os.chmod(staging, 0o700)
    return tempfile.mkdtemp(dir=staging)


def complete(tree: str, prefix: str, receipt: t.Mapping[str, t.Any]) -> None:
    """Make a staged tree an installation: stable name of the library, wrappers, receipt, all of it durable."""
    library = receipt["library"]
    link = f"{tree}/lib/libjemalloc.so"
    if not os.path.lexists(link):
        os.symlink(library, link)
    write_wrappers(tree, prefix)
    whole = dict(receipt, files=store.fingerprint(tree))
    files.write_file(f"{tree}/{store.RECEIPT}", (json.dumps(whole, indent=2, sort_keys=True) + "\n").encode("utf-8"))
    files.sync_tree(tree)


def publish(prefix: str, tree: str, version: str, undo: Undo) -> None:
    """Put a complete staged tree under its final name, in one step even where another one stands there."""
    final = f"{prefix}/{version}"
    if not os.path.lexists(final):
        _on_failure(undo, os.rename, final, tree)
        os.rename(tree, final)
    elif files.exchange(tree, final):
        _on_failure(undo, files.exchange, tree, final)
    else:
        raise JemallocError(
            f"The file system of {prefix} cannot swap two directories, so {final} cannot be replaced safely; "
            f"remove that release first (state: absent, version: {version}) or install another one."
        )
    files.sync_directory(prefix)


def switch(prefix: str, version: str, undo: Undo) -> None:
    """Let current lead to an installation, and previous to what current led to.

    The links change places, so that no moment loses what was current before; where the file system cannot do that,
    it is recorded first.
    """
    before = store.read_link(prefix, "current")
    _on_failure(undo, _set_link, prefix, "previous", store.read_link(prefix, "previous"))
    _on_failure(undo, _set_link, prefix, "current", before)
    if before is not None and os.path.isdir(f"{prefix}/{before}"):
        _set_link(prefix, "previous", version)
        if files.exchange(f"{prefix}/previous", f"{prefix}/current"):
            files.sync_directory(prefix)
            return
        _set_link(prefix, "previous", before)
    _set_link(prefix, "current", version)


def _set_link(prefix: str, name: str, target: t.Optional[str]) -> None:
    """Let a link of the store lead to target; without one it goes."""
    if target is None:
        files.remove_file(f"{prefix}/{name}")
    elif store.read_link(prefix, name) != target:
        files.replace_link(f"{prefix}/{name}", target)


def _on_failure(undo: Undo, step_back: t.Callable[..., t.Any], *arguments: t.Any) -> None:
    """Record a step back. Where it fails too, on a broken disk, the error that made it necessary is what counts."""

    def quietly() -> None:
        with contextlib.suppress(OSError):
            step_back(*arguments)

    undo.callback(quietly)


def write_wrappers(tree: str, prefix: str) -> None:
    """Bring the wrappers of an installation to the texts of this collection."""
    os.makedirs(f"{tree}/bin", exist_ok=True)
    for name, text in wrapper.texts(prefix).items():
        files.write_file(f"{tree}/{name}", text.encode("ascii"), 0o755)


def remove(prefix: str, plan: store.Plan, undo: Undo) -> None:
    """Take installations away: first what leads to them, then each in one step out of its final name."""
    for name in store.LINKS:
        target = store.read_link(prefix, name)
        if plan.unlink or target in plan.remove:
            _on_failure(undo, _set_link, prefix, name, target)
            _set_link(prefix, name, None)
    for version in plan.remove:
        _remove_installation(prefix, version, undo)
    files.sync_directory(prefix)
    if plan.remove_prefix:
        undo.pop_all()  # what is half deleted must not get its name back
        files.remove_tree(f"{prefix}/{store.STAGING}")
        _remove_prefix(prefix)
        files.sync_directory(os.path.dirname(prefix))


def _remove_installation(prefix: str, version: str, undo: Undo) -> None:
    """Take one installation away in one step, or, where its directory cannot be renamed, its receipt last.

    A directory from a lower layer of an overlay (an image) cannot be renamed. Killed half-way such a removal leaves
    an installation that its receipt shows to be damaged, which the next run removes or replaces.
    """
    directory = f"{prefix}/{version}"
    staged = f"{stage(prefix)}/{version}"
    _on_failure(undo, os.rename, staged, directory)
    try:
        os.rename(directory, staged)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        for name in os.listdir(directory):
            if name != store.RECEIPT:
                files.remove_tree(f"{directory}/{name}")
        files.remove_tree(directory)
