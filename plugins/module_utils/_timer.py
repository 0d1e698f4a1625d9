"""The timer that writes metrics: its files on a host, checked before they are written, and what has to change."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import hashlib
import os
import re
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _collector as collector
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._changes import Change
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run

SERVICE = collector.SERVICE
TIMER = "preload-jemalloc-metrics.timer"

PROGRAM_DIRECTORY = "/usr/local/lib/preload-jemalloc"
PROGRAM = f"{PROGRAM_DIRECTORY}/metrics.pyz"
UNITS = "/etc/systemd/system"

#: What systemctl enable makes of WantedBy=timers.target.
ENABLED = f"{UNITS}/timers.target.wants/{TIMER}"

#: What the package prometheus-node-exporter of Debian and Ubuntu reads, by its README.textfile.
DIRECTORY = "/var/lib/prometheus/node-exporter"

# systemd.time(7), in seconds; those without a unit are seconds too. Months and years are for no timer of this kind.
_UNITS_OF_TIME = {
    **dict.fromkeys(("seconds", "second", "sec", "s", ""), 1),
    **dict.fromkeys(("minutes", "minute", "min", "m"), 60),
    **dict.fromkeys(("hours", "hour", "hr", "h"), 3600),
    **dict.fromkeys(("days", "day", "d"), 86400),
}
_SPAN = re.compile(r"\s*([0-9]{1,7})\s*([a-z]*)")
_SHORTEST, _LONGEST = 10, 86400

#: Seconds that one look at the host may take.
TIMEOUT = 60

_SERVICE_TEXT = """# Managed by the Ansible collection preload.jemalloc; changes made here are lost.
[Unit]
Description=Metrics of jemalloc for the textfile collector of Prometheus
Documentation=https://github.com/preload/ansible-jemalloc/blob/main/docs/metrics.md

[Service]
Type=oneshot
ExecStart={python} -I {program} --prefix {prefix} --directory {directory}
TimeoutStartSec={timeout}
Nice=19
IOSchedulingClass=idle
# It has to see all processes and /run, so there is no ProtectProc=, no ProcSubset= and no PrivateTmp=.
# Maps and libraries of others, their PSS, files that only root reads; and the release of a library that is gone.
CapabilityBoundingSet={capabilities}
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={directory}
ProtectHome=read-only
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectClock=yes
ProtectHostname=yes
PrivateDevices=yes
PrivateNetwork=yes
IPAddressDeny=any
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@resources
SystemCallErrorNumber=EPERM
UMask=0022
"""

_TIMER_TEXT = """# Managed by the Ansible collection preload.jemalloc; changes made here are lost.
[Unit]
Description=Timer of the metrics of jemalloc

[Timer]
OnBootSec=30s
OnUnitActiveSec={interval}
AccuracySec=1s

