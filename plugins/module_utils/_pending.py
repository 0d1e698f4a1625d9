"""Find the services that run with something else than their files say, and so have to be restarted."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import math
import os
import re
import typing as t
from dataclasses import asdict

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _environment as environment
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run

# A variable that a drop-in of ours sets.
_SET = re.compile(r'^Environment="(\w+)=', re.MULTILINE)


class Listed(t.NamedTuple):
    """A unit as it is listed, whether it is one of users, the release its processes have to map, and its drop-in."""

    unit: str
    user: bool
    version: t.Optional[str]
    text: str = ""


def by_files(
    changes: t.Sequence[changes_util.Change], prefix: str, current: str, host_wide: bool = False
) -> t.List[Listed]:
    """Return what has to run with what, as the drop-ins say when these changes are made.

    A service whose drop-in goes gets what the whole host has, when that is a scope.
    """
    texts = {path: files.read_text(path) for path in places.present_drop_ins()}
    texts.update({change.path: change.after for change in changes if change.path.endswith(changes_util.DROP_IN)})
    found = []
    for path, text in texts.items():
        match = re.search(rf"{re.escape(prefix)}/([^/\s]+)/lib/", text or "")
        version = (current if match.group(1) == "current" else match.group(1)) if match else None
        if text is None and host_wide:
            version = processes.ANY
        found.append(Listed(places.unit_of_drop_in(path), places.is_user_drop_in(path), version, text or ""))
    return [each for each in found if each.unit.endswith(".service")]


def running(
    run: Run,
    listed: t.Sequence[Listed],
    prefix: str,
    changes: t.Sequence[changes_util.Change] = (),
    rebuilt: t.Optional[str] = None,
    proc: str = "/proc",
) -> t.List[t.Dict[str, t.Any]]:
    """Return the listed services that run, each with the reason why it has to be restarted, empty where there is none.

    That is: it does not map what it should, or its drop-in changes in another way. A rebuilt release counts as not
    mapped by anybody: in check mode its library is not replaced yet.
    """
    versions = {(each.unit, each.user): each.version for each in listed}
    texts = {(each.unit, each.user): each.text for each in listed}
    before = {change.path: change.before for change in changes if change.before is not None}
    changing = {change.path for change in changes}
    members = processes.members(versions, proc)
    found: t.Dict[restarts.Service, t.Dict[int, t.Set[str]]] = {}
    for member in sorted(members, key=lambda member: (*member[:2], member.uid or 0)):
        service = restarts.Service(member.name, versions[member.unit, member.uid is not None], member.uid, member.unit)
        found[service] = processes.installations_of(members[member], prefix, proc)
    lacking = [service for service in found if processes.unproved(found[service], service.version)]
    for service, properties in restarts.properties_of(run, lacking).items():
        found[service] = restarts.counted(found[service], properties)
    result = []
    for service, installations in found.items():
        reason = _outdated(service, installations, rebuilt)
        if not reason and service.version and service.drop_in in before:
            reason = "its drop-in is going to differ"
        elif not reason and service.version:
            text = texts[service.unit, service.uid is not None]
            written = math.inf if service.drop_in in changing else _written(service.drop_in)
            if is_older(text, written, installations, proc):
                reason = "it runs since before its drop-in was written"
        if installations:
            result.append({**asdict(service), "before": before.get(service.drop_in), "reason": reason})
    return result


def is_older(text: str, written: float, pids: t.Iterable[int], proc: str = "/proc") -> bool:
    """Whether processes were all started before a drop-in was written, and none has all variables that it sets.

    The library tells by itself whether a process has it; of other variables only a new start makes something.
    """
    names = [name for name in _SET.findall(text) if name != "LD_PRELOAD"]
    if not names:
        return False
    wanted = {name: environment.setting([text], "Service", "Environment", name).replace("%%", "%") for name in names}
    started = {pid: processes.started(pid, proc) for pid in pids}
    running = [pid for pid, start in started.items() if start]  # the others ended meanwhile
    return bool(running) and all(
        started[pid] < written and wanted.items() - processes.variables(pid, proc).items() for pid in running
    )


def _written(path: str) -> float:
    """Return when a file was written, in epoch seconds; 0 when it is not there."""
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0


def _outdated(service: restarts.Service, found: t.Mapping[int, t.Set[str]], rebuilt: t.Optional[str]) -> str:
    """Return how the processes of a service differ from what they should map, empty when they do not."""
    version = service.version
    wrong = sorted(found) if version is not None and version == rebuilt else processes.unproved(found, version)
    what = f"do not map jemalloc {version}" if version else "still map jemalloc"
    return f"{len(wrong)} of its {len(found)} processes {what}" if wrong else ""
