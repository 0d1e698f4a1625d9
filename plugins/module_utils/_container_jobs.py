"""A file of ours and the containers that it is for: change, restart, proof, and the way back where that is not."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, field

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_engine as engine_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._container import Releases
    from ansible_collections.preload.jemalloc.plugins.module_utils._container_compose import Project
    from ansible_collections.preload.jemalloc.plugins.module_utils._container_image import Fitting
    from ansible_collections.preload.jemalloc.plugins.module_utils._container_quadlet import Services


@dataclass(frozen=True)
class Job:
    """What is going to differ for one file of ours, and for the containers that it is for.

    keeper runs these, by units of its own. versions has the release that each unit which runs has to map, None for
    none; before has what they are to map by the files of now, reasons those that have to be restarted for it. fittings
    are to be tried before.
    """

    title: str
    keeper: t.Union[Services, Project]
    path: str
    changes: t.Tuple[changes_util.Change, ...] = ()
    versions: t.Mapping[str, t.Optional[str]] = field(default_factory=dict)
    before: t.Mapping[str, t.Optional[str]] = field(default_factory=dict)
    reasons: t.Mapping[str, str] = field(default_factory=dict)
    fittings: t.Tuple[Fitting, ...] = ()


class _UnprovedError(Exception):
    """The proof did not come."""


def carry_out(job: Job, releases: Releases, timeout: int, restart: bool = True, proc: str = "/proc") -> str:
    """Make the changes, restart what has to be, and wait for the proof; return why that failed, empty if it did not.

    Then all is as before: the files change back by renames, which need no space.
    """
    units = list(job.reasons) if restart else []
    ran_with = {unit: mapped_release(job, unit, releases.prefix, proc) for unit in units}
    touched: t.List[str] = []
    try:
        with changes_util.applied(job.changes):
            reason = job.keeper.reload() if job.changes or units else ""
            for unit in units if not reason else ():
                touched.append(unit)
                version = job.versions[unit]
                reason = restart_and_prove(job, unit, version, bool(job.changes), releases.prefix, timeout, proc)
                if reason:
                    words = job.keeper.last_words(unit)
                    reason = f"{unit}: {reason}" + (f"; its last words are: {words}" if words else "")
                    break
            if reason:
                raise _UnprovedError(reason)
    except _UnprovedError as failed:
        return f"{job.title}: {failed}; {go_back(job, touched, ran_with, releases, timeout, proc)}"
    except JemallocError as error:
        return f"{job.title}: {str(error).rstrip('.')}"
    except OSError as error:
        return f"{job.title}: {error.filename}: {error.strerror}; it is as before"
    return ""


def mapped_release(job: Job, unit: str, prefix: str, proc: str = "/proc") -> t.Optional[str]:
    """Return the one release that the containers of a unit map, None when that is none or more."""
    pids = [each.pid for each in job.keeper.running().get(unit, [])]
    found = {release for each in engine_util.mapped(pids, prefix, proc).values() for release in each}
    return found.pop() if len(found) == 1 and processes.DELETED not in found else None


def restart_and_prove(
    job: Job, unit: str, version: t.Optional[str], changed: bool, prefix: str, timeout: int, proc: str = "/proc"
) -> str:
    """Restart a unit and wait for its proof; return why it did not come."""
    try:
        return job.keeper.restart(unit, timeout, changed) or prove(job, unit, version, prefix, timeout, proc)
    except JemallocError as error:
        return str(error).rstrip(".")


def prove(job: Job, unit: str, version: t.Optional[str], prefix: str, timeout: float, proc: str = "/proc") -> str:
    """Wait until all processes of a unit's containers map what they should; return why they do not.

    Two looks in a row must find it, and the same main processes, as in the proof of services.
    """

    def look(units: t.Sequence[str]) -> t.Dict[str, restarts.Look]:
        return {name: _look(job, name, version, prefix, proc) for name in units}

    return restarts.unsettled(look, [unit], timeout).get(unit, "")


def _look(job: Job, unit: str, version: t.Optional[str], prefix: str, proc: str) -> restarts.Look:
    """Look at what a unit lacks for the proof, and at the main processes of its containers."""
    pids = sorted(each.pid for each in job.keeper.running().get(unit, []))
    reason = job.keeper.state(unit)
    if not reason and not pids:
        reason = "it has no container that runs"
    if not reason:
        found = engine_util.mapped(pids, prefix, proc)
        reason = engine_util.lacking(found, version)
        if not found and version not in (None, processes.ANY):
            reason = "its processes are static programs, into which nothing can be preloaded"
    return restarts.Look(reason, pids)


def go_back(
    job: Job,
    touched: t.Sequence[str],
    ran_with: t.Mapping[str, t.Optional[str]],
    releases: Releases,
    timeout: int,
    proc: str = "/proc",
) -> str:
    """Restart with what was before the units that were restarted; return how it went. Files that changed are back."""
    versions = {unit: job.before.get(unit) for unit in touched}
    if not job.changes:
        versions = _pin(job, touched, ran_with, releases)
    job.keeper.reload()
    told = []
    for unit in touched:
        job.keeper.end(unit)
        why = restart_and_prove(job, unit, versions[unit], True, releases.prefix, timeout, proc)
        what = f"with jemalloc {versions[unit]} as before" if versions[unit] else "without the library as before"
        if not why:
            told.append(f"{unit} runs again {what}")
        elif job.keeper.running().get(unit):
            told.append(f"{unit} is active, but not verified {what} ({why})")
        else:
            told.append(f"{unit} does not run {what} either ({why})")
    return " and ".join(told) or "it is as before"


def hold(job: Job, releases: Releases, proc: str = "/proc") -> str:
    """Keep containers from a release that became current and does not fit: at any restart they would get it.

    Return the release that their file names from now on, empty where it did not follow current.
    """
    ran_with = {unit: mapped_release(job, unit, releases.prefix, proc) for unit in job.reasons}
    if job.changes or len(set(ran_with.values())) != 1 or not all(ran_with.values()):
        return ""
    release = next(iter(_pin(job, list(ran_with), ran_with, releases).values()))
    job.keeper.reload()
    return release or ""


def _pin(
    job: Job, touched: t.Sequence[str], ran_with: t.Mapping[str, t.Optional[str]], releases: Releases
) -> t.Dict[str, t.Optional[str]]:
    """Let a file that did not change name the release from before, or take it away; return what its units are to map.

    That is where another release became current, or a run was killed before it could prove what it had changed.
    """
    known = {ran_with[unit] for unit in touched if ran_with[unit] != job.versions[unit]}
    release = known.pop() if len(known) == 1 else None
    text = files.read_text(job.path) or ""
    if release and os.path.isdir(f"{releases.prefix}/{release}"):
        pinned: t.Optional[str] = text.replace(f"{releases.prefix}/current/", f"{releases.prefix}/{release}/")
    else:
        pinned, release = None, None
    changes_util.apply([changes_util.Change(job.path, text, pinned)])
    return dict.fromkeys(touched, release)