[Install]
WantedBy=timers.target
"""

# capabilities(7): what reading /proc and files of others takes; in a directory that root does not own also to write.
_READING = ("CAP_SYS_PTRACE", "CAP_CHECKPOINT_RESTORE")
_OF_ROOT, _OF_OTHERS = "CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"


@dataclass(frozen=True)
class State:
    """What systemd says: whether the timer is active, and why it all has to be started again, empty when it has not."""

    active: bool
    reason: str = ""


def check_directory(directory: str) -> str:
    """Return the directory of the textfile collector. Raises JemallocError when nobody can be reading it."""
    directory = directory.rstrip("/")
    if not systemd.is_plain_path(directory) or os.path.normpath(directory) != directory:
        raise JemallocError(
            f"directory: {directory!r} cannot stand in a unit of systemd; name an absolute path of letters, digits and "
            f"._+@- such as {DIRECTORY}."
        )
    if not os.path.isdir(directory):
        raise JemallocError(
            f"directory: {directory} is not there, so no exporter reads it; install prometheus-node-exporter first, or "
            "name what your exporter has as --collector.textfile.directory."
        )
    return directory


def check_interval(interval: str) -> str:
    """Return the interval. Raises JemallocError when it is no time span of systemd, or none that makes sense."""
    parts, position = [], 0
    while position < len(interval):
        match = _SPAN.match(interval, position)
        if not match or match.group(2) not in _UNITS_OF_TIME:
            break
        parts.append(int(match.group(1)) * _UNITS_OF_TIME[match.group(2)])
        position = match.end()
    if position < len(interval) or not _SHORTEST <= sum(parts) <= _LONGEST:
        raise JemallocError(
            f"interval: {interval!r} is no time span from {_SHORTEST} seconds to a day; write it as systemd does, such "
            "as 30s, 5min or 1h 30min."
        )
    return interval


def texts(python: str, prefix: str, directory: str, interval: str) -> t.Dict[str, str]:
    """Return the units, by their paths."""
    owned = os.stat(directory).st_uid == 0
    capabilities = " ".join((*_READING, _OF_ROOT if owned else _OF_OTHERS))
    service = _SERVICE_TEXT.format(
        python=python,
        program=PROGRAM,
        prefix=prefix,
        directory=directory,
        timeout=TIMEOUT,
        capabilities=capabilities,
    )
    return {f"{UNITS}/{SERVICE}": service, f"{UNITS}/{TIMER}": _TIMER_TEXT.format(interval=interval)}


def installed_directory() -> str:
    """Return the directory that the service which is there writes into; nothing when there is none."""
    found = re.search(r"^ReadWritePaths=(/.*)$", files.read_text(f"{UNITS}/{SERVICE}") or "", re.MULTILINE)
    return found.group(1) if found else ""


def plan_present(program: bytes, units: t.Mapping[str, str], directory: str) -> t.List[Change]:
    """Return what has to change for the timer to be there; what others need comes before them.

    Raises JemallocError for a unit that was masked.
    """
    wanted = {PROGRAM: program.decode("utf-8", "surrogateescape"), **units}
    for path in wanted:
        if os.path.islink(path):
            raise JemallocError(
                f"{path} is a link to {os.readlink(path)}, as systemctl mask makes it; remove it, or set state: absent."
            )
    found = [Change(path, files.read_text(path), text) for path, text in wanted.items()]
    found.append(Change(ENABLED, _target(ENABLED), f"{UNITS}/{TIMER}", link=True))
    earlier = installed_directory()
    if earlier and earlier != directory:
        found.append(_without_metrics(earlier))
    return [change for change in found if change.before != change.after]


def plan_absent(directory: str) -> t.List[Change]:
    """Return what has to change for nothing to be left, in the other direction."""
    found = [Change(ENABLED, _target(ENABLED), None, link=True)]
    for path in (f"{UNITS}/{TIMER}", f"{UNITS}/{SERVICE}", PROGRAM):
        link = os.path.islink(path)
        found.append(Change(path, _target(path) if link else files.read_text(path), None, link=link))
    found.append(_without_metrics(installed_directory() or directory))
    return [change for change in found if change.before is not None]


def _target(path: str) -> t.Optional[str]:
    return os.readlink(path) if os.path.islink(path) else None


def _without_metrics(directory: str) -> Change:
    path = os.path.join(directory, collector.FILE)
    return Change(path, files.read_text(path), None, volatile=True)


def shown(change: Change) -> t.Dict[str, str]:
    """Return a change as a diff shows it: of the program and of metrics only that they differ."""

    def text(value: t.Optional[str]) -> str:
        if value is None:
            return ""
        if change.path == PROGRAM:
            digest = hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()
            return f"program, SHA-256 {digest}\n"
        if os.path.basename(change.path) == collector.FILE:
            return "metrics\n"
        return f"link to {value}\n" if change.link else value

    headers = {"before_header": change.path, "after_header": change.path}
    return {**headers, "before": text(change.before), "after": text(change.after)}


def state(run: Run, directory: str) -> State:
    """Return what systemd says of the timer and the service."""
    names = (TIMER, SERVICE)
    status, output = run(
        ["systemctl", "show", "--property=ActiveState,NeedDaemonReload,Result", "--", *names], None, None
    )
    blocks = systemd.parse_show(output)
    if status or len(blocks) != len(names):
        raise JemallocError(f"systemd answers {output.strip()!r} when asked for {TIMER}.")
    timer, service = ({name: found[0] for name, found in block.items()} for block in blocks)
    active = timer.get("ActiveState") == "active"
    if not active:
        return State(active, f"{TIMER} is not active")
    if "yes" in (timer.get("NeedDaemonReload"), service.get("NeedDaemonReload")):
        return State(active, "systemd has not read the units since they were written")
    if service.get("Result") != "success":
        return State(active, f"{SERVICE} failed the last time")
    if not os.path.exists(os.path.join(directory, collector.FILE)):
        return State(active, f"there is no {collector.FILE} in {directory}")
    return State(active)
