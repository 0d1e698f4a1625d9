"""Restarting services until the proof is there, and the way back when it does not come."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import time
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _managers as managers
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils import _relations as relations
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
_PROPERTIES = (*systemd.DOWN, "MainPID", "KillMode", "NRestarts")

#: After so many starts by systemd itself a service does not come up any more. systemd gives up after five in ten
#: seconds, systemd-system.conf(5), DefaultStartLimitBurst=.
MOST_STARTS = 3


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
    def owned(self) -> relations.Owned:
        """Its name, and the user whose it is."""
        return self.name, self.uid

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


def properties_of(run: Run, services: t.Sequence[Service]) -> t.Dict[Service, t.Dict[str, str]]:
    """Return the properties of services at this moment, by one question to each systemd that runs some of them."""
    by_user: t.Dict[t.Optional[int], t.List[Service]] = {}
    for service in services:
        by_user.setdefault(service.uid, []).append(service)
    found = {}
    for uid, members in by_user.items():
        shown = systemd.shown_all(run, [service.name for service in members], _PROPERTIES, uid)
        found.update({service: shown[service.name] for service in members})
    return found


def counted(found: t.Dict[int, t.Set[str]], properties: t.Mapping[str, str]) -> t.Dict[int, t.Set[str]]:
    """Return those of a service's processes that have to map the library.

    Where a restart spares all but the main process, as with cron and sshd, the others are commands and logins of
    somebody: they may be older than the restart, and have an environment of their own.
    """
    main_pid = int(properties.get("MainPID") or 0)
    if main_pid in found and properties.get("KillMode") in ("process", "none"):
        return {main_pid: found[main_pid]}
    return found


class Look(t.NamedTuple):
    """One observation: the missing condition (empty: it is good), the main process, and a reason to tell instead.

    final: nothing better is to be waited for.
    """

    lacks: str
    main: t.Any
    told: str = ""
    final: bool = False


def restart(run: Run, service: Service, timeout: int) -> str:
    """Restart a service; return why that failed, or nothing."""
    why = managers.refusal(run, "restart", service.name, service.uid, timeout)
    if why is None:
        return f"it did not start within {timeout} s"
    return f"it did not start: {why}" if why else ""


def prove(
    run: Run,
    services: t.Sequence[Service],
    prefix: str,
    timeout: float,
    proc: str = "/proc",
    failed: t.Optional[t.Callable[[Service, str], None]] = None,
) -> t.Dict[Service, str]:
    """Verify services; return those that were not verified in time, each with the reason.

    failed is called with each of them, and its reason, as soon as that is known.
    """
    starts: t.Dict[Service, int] = {}

    def look(services: t.Sequence[Service]) -> t.Dict[Service, Look]:
        shown, pids = properties_of(run, services), _pids(services, proc)
        for service in services:
            starts.setdefault(service, _starts(shown[service]))
        return {each: _look(each, shown[each], pids[each], starts[each], prefix, proc) for each in services}

    return unsettled(look, services, timeout, failed)


def unsettled(
    look: t.Callable[[t.Sequence[_T]], t.Mapping[_T, Look]],
    wanted: t.Iterable[_T],
    timeout: float,
    failed: t.Optional[t.Callable[[_T, str], None]] = None,
) -> t.Dict[_T, str]:
    """Look until two looks in a row verify each; return those that were not verified in time, each with the reason.

    look observes all that it is given at once, however long that takes. So the clock alone fails nobody: it takes a bad
    observation that was begun when the time was over, and is not the first one, or one that is final. failed is called
    for each that fails, at once; the time that it takes is not the others'.
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
        for each in left:
            reason = verdicts[each]
            if failed and reason:
                begun = time.monotonic()
                failed(each, reason)
                deadline += time.monotonic() - begun


def _verdict(seen: t.Optional[Look], found: Look, over: bool) -> t.Optional[str]:
    """Return the reason why two observations in a row fail, empty when they verify, None when there has to be another.

    over: whether the time was over when the second one was begun.
    """
    if found.lacks and found.final:
        return found.told or found.lacks
    if not found.lacks and (seen is None or seen.lacks):
        return None
    if seen is not None and not found.lacks and seen.main == found.main:
        return ""
    if seen is None or not over:
        return None
    return found.told or found.lacks or "it does not stay up, its main process changes"


def _starts(properties: t.Mapping[str, str]) -> int:
    """Return how often systemd started a service again by itself."""
    return int(properties.get("NRestarts") or 0)


def _look(
    service: Service, properties: t.Mapping[str, str], pids: t.Sequence[int], starts: int, prefix: str, proc: str
) -> Look:
    """Return one observation of a service, from its properties and its processes; starts is what it began with."""
    again = _starts(properties)
    told = f"it does not stay up, systemd started it {again} times again" if again else ""
    final = systemd.is_down(properties) or again - starts >= MOST_STARTS
    return Look(_lacks(service, properties, pids, prefix, proc), properties.get("MainPID", ""), told, final)


def _lacks(service: Service, properties: t.Mapping[str, str], pids: t.Sequence[int], prefix: str, proc: str) -> str:
    """Return the condition for being verified that a service does not meet, empty when it meets all."""
    state = properties.get("ActiveState", "")
    if state != "active":
        return f"it is {state or 'not known to systemd'}"
    found = counted(processes.installations_of(pids, prefix, proc), properties)
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
    run: Run, services: t.Sequence[Service], prefix: str, timeout: int, warn: t.Callable[[str], None]
) -> t.Tuple[t.List[str], t.List[Failure]]:
    """Restart services and wait for the proof; take those back for which it does not come. Return proved and failed.

    One that does not start goes back at once: the others may take their time. The instances of its template that
    have not been restarted yet go on as they run. What systemd stops along with a service is started again; warn is
    called with a sentence of that, where the service itself is well.
    """
    releases = releases_before(services, prefix)
    around = relations.around(run, [service.owned for service in services])
    failures: t.Dict[Service, Failure] = {}

    def take_back(service: Service, reason: str) -> None:
        last_words = journal(run, service)
        back = go_back(run, service, prefix, releases[service], timeout, [each.drop_in for each in failures])
        failed = [service.owned, *(each.owned for each in failures)]
        ended = relations.start_again(run, {service.owned: around[service.owned]}, timeout, failed)
        failures[service] = Failure(service, reason, last_words, "; ".join([back, *map(str, ended)]))

    for service in services:
        if service.drop_in in [each.drop_in for each in failures]:
            failures[service] = Failure(service, f"another instance of {service.unit} failed", back="it runs as before")
            continue
        reason = restart(run, service, timeout)
        if reason:
            take_back(service, reason)
    prove(run, _others(services, failures), prefix, timeout, failed=take_back)
    for each in relations.start_again(run, around, timeout, [failed.owned for failed in failures]):
        if each.why:
            service = Service(each.unit, processes.ANY, each.service[1])
            reason = f"systemd stopped it with {each.service[0]}, and it did not start again: {each.why}"
            failures[service] = Failure(service, reason, journal(run, service))
        else:
            warn(f"{each}.")
    if failures:  # going back may have restarted, along with a service, one that was proved before
        prove(run, _others(services, failures), prefix, timeout, failed=take_back)
    return [str(service) for service in _others(services, failures)], list(failures.values())


def _others(services: t.Sequence[Service], failures: t.Collection[Service]) -> t.List[Service]:
    return [service for service in services if service not in failures]


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
