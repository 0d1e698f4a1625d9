"""Where a process belongs, by its control group: to a unit of systemd, of the host or of a user, or to a container."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import re
import typing as t

_LINE = re.compile(r"^[0-9]+:(?:|name=systemd):(/.*)$", re.MULTILINE)

# The unit that is a user's own systemd.
_USER_MANAGER = re.compile(r"user@([0-9]{1,10})\.service")

# Units that can have processes, systemd.unit(5).
_UNIT = re.compile(r".+\.(?:service|scope|socket|mount|swap)")

# docker-ID.scope, libpod-ID.scope, cri-containerd-ID.scope, crio-ID.scope, or the ID alone without systemd.
_BY_ID = re.compile(r"(?:(.*)[-:])?([0-9a-f]{64})(?:\.scope)?")
_SHORT = 12

# Beside a container its monitor is a process of the host.
_MONITOR = "conmon"

_LXC = re.compile(r"lxc\.payload\.(.+)")
_MACHINE = re.compile(r"machine-(?!qemu)(.+)\.scope|systemd-nspawn@(.+)\.service")
_SUPERVISOR = "supervisor"


class Place(t.NamedTuple):
    """A unit by its name, none for a process that is in none; scope is system, user, container or none.

    container is the short identity, of containers in each other joined by slashes; uid is whose own systemd it is.
    """

    unit: str = ""
    scope: str = "none"
    container: str = ""
    uid: t.Optional[int] = None


def paths(cgroup: str) -> t.List[t.List[str]]:
    """Return the groups that systemd would look at in a /proc/PID/cgroup, each as its components."""
    # cg_escape() of systemd puts a _ in front of a name that could be taken for a control file
    return [[part[1:] if part.startswith("_") else part for part in path.split("/")] for path in _LINE.findall(cgroup)]


def place_of(cgroup: str, own: t.Sequence[str] = ()) -> Place:
    """Return where a /proc/PID/cgroup puts a process; own has the containers that we are in ourselves."""
    found = [_place(parts, own) for parts in paths(cgroup)]
    return next((place for place in found if place.scope != "none"), Place())


def unit_of(cgroup: str) -> t.Tuple[str, t.Optional[int]]:
    """Return the unit of a /proc/PID/cgroup in the host or container that it is in, and whose own systemd runs it."""
    found = (_unit(parts, _containers(parts)) for parts in paths(cgroup))
    return next((each for each in found if each[0]), ("", None))


def containers(cgroup: str) -> t.Tuple[str, ...]:
    """Return the containers that a /proc/PID/cgroup leads through, the outermost first."""
    found = [tuple(name for _index, name in _containers(parts)) for parts in paths(cgroup)]
    return max(found, key=len, default=())


def _place(parts: t.Sequence[str], own: t.Sequence[str]) -> Place:
    inside = _containers(parts)
    names = [name for _index, name in inside]
    if names[: len(own)] == list(own):  # what is beside us in our own container is a process of this host
        names = names[len(own) :]
    unit, uid = _unit(parts, inside)
    if names:
        return Place(unit, "container", "/".join(names), uid)
    if uid is not None:
        return Place(unit, "user", "", uid)
    return Place(unit, "system") if unit else Place()


def _unit(parts: t.Sequence[str], inside: t.Sequence[t.Tuple[int, str]]) -> t.Tuple[str, t.Optional[int]]:
    """Return the unit that a path leads to in its innermost container, and the user whose own systemd runs it.

    As in systemd's cg_path_get_unit() and cg_path_get_user_unit() the first unit counts, in the part that belongs to a
    user's systemd the first one there. Only root, or that user, can make groups in front of it. What follows it a
    service with Delegate= names as it likes.
    """
    units = filter(_UNIT.fullmatch, parts[inside[-1][0] + 1 :] if inside else parts)
    first = next(units, "")
    manager = _USER_MANAGER.fullmatch(first)
    unit = next(units, "") if manager else ""
    return (unit, int(manager.group(1))) if manager and unit else (first, None)


def _containers(parts: t.Sequence[str]) -> t.List[t.Tuple[int, str]]:
    """Return the components that are containers, by their place, each with a short name."""
    found = []
    for index, part in enumerate(parts):
        by_id, lxc, machine = _BY_ID.fullmatch(part), _LXC.fullmatch(part), _MACHINE.fullmatch(part)
        if by_id and _MONITOR not in (by_id.group(1) or ""):
            found.append((index, by_id.group(2)[:_SHORT]))
        elif lxc or (part and index and parts[index - 1] == "lxc"):
            found.append((index, lxc.group(1) if lxc else part))
        elif machine and _SUPERVISOR not in parts[index + 1 : index + 2]:
            found.append((index, machine.group(1) or machine.group(2)))
    return found
