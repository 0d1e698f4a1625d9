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
from ansible_collections.preload.jemalloc.plugins.module_utils import _preload as preload
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run

#: Seconds between two looks at a service. Two in a row must find the proof, and the same main process: a service
#: that crashes and is started over and over is up at some moments too.
INTERVAL = 0.5


@dataclass(frozen=True)
class Service:
    """A service and the release that all its processes have to map; None: no library of the store."""

    name: str
    version: t.Optional[str]


@dataclass(frozen=True)
class Failure:
    """A service for which the proof did not come: why, what its journal says, and what it went back to."""

    service: Service
    reason: str
    journal: str = ""
    back: str = ""

    def __str__(self) -> str:
        parts = [f"{self.service.name}: {self.reason}", self.back]
        parts += [f"its journal ends with: {self.journal}"] if self.journal else []
        return "; ".join(part for part in parts if part)


def wanted(
    units: t.Sequence[systemd.Unit], version: t.Optional[str], changes: t.Sequence[preload.Change], host_wide: bool
) -> t.List[Service]:
    """Return what has to run with what: the listed services, and those that this run takes from the list."""
    listed = [Service(unit.name, version) for unit in units]
    gone = [change.path for change in changes if change.after is None and change.path.endswith(preload.DROP_IN)]
    units_gone = [preload.unit_of_drop_in(path) for path in gone]
    return listed + [Service(name, version if host_wide else None) for name in units_gone if name.endswith(".service")]


def needed(
    services: t.Sequence[Service], prefix: str, rebuilt: t.Optional[str] = None, proc: str = "/proc"
) -> t.List[t.Dict[str, t.Any]]:
    """Return the services that run and do not map what they should, each with the reason.

    A rebuilt release counts as not mapped by anybody: in check mode its library is not replaced yet.
    """
    pids = processes.pids_by_unit([service.name for service in services], proc)
    result = []
    for service in services:
        found = processes.installations_of(pids[service.name], prefix, proc)
        lacking = processes.unproved(found, service.version)
        if found and service.version is not None and service.version == rebuilt:
            lacking = sorted(found)
        if lacking:
            what = f"do not map jemalloc {service.version}" if service.version else "still map jemalloc"
            reason = f"{len(lacking)} of its {len(found)} processes {what}"
            result.append({"name": service.name, "version": service.version, "reason": reason})
    return result


def before(service: Service, prefix: str, proc: str = "/proc") -> t.Optional[str]:
    """Return the release that the processes of a service map now, which is what it can go back to."""
    pids = processes.pids_by_unit([service.name], proc)[service.name]
    found = set().union(*processes.installations_of(pids, prefix, proc).values())
    version = found.pop() if len(found) == 1 else None
    return version if version and os.path.isdir(f"{prefix}/{version}") and version != service.version else None


def restart(run: Run, service: Service, timeout: int) -> str:
    """Restart a service; return why that failed, or nothing."""
    status, output = run(["timeout", str(timeout), "systemctl", "restart", "--", service.name], None, None)
    if status == 124:
        return f"it did not start within {timeout} s"
    if status:
        return f"it did not start: {output.strip().splitlines()[0] if output.strip() else status}"
    return ""


def prove(
    run: Run, services: t.Sequence[Service], prefix: str, timeout: float, proc: str = "/proc"
) -> t.Dict[Service, str]:
    """Wait until every service is proved; return those that are not when the time is over, each with the reason."""
    deadline = time.monotonic() + timeout
    main_pids: t.Dict[Service, str] = {}
    reasons = dict.fromkeys(services, "it was not looked at")
    while reasons:
        for service in list(reasons):
            reason, main_pid = _look(run, service, prefix, proc)
            if not reason and main_pids.get(service) == main_pid:
                del reasons[service]
                continue
            reasons[service] = reason or "it does not stay up, its main process changes"
            main_pids[service] = "" if reason else main_pid
        if not reasons or time.monotonic() > deadline:
            break
        time.sleep(INTERVAL)
    return reasons


def _look(run: Run, service: Service, prefix: str, proc: str) -> t.Tuple[str, str]:
    """Return why a service is not proved at this moment, and its main process."""
    _status, output = run(["systemctl", "show", "--property=ActiveState,MainPID", "--", service.name], None, None)
    properties = systemd.parse_show(output)[0]
    state, main_pid = properties.get("ActiveState", [""])[0], properties.get("MainPID", [""])[0]
    if state != "active":
        return f"it is {state or 'not known to systemd'}", main_pid
    found = processes.installations_of(processes.pids_by_unit([service.name], proc)[service.name], prefix, proc)
    lacking = processes.unproved(found, service.version)
    if not found:
        return "it has no process", main_pid
    what = f"does not map jemalloc {service.version}" if service.version else "still maps jemalloc"
    return (f"its process {lacking[0]} {what}" if lacking else ""), main_pid


def go_back(run: Run, failed: Service, prefix: str, release: t.Optional[str], timeout: int) -> str:
    """Give a service back what it ran with: another release of the store, or no drop-in of ours; return how it went."""
    path = preload.drop_in_path(failed.name)
    text = files.read_text(path)
    if text is None or failed.version is None:
        return "there is nothing of ours to take back"
    pinned = text.replace(f"{prefix}/current/", f"{prefix}/{release}/") if release else None
    preload.apply([preload.Change(path, text, pinned)])
    run(["systemctl", "daemon-reload"], None, None)
    run(["systemctl", "reset-failed", "--", failed.name], None, None)
    why = restart(run, failed, timeout) or prove(run, [Service(failed.name, release)], prefix, timeout).get(
        Service(failed.name, release), ""
    )
    what = f"with jemalloc {release} as before" if release else "without the library as before"
    return f"it runs again {what}" if not why else f"it does not run {what} either ({why})"


def journal(run: Run, service: Service, count: int = 3) -> str:
    """Return the last lines of a service's journal, as part of a sentence."""
    command = ["journalctl", "--no-pager", "--quiet", "--output=cat", f"--lines={count}", f"--unit={service.name}"]
    status, output = run(command, None, None)
    return " / ".join(line.strip() for line in output.splitlines() if line.strip()) if status == 0 else ""


def restart_and_prove(
    run: Run, services: t.Sequence[Service], prefix: str, timeout: int
) -> t.Tuple[t.List[str], t.List[Failure]]:
    """Restart services and wait for the proof; take those back for which it does not come. Return proved and failed."""
    releases = {service: before(service, prefix) for service in services}
    reasons = {service: restart(run, service, timeout) for service in services}
    started = [service for service in services if not reasons[service]]
    reasons.update(prove(run, started, prefix, timeout))
    failures = []
    for service, reason in reasons.items():
        if reason:
            last_words = journal(run, service)
            failures.append(
                Failure(service, reason, last_words, go_back(run, service, prefix, releases[service], timeout))
            )
    return [service.name for service in services if not reasons[service]], failures
