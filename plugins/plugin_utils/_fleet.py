# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who builds for whom in a run: the operator's word or the order of the inventory decides, never a host's claim.

Trust flows down the inventory. A host takes the builds of hosts that stand before it; so the hosts that build are the
first one, and each with an older C library than all before it. A false claim of a host reaches no host before it.
"""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import fcntl
import glob
import json
import os
import re
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.plugin_utils._cache import Need

_PREFIX = "preload-jemalloc-missing-"


@dataclass(frozen=True)
class Trust:
    """A host, its position in the inventory, and the hosts whose builds it takes.

    named: the operator named them. shared: the host is one of several that share what they build.
    """

    host: str
    position: int
    builders: t.FrozenSet[str]
    named: bool
    shared: bool


def trust(host: str, groups: t.Mapping[str, t.Sequence[str]], build_host: str, shared: bool) -> Trust:
    """Return whose builds a host takes: of the named build hosts, else of the hosts before it in the inventory."""
    inventory = groups.get("all", ())
    position = inventory.index(host) if host in inventory else len(inventory)
    shared = shared and (bool(build_host) or host in inventory)
    builders: t.Sequence[str] = inventory[:position] if shared else ()
    if build_host:
        builders = groups.get(build_host, (build_host,))
    return Trust(host, position, frozenset([host, *builders]), bool(build_host), shared)


class Volunteer(t.NamedTuple):
    """A host with a missing build, in the order of the inventory."""

    position: int
    host: str
    age: t.Tuple[int, ...]


def builders(volunteers: t.Iterable[Volunteer]) -> t.List[Volunteer]:
    """Return the hosts that build: each with an older C library than all before it."""
    chosen: t.List[Volunteer] = []
    for each in sorted(volunteers):
        if not chosen or each.age < chosen[-1].age:
            chosen.append(each)
    return chosen


def volunteer(directory: str, need: Need, trusting: Trust) -> None:
    """Record that a host has a missing build, in a directory that all forks of a run share.

    The time for it does not depend on the number of hosts.
    """
    host = Volunteer(trusting.position, trusting.host, need.age)
    with open(_path(directory, need, "hosts"), "a", encoding="utf-8") as stream:
        stream.write(f"{json.dumps(host)}\n")
    _update(directory, need, lambda known: builders([*known, host]))


def withdraw(directory: str, need: Need, host: str) -> None:
    """Record that a host has no build for the others; the builders are chosen anew among the rest."""

    def choose(_known: t.Sequence[Volunteer]) -> t.List[Volunteer]:
        with open(_path(directory, need, "withdrawn"), "a", encoding="utf-8") as stream:
            stream.write(f"{json.dumps(host)}\n")
        withdrawn = set(_lines(directory, need, "withdrawn"))
        return builders(each for each in _volunteers(directory, need) if each.host not in withdrawn)

    _update(directory, need, choose)


def builder(directory: str, need: Need) -> str:
    """Return the host that builds for a need, the first whose C library is old enough; empty when none is known."""
    return _builder_of(_read(_path(directory, need, "builders")), need.age)


def foretell(directory: str, need: Need, host: str) -> None:
    """Record that a build host would make a build, which check mode does not."""
    with open(_path(directory, need, "foretold"), "a", encoding="utf-8") as stream:
        stream.write(f"{json.dumps(Volunteer(0, host, need.age))}\n")


def is_foretold(directory: str, need: Need, trusted: t.Container[str]) -> bool:
    """Whether a trusted build host would have made a build that does."""
    foretold = map(_volunteer, _lines(directory, need, "foretold"))
    return any(each.host in trusted and each.age <= need.age for each in foretold)


def waiting(directory: str, need: Need, host: str) -> str:
    """Return the hosts that a host builds for, the first and the last of many."""
    chosen = _read(_path(directory, need, "builders"))
    served = {each.host for each in _volunteers(directory, need) if _builder_of(chosen, each.age) == host} - {host}
    hosts = sorted(served, key=_numbered)
    return f"{hosts[0]}..{hosts[-1]} ({len(hosts)} hosts)" if len(hosts) > 2 else ", ".join(hosts)


def position(directory: str, need: Need, host: str) -> t.Tuple[int, int]:
    """Return the number of a host's build among those of a run, and how many there are."""
    paths = sorted(glob.glob(os.path.join(glob.escape(directory), f"{_PREFIX}builders-*")))
    builds = [(path, each.host) for path in paths for each in _read(path)]
    own = (_path(directory, need, "builders"), host)
    return (builds.index(own) + 1 if own in builds else 1), max(len(builds), 1)


def _builder_of(chosen: t.Iterable[Volunteer], age: t.Tuple[int, ...]) -> str:
    return next((each.host for each in chosen if each.age <= age), "")


def _numbered(host: str) -> t.List[t.Tuple[int, str]]:
    """Return what sorts web2 before web10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"([0-9]+)", host)]


def _update(directory: str, need: Need, change: t.Callable[[t.List[Volunteer]], t.List[Volunteer]]) -> None:
    """Replace the builders of a need while no other fork does."""
    with open(_path(directory, need, "builders"), "a+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        chosen = change(_parse(stream.read()))
        stream.truncate(0)
        json.dump(chosen, stream)


def _read(path: str) -> t.List[Volunteer]:
    """Return the builders of a need; no fork replaces them in the meantime."""
    try:
        with open(path, encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH)
            return _parse(stream.read())
    except FileNotFoundError:
        return []


def _volunteers(directory: str, need: Need) -> t.List[Volunteer]:
    return [_volunteer(each) for each in _lines(directory, need, "hosts")]


def _lines(directory: str, need: Need, what: str) -> t.List[t.Any]:
    return [json.loads(line) for line in (files.read_text(_path(directory, need, what)) or "").splitlines()]


def _parse(text: str) -> t.List[Volunteer]:
    return [_volunteer(each) for each in json.loads(text or "[]")]


def _volunteer(raw: t.Sequence[t.Any]) -> Volunteer:
    return Volunteer(raw[0], raw[1], tuple(raw[2]))


def _path(directory: str, need: Need, what: str) -> str:
    return os.path.join(directory, f"{_PREFIX}{what}-{need.key}")
