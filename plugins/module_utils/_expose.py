"""Brings the timer for metrics to a host and proves that it writes them, or leaves everything as it was."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import os
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _activate as activate
from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _collector as collector
from ansible_collections.preload.jemalloc.plugins.module_utils import _labels as labels
from ansible_collections.preload.jemalloc.plugins.module_utils import _metrics as metrics
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils import _timer as timer
from ansible_collections.preload.jemalloc.plugins.module_utils import _untrusted as untrusted
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host

# The last thing that the program writes.
_LAST = metrics.FAMILIES[-1].name

# Bytes, more than the metrics of any host take.
_MOST = 1 << 26


def expose(host: Host, changes: t.Sequence[changes_util.Change], directory: str, was_active: bool) -> None:
    """Make all changes, run the service once, see its metrics, and start the timer; or leave the host as it was.

    Raises JemallocError with what systemd or the service says.
    """
    with untrusted.Directory(directory) as metrics_directory:
        _expose(host, changes, metrics_directory, was_active)


def _expose(
    host: Host, changes: t.Sequence[changes_util.Change], directory: untrusted.Directory, was_active: bool
) -> None:
    before = directory.identity(collector.FILE)
    own = [change for change in changes if not _is_metrics(change)]
    try:
        with changes_util.applied(own):
            labels.restore(host.run, [change.path for change in own if change.after is not None and not change.link])
            _check(activate.reload_systemd(host, None, users=False))
            _systemctl(host, "restart", timer.SERVICE)
            _prove(directory, before)
            _systemctl(host, "restart", timer.TIMER)
            _remove_metrics(changes)
    except (JemallocError, OSError) as error:
        # what the journal has, while systemd still knows the unit
        last_words = restarts.journal(host.run, restarts.Service(timer.SERVICE, None))
        _go_back(host, directory, before is not None, was_active)
        if not isinstance(error, JemallocError):
            raise
        more = f"; its journal ends with: {last_words.rstrip('.')}" if last_words else ""
        raise JemallocError(f"{error}; all files are as before{more}.") from error


def withdraw(host: Host, changes: t.Sequence[changes_util.Change]) -> None:
    """Stop the timer and remove all that belongs to it; when that fails it is as it was."""
    there = {os.path.basename(change.path) for change in changes if not change.link}
    loaded = [unit for unit in (timer.TIMER, timer.SERVICE) if unit in there and systemd.is_running()]
    if loaded:
        _systemctl(host, "stop", *loaded)
    try:
        with changes_util.applied([change for change in changes if not _is_metrics(change)]):
            _remove_metrics(changes)
    except (JemallocError, OSError):
        if loaded:
            host.run(["systemctl", "start", timer.TIMER])
        raise
    _remove_directory()
    if loaded:
        _check(activate.reload_systemd(host, None, users=False))
        host.run(["systemctl", "reset-failed", timer.SERVICE])


def clear_leftovers(directory: str) -> None:
    """Clear what a killed run, of this or of the program, left where it has files."""
    for path in (timer.PROGRAM, f"{timer.UNITS}/{timer.SERVICE}", f"{timer.UNITS}/{timer.TIMER}", timer.ENABLED):
        changes_util.clear(path)
    with contextlib.suppress(JemallocError, OSError), untrusted.Directory(directory) as metrics_directory:
        metrics_directory.clear(collector.FILE)


def _is_metrics(change: changes_util.Change) -> bool:
    """Whether a change is that of the metrics."""
    return os.path.basename(change.path) == collector.FILE


def _remove_metrics(changes: t.Iterable[changes_util.Change]) -> None:
    """Remove the metrics that a plan names."""
    for change in filter(_is_metrics, changes):
        with untrusted.Directory(change.directory) as directory:
            directory.remove(collector.FILE)


def _go_back(host: Host, directory: untrusted.Directory, was_there: bool, was_active: bool) -> None:
    """Let systemd know of the files as they were; a unit that is gone must not count as failed."""
    _remove_directory()
    if not was_there:
        with contextlib.suppress(OSError):  # a file system that lets nobody write holds none of ours either
            directory.remove(collector.FILE)
    activate.reload_systemd(host, None, users=False)
    host.run(["systemctl", "restart" if was_active else "stop", timer.TIMER])
    host.run(["systemctl", "reset-failed", timer.SERVICE])


def _prove(directory: untrusted.Directory, before: t.Optional[t.Tuple[int, int]]) -> None:
    """See that the program has replaced its file by one with all metrics.

    Another file is another inode: no clock is needed, and the one that is replaced cannot lend it its number.
    """
    path = os.path.join(directory.path, collector.FILE)
    if directory.identity(collector.FILE) in (None, before):
        raise JemallocError(f"{timer.SERVICE} ran, but there is no new {path}")
    if f"\n{_LAST} ".encode("ascii") not in directory.read(collector.FILE, _MOST):
        raise JemallocError(f"{timer.SERVICE} ran, but what it wrote into {path} is not complete")


def _systemctl(host: Host, *arguments: str) -> None:
    status, output = host.run(["systemctl", *arguments])
    words = " ".join(output.split()).partition(" See ")[0].rstrip(".")  # where to look is said by us
    _check(f"systemctl {' '.join(arguments)} ended with {status} ({words})" if status else "")


def _check(reason: str) -> None:
    if reason:
        raise JemallocError(reason)


def _remove_directory() -> None:
    """Remove the directory of the program, which goes with it."""
    with contextlib.suppress(OSError):
        os.rmdir(timer.PROGRAM_DIRECTORY)
