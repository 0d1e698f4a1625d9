"""Tell which units systemd restarts along with a service, and start those again that a restart left inactive."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import time
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _managers as managers
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run

#: A unit, and the user whose own systemd runs it; None for the host's.
Owned = t.Tuple[str, t.Optional[int]]

#: Seconds between two looks at units whose start has not ended yet.
INTERVAL = 0.5

# Restarting a unit restarts the active ones that these properties of it name: Requires=, Requisite=, BindsTo= and
# PartOf= of systemd.unit(5), seen from the other side.
_ALONG = ("RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf")

# Sockets, paths and timers that start a service; they fail when it does not start.
_STARTERS = "TriggeredBy"

_PROPERTIES = (*systemd.DOWN, _STARTERS, *_ALONG)

_UP = ("active", "reloading")

# The properties of units by their names, and the user whose they are.
_Shown = t.Dict[t.Optional[int], t.Dict[str, t.Dict[str, str]]]


class Ended(t.NamedTuple):
    """A unit that was active before a service was restarted and not afterwards; why it did not start again, if not."""

    unit: str
    service: Owned
    why: str

    def __str__(self) -> str:
        how = f"did not start again: {self.why}" if self.why else "was started again"
        return f"{self.unit}, which systemd stopped with {self.service[0]}, {how}"


def along(run: Run, services: t.Collection[Owned]) -> t.Dict[Owned, t.List[str]]:
    """Return for each service the active units that systemd restarts along with it, over any number of steps."""
    shown = _shown(run, services)
    return {service: _reached(shown, service, (*_UP, "activating")) for service in services}


def around(run: Run, services: t.Collection[Owned]) -> t.Dict[Owned, t.List[str]]:
    """Return for each service the active units that its restart, or its failure, can stop."""
    shown = _shown(run, services)
    found = {}
    for name, uid in services:
        known = shown[uid]
        starters = [each for each in _named(known[name], (_STARTERS,)) if known[each].get("ActiveState") in _UP]
        found[name, uid] = [*_reached(shown, (name, uid), _UP), *starters]
    return found


def start_again(
    run: Run, before: t.Mapping[Owned, t.Sequence[str]], timeout: int, failed: t.Collection[Owned]
) -> t.List[Ended]:
    """Start again what was active around services and is not any more; return it. Those that failed are left alone."""
    deadline = time.monotonic() + timeout
    ended = []
    for user in {uid for _name, uid in before}:
        stops = {name: service for service, names in before.items() if service[1] == user for name in names}
        names = [name for name in stops if (name, user) not in failed]
        states = systemd.shown_all(run, names, systemd.DOWN, user)
        for name in names:
            while not _is_settled(states[name]) and time.monotonic() < deadline:
                time.sleep(INTERVAL)
                states[name] = systemd.shown(run, name, systemd.DOWN, user)
            if systemd.is_down(states[name]):
                ended.append(Ended(name, stops[name], _start(run, (name, user), timeout)))
    return ended


def _is_settled(properties: t.Mapping[str, str]) -> bool:
    """Whether a unit is up, or down with no start pending."""
    return properties.get("ActiveState") in _UP or systemd.is_down(properties)


def _start(run: Run, unit: Owned, timeout: int) -> str:
    """Start a unit; return why that failed, or nothing."""
    name, uid = unit
    run([*managers.command(uid), "reset-failed", "--", name], None, None)
    why = managers.refusal(run, "start", name, uid, timeout)
    return f"that takes more than {timeout} s" if why is None else why


def _shown(run: Run, services: t.Collection[Owned]) -> _Shown:
    """Return the properties of services, and of all that a restart of them can stop: one question for each step."""
    found: _Shown = {}
    for user in {uid for _name, uid in services}:
        known = found[user] = {}
        names = [name for name, uid in services if uid == user]
        while names:
            known.update(systemd.shown_all(run, names, _PROPERTIES, user))
            near = {other for name in names for other in _named(known[name], (_STARTERS, *_ALONG))}
            names = sorted(near - set(known))
    return found


def _named(properties: t.Mapping[str, str], relations: t.Iterable[str]) -> t.List[str]:
    """Return the units to which another one with these properties has one of these relations."""
    return [name for each in relations for name in properties.get(each, "").split()]


def _reached(shown: _Shown, service: Owned, states: t.Collection[str]) -> t.List[str]:
    """Return the units in these states that are reached from a service; what is inactive passes nothing on."""
    known = shown[service[1]]
    found = [service[0]]
    for name in found:
        near = [other for other in _named(known[name], _ALONG) if known[other].get("ActiveState") in states]
        found += [other for other in dict.fromkeys(near) if other not in found]
    return sorted(found[1:])
