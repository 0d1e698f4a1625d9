# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge hosts by what jemalloc_info returned: their state, their services, and the restarts that are pending."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import typing as t
from collections import Counter
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _drift as drift
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _words as words
from ansible_collections.preload.jemalloc.plugins.plugin_utils._report import File, Host, Row

#: The states of a host, in the order in which a fleet's line counts them.
STATES = (
    CONFIGURED := "as configured",
    OFF := "nothing enabled",
    WARNINGS := "with warnings",
    DRIFT := "with drift",
    UNREADABLE := "unreadable",
    UNREACHABLE := "unreachable",
)

_SERVICES = {"service": "system", "user_service": "user"}

#: How the whole host is enabled, by the kind of the file that does it.
_HOST_WIDE = {
    "host": "whole host, by the environment of services and logins",
    "login": "logins, ssh and cron, by their environment",
    "ld_so_preload": "whole host, every process, by /etc/ld.so.preload",
}


@dataclass(frozen=True)
class Status:
    """A host as it is judged: rows of its services, those that need a restart, and what else is worth a line."""

    host: Host
    state: str
    services: t.Tuple[Row, ...] = ()
    stopped: t.Tuple[str, ...] = ()
    others: t.Tuple[Row, ...] = ()
    pending: t.Tuple[str, ...] = ()
    host_wide: str = ""
    excluded: t.Tuple[str, ...] = ()
    candidates: t.Tuple[Row, ...] = ()

    @property
    def differing(self) -> t.List[Row]:
        """The units that do not run as configured."""
        return [row for row in (*self.services, *self.others) if row.drift]


def judge(host: Host) -> Status:
    """Return what the answer of a host says of it."""
    if host.unread:
        return Status(host, UNREACHABLE if host.unreachable else UNREADABLE)
    enabling = [file for file in host.files if file.kind in _SERVICES and file.preloads]
    host_wide = next((text for kind, text in _HOST_WIDE.items() if _preloads(host, kind)), "")
    rows = sorted(host.rows, key=lambda row: (row.unit.name, row.unit.scope, row.unit.container))
    services, others = [], []
    for row in rows:
        if any(_is_for(file, row) for file in enabling) or (row.configured and not host_wide):
            services.append(row)
        elif row.configured or row.drift:
            others.append(row)
    return Status(
        host,
        _state(host, bool(services or others or enabling or host_wide)),
        tuple(services),
        tuple(sorted({file.unit for file in enabling if not any(_is_for(file, row) for row in rows)})),
        tuple(others),
        tuple(row.unit.name or "processes in no unit" for row in rows if drift.is_pending(row.drift)),
        host_wide,
        tuple(sorted(filter(None, map(_excluded, host.files)))),
        tuple(row for row in rows if row.candidate),
    )


def _state(host: Host, enabled: bool) -> str:
    if any(row.drift for row in host.rows):
        return DRIFT
    if host.notes:
        return WARNINGS
    return CONFIGURED if enabled else OFF


def _preloads(host: Host, kind: str) -> bool:
    return any(file.kind == kind and file.preloads for file in host.files)


def _is_for(file: File, row: Row) -> bool:
    """Whether a file is for the service of a row, or for its template."""
    unit = row.unit
    same = file.unit in (unit.name, systemd.template_of(unit.name))
    return same and not unit.container and _SERVICES[file.kind] == unit.scope


def _excluded(file: File) -> str:
    """Return the service or the command that a file excludes, nothing when it is another file."""
    if file.kind in _SERVICES and not file.preloads:
        return file.unit
    name = os.path.basename(file.path)
    return name if file.kind == "command" and name not in places.WRAPPERS else ""


def fleet(statuses: t.Sequence[Status]) -> str:
    """Return the line for all hosts: how many there are in each state."""
    counts = Counter(status.state for status in statuses)
    found = ", ".join(f"{counts[state]:,} {state}" for state in STATES if counts[state])
    pending = sum(len(status.pending) for status in statuses)
    hosts = words.count(len(statuses), "host")
    return f"{hosts}: {found or 'none'}{'; ' + words.count(pending, 'restart') + ' pending' if pending else ''}"
