"""Restarting services until the proof is there, and the way back when it does not come."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import re
import time
import typing as t
from dataclasses import asdict, dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _managers as managers
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run

#: Seconds between two observations. Two in a row must be good, with the same main process: a service that crashes and
#: is started over and over is up at some moments too.
INTERVAL = 0.5

#: Seconds that a service which hangs while it starts has to end by itself, before it is killed; and journald to write.
GRACE = 5

_T = t.TypeVar("_T")

# What is asked at each look; NRestarts counts how often systemd started it again by itself.
_PROPERTIES = ("ActiveState", "MainPID", "KillMode", "NRestarts")


@dataclass(frozen=True)
class Service:
    """A service and the release that all its processes have to map, or ANY; None: no library of the store.

    unit is what is listed, the template of an instance or the service itself. uid is the user whose own systemd runs
    it, None for the host's. before is the text that our drop-in had, where this run changed it; written the fingerprint
    of the drop-in that the run left.
    """

    name: str
    version: t.Optional[str]
    uid: t.Optional[int] = None
    unit: str = ""
    before: t.Optional[str] = None
    written: t.Optional[str] = None

    def __str__(self) -> str:
        return self.name if self.uid is None else f"{self.name} of user {self.uid}"

    @property
    def drop_in(self) -> str:
        """The path of our drop-in."""
        return places.drop_in_path(self.unit or self.name, self.uid is not None)

    def shown(self, run: Run) -> t.Dict[str, str]:
        """Return what systemd says of it at this moment."""
        return systemd.shown(run, self.name, _PROPERTIES, self.uid)


@dataclass(frozen=True)
class Failure:
    """A service for which the proof did not come: why, what its journal says, and what it went back to."""

    service: Service
    reason: str
    journal: str = ""
    back: str = ""

    def __str__(self) -> str:
        parts = [f"{self.service}: {self.reason}", self.back]
        parts += [f"its journal ends with: {self.journal}"] if self.journal else []
        return "; ".join(part for part in parts if part)


class Listed(t.NamedTuple):
    """A unit as it is listed, whether it is one of users, and the release its processes have to map."""

    unit: str
    user: bool
    version: t.Optional[str]


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
        found.append(Listed(places.unit_of_drop_in(path), places.is_user_drop_in(path), version))
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
    before = {change.path: change.before for change in changes if change.before is not None}
    members = processes.members(versions, proc)
    found: t.Dict[Service, t.Dict[int, t.Set[str]]] = {}
    for member in sorted(members, key=lambda member: (*member[:2], member.uid or 0)):
        service = Service(member.name, versions[member.unit, member.uid is not None], member.uid, member.unit)
        found[service] = processes.installations_of(members[member], prefix, proc)
    lacking = [service for service in found if processes.unproved(found[service], service.version)]
    for service, properties in _shown(run, lacking).items():
        found[service] = _counted(found[service], properties)
    result = []
    for service, installations in found.items():
        reason = _outdated(service, installations, rebuilt)
        if not reason and service.version and service.drop_in in before:
            reason = "its drop-in is going to differ"
        if installations:
            result.append({**asdict(service), "before": before.get(service.drop_in), "reason": reason})
    return result


def _outdated(service: Service, found: t.Mapping[int, t.Set[str]], rebuilt: t.Optional[str]) -> str:
    """Return how the processes of a service differ from what they should map, empty when they do not."""
    version = service.version
    wrong = sorted(found) if version is not None and version == rebuilt else processes.unproved(found, version)
    what = f"do not map jemalloc {version}" if version else "still map jemalloc"
    return f"{len(wrong)} of its {len(found)} processes {what}" if wrong else ""


def releases_before(
    services: t.Sequence[Service], prefix: str, proc: str = "/proc"
) -> t.Dict[Service, t.Optional[str]]:
    """Return the one release that the processes of each service map now, to which it can be rolled back."""
    result = {}
    for service, pids in _pids(services, proc).items():
        found = set().union(*processes.installations_of(pids, prefix, proc).values())
        version = found.pop() if len(found) == 1 else None
        there = version and os.path.isdir(f"{prefix}/{version}") and version != service.version
        result[service] = version if there else None
    return result


def _pids(services: t.Sequence[Service], proc: str) -> t.Dict[Service, t.List[int]]:
    """Return the processes of services, found in one scan of /proc."""
    found = processes.members({(service.name, service.uid is not None) for service in services}, proc)
    return {service: found.get(processes.Member(service.name, service.name, service.uid), []) for service in services}


def _shown(run: Run, services: t.Sequence[Service]) -> t.Dict[Service, t.Dict[str, str]]:
    """Return the properties of services at this moment, by one question to each systemd that runs some of them."""
    by_user: t.Dict[t.Optional[int], t.List[Service]] = {}
    for service in services:
        by_user.setdefault(service.uid, []).append(service)
    found = {}
    for uid, members in by_user.items():
        shown = systemd.shown_all(run, [service.name for service in members], _PROPERTIES, uid)
        found.update({service: shown[service.name] for service in members})
    return found


def _counted(found: t.Dict[int, t.Set[str]], properties: t.Mapping[str, str]) -> t.Dict[int, t.Set[str]]:
    """Return those of a service's processes that have to map the library.

    Where a restart spares all but the main process, as with cron and sshd, the others are commands and logins of
    somebody: they may be older than the restart, and have an environment of their own.
    """
    main_pid = int(properties.get("MainPID") or 0)
    if main_pid in found and properties.get("KillMode") in ("process", "none"):
        return {main_pid: found[main_pid]}
    return found


class Look(t.NamedTuple):
    """One observation: the missing condition (empty: it is good), the main process, and a reason to tell instead."""

    lacks: str
    main: t.Any
    told: str = ""


def restart(run: Run, service: Service, timeout: int) -> str:
    """Restart a service; return why that failed, or nothing."""
    command = [*managers.command(service.uid, timeout), "restart", "--", service.name]
    status, output = run(command, None, None)
    if status in managers.TIMED_OUT:
        return f"it did not start within {timeout} s"
    if status:
        return f"it did not start: {output.strip().splitlines()[0] if output.strip() else status}"
    return ""


def prove(
    run: Run, services: t.Sequence[Service], prefix: str, timeout: float, proc: str = "/proc"
) -> t.Dict[Service, str]:
    """Verify services; return those that were not verified in time, each with the reason."""

    def look(services: t.Sequence[Service]) -> t.Dict[Service, Look]:
        shown, pids = _shown(run, services), _pids(services, proc)
        return {service: _look(service, shown[service], pids[service], prefix, proc) for service in services}

    return unsettled(look, services, timeout)


def unsettled(
    look: t.Callable[[t.Sequence[_T]], t.Mapping[_T, Look]], wanted: t.Iterable[_T], timeout: float
) -> t.Dict[_T, str]:
    """Look until two looks in a row verify each; return those that were not verified in time, each with the reason.

    look observes all that it is given at once, however long that takes. So the clock alone fails nobody: it takes a bad
    observation that was begun when the time was over, and is not the first one.
    """
    deadline = time.monotonic() + timeout
    seen: t.Dict[_T, Look] = {}
    verdicts: t.Dict[_T, t.Optional[str]] = dict.fromkeys(wanted)
    while True:
        left = [each for each, verdict in verdicts.items() if verdict is None]
        if not left:
            return {each: verdict for each, verdict in verdicts.items() if verdict}
        if seen:
            time.sleep(INTERVAL)
        over = time.monotonic() >= deadline
        found = look(left)
        verdicts.update({each: _verdict(seen.get(each), found[each], over) for each in left})
        seen.update(found)


def _verdict(seen: t.Optional[Look], found: Look, over: bool) -> t.Optional[str]:
    """Return the reason why two observations in a row fail, empty when they verify, None when there has to be another.

    over: whether the time was over when the second one was begun.
    """
    if not found.lacks and (seen is None or seen.lacks):
        return None
    if seen is not None and not found.lacks and seen.main == found.main:
        return ""
    if seen is None or not over:
        return None
    return found.told or found.lacks or "it does not stay up, its main process changes"


def _look(service: Service, properties: t.Mapping[str, str], pids: t.Sequence[int], prefix: str, proc: str) -> Look:
    """Return one observation of a service, from its properties and its processes."""
    again = properties.get("NRestarts") or "0"
    told = f"it does not stay up, systemd started it {again} times again" if again != "0" else ""
    return Look(_lacks(service, properties, pids, prefix, proc), properties.get("MainPID", ""), told)


def _lacks(service: Service, properties: t.Mapping[str, str], pids: t.Sequence[int], prefix: str, proc: str) -> str:
    """Return the condition for being verified that a service does not meet, empty when it meets all."""
    state = properties.get("ActiveState", "")
    if state != "active":
        return f"it is {state or 'not known to systemd'}"
    found = _counted(processes.installations_of(pids, prefix, proc), properties)
    lacking = processes.unproved(found, service.version)
    if not found:
        return "it has no process"
    what = f"does not map jemalloc {service.version}" if service.version else "still maps jemalloc"
    return f"its process {lacking[0]} {what}" if lacking else ""


def go_back(
    run: Run, failed: Service, prefix: str, release: t.Optional[str], timeout: int, gone: t.Collection[str] = ()
) -> str:
    """Give a service back what it ran with; return how it went.

    That is the drop-in from before this run, or the one of now with the release from before, or none of ours. gone has
    the drop-ins that went already, with another instance of the same template.
    """
    from ansible_collections.preload.jemalloc.plugins.module_utils import _undo as undo

    path = failed.drop_in
    try:
        if failed.version is None or (files.read_text(path) is None and path not in gone):
            why = undo.superseded(failed, prefix)
            if not why:
                return "there is nothing of ours to take back"
        else:
            why, release = undo.roll_back(failed, prefix, release, gone)
    except JemallocError as error:
        return f"it was not rolled back: {str(error).rstrip('.')}"
    if why:
        return f"{why}: {undo.follow(lambda: restart(run, failed, timeout), failed)}"
    run([*managers.command(failed.uid), "daemon-reload"], None, None)
    end_start(run, failed)
    run([*managers.command(failed.uid), "reset-failed", "--", failed.name], None, None)
    again, text = Service(failed.name, release, failed.uid), files.read_text(path)
    why = restart(run, failed, timeout) or prove(run, [again], prefix, timeout).get(again, "")
    if files.read_text(path) != text:
        why = f"{path} was changed in the meantime by another run, or by hand"
        return f"{why}: {undo.follow(lambda: restart(run, failed, timeout), failed)}"
    what = f"with jemalloc {release} as before" if release else "without the library as before"
    if not why:
        return f"it runs again {what}"
    if failed.shown(run).get("ActiveState") == "active":  # a restart that was refused stops nothing
        return f"it is active, but not verified {what} ({why})"
    return f"it does not run {what} either ({why})"


def end_start(run: Run, service: Service) -> None:
    """End a start that hangs: what waits for a lock in its allocator does not heed a signal to end either.

    It never served anybody. One that is up, or that still ends from before, gets the time that its unit grants.
    """
    if service.shown(run).get("ActiveState") != "activating":
        return
    status, _output = run([*managers.command(service.uid, GRACE), "stop", "--", service.name], None, None)
    if status:
        run([*managers.command(service.uid), "kill", "--signal=SIGKILL", "--", service.name], None, None)


def journal(run: Run, service: Service, count: int = 3) -> str:
    """Return the last lines that a service wrote, or that systemd wrote about it, as part of a sentence."""
    # What a process wrote just before it ended may not have been read by journald yet, on a busy host.
    run(["timeout", str(GRACE), "journalctl", "--sync"], None, None)
    user = "" if service.uid is None else "USER_"
    unit = f"--unit={service.name}" if service.uid is None else f"--user-unit={service.name}"
    for what in (f"_SYSTEMD_{user}UNIT={service.name}", unit):
        command = ["journalctl", "--no-pager", "--quiet", "--output=cat", f"--lines={count}", what]
        status, output = run(command, None, None)
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        if status == 0 and lines:
            return " / ".join(lines)
    return ""


def restart_and_prove(
    run: Run, services: t.Sequence[Service], prefix: str, timeout: int
) -> t.Tuple[t.List[str], t.List[Failure]]:
    """Restart services and wait for the proof; take those back for which it does not come. Return proved and failed.

    One that does not start goes back at once: the others may take their time. The instances of its template that
    have not been restarted yet go on as they run.
    """
    releases = releases_before(services, prefix)
    failures: t.Dict[Service, Failure] = {}

    def gone() -> t.List[str]:
        return [failed.drop_in for failed in failures]

    def take_back(service: Service, reason: str) -> None:
        last_words = journal(run, service)
        back = go_back(run, service, prefix, releases[service], timeout, gone())
        failures[service] = Failure(service, reason, last_words, back)

    for service in services:
        if service.drop_in in gone():
            failures[service] = Failure(service, f"another instance of {service.unit} failed", back="it runs as before")
            continue
        reason = restart(run, service, timeout)
        if reason:
            take_back(service, reason)
    started = [service for service in services if service not in failures]
    for service, reason in prove(run, started, prefix, timeout).items():
        take_back(service, reason)
    return [str(service) for service in services if service not in failures], list(failures.values())


def prove_health(
    run: Run,
    services: t.Sequence[Service],
    prefix: str,
    timeout: int,
    limit: t.Optional[int] = None,
    proc: str = "/proc",
) -> t.Dict[Service, str]:
    """Return the services that are not up with what they should map, or take more memory than a limit in bytes."""
    reasons = prove(run, services, prefix, timeout, proc)
    if limit is None:
        return reasons
    for service, pids in _pids([each for each in services if each not in reasons], proc).items():
        used = processes.memory(pids, proc)
        if used > limit:
            reasons[service] = f"its processes take {used >> 20} MiB, more than {limit >> 20}"
    return reasons
