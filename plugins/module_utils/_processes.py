"""Which processes run with which installation: the proof, read from /proc."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

#: Stands for a library of ours that is mapped but no longer there: it was replaced or removed.
DELETED = "deleted"


def pids_by_unit(units: t.Collection[str], proc: str = "/proc") -> t.Dict[str, t.List[int]]:
    """Return the processes of each of these units, found as systemd does it: by the name in their control group."""
    found: t.Dict[str, t.List[int]] = {unit: [] for unit in units}
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        try:
            with open(os.path.join(proc, name, "cgroup"), encoding="utf-8", errors="replace") as stream:
                unit = unit_of(stream.read(), units)
        except OSError:  # it ended meanwhile
            continue
        if unit:
            found[unit].append(int(name))
    return found


def unit_of(cgroup: str, units: t.Collection[str]) -> t.Optional[str]:
    """Return which of the units a /proc/PID/cgroup belongs to; the last component counts, as groups can be nested."""
    for line in cgroup.splitlines():
        _number, controllers, path = line.split(":", 2)
        if controllers in ("", "name=systemd"):
            for part in reversed(path.split("/")):
                # cg_escape() of systemd puts a _ in front of a name that could be taken for a control file
                name = part[1:] if part.startswith("_") else part
                if name in units:
                    return name
    return None


def mapped(maps: str, prefix: str) -> t.Set[str]:
    """Return which installations of a store a /proc/PID/maps holds; DELETED for a library that is gone."""
    found = set()
    pattern = re.compile(rf"\s{re.escape(prefix)}/(\S+?)/lib/libjemalloc\.so\S*( \(deleted\))?$", re.MULTILINE)
    for match in pattern.finditer(maps):
        found.add(DELETED if match.group(2) or "/" in match.group(1) else match.group(1))
    return found


def installations_of(pids: t.Iterable[int], prefix: str, proc: str = "/proc") -> t.Dict[int, t.Set[str]]:
    """Return what each process maps of a store; processes that ended, and those without memory, are left out."""
    found = {}
    for pid in pids:
        try:
            with open(os.path.join(proc, str(pid), "maps"), encoding="utf-8", errors="replace") as stream:
                maps = stream.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError as error:
            raise JemallocError(
                f"{error.filename} cannot be read, so nothing can be proved; run this as root (become: true), and in a "
                "container with the capability CAP_SYS_PTRACE."
            ) from error
        if maps:
            found[pid] = mapped(maps, prefix)
    return found


def unproved(found: t.Mapping[int, t.Collection[str]], wanted: t.Optional[str]) -> t.List[int]:
    """Return the processes that do not map just the wanted installation; wanted None: those that map any."""
    expected = {wanted} if wanted else set()
    return sorted(pid for pid, installations in found.items() if set(installations) != expected)
