"""What jemalloc_info returns: installations, scopes, and the processes of a host by their units."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import os
import re
import time
import typing as t
from collections import Counter

from ansible_collections.preload.jemalloc.plugins.module_utils import _allocators as allocators
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _cgroups as cgroups
from ansible_collections.preload.jemalloc.plugins.module_utils import _drift as drift
from ansible_collections.preload.jemalloc.plugins.module_utils import _observe as observe
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _scopes as scopes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

#: What can be gathered; pss is that of all units, of which the kernel has to look at every page.
GATHERED = ("installations", "scopes", "processes", "pss")

#: Processes of which the PSS is read unless it is asked for, those of the largest units first: while it counts the
#: pages of a process the kernel holds up what that process wants to map.
MOST_PSS = 256

_ADVICE = "run it as root (become: true), and in a container with the capability CAP_SYS_PTRACE"

_SUFFIXES = (".service", ".scope", ".socket", ".mount", ".swap")

Result = t.Dict[str, t.Any]

# Units as they are reported, each with its processes.
Members = t.Sequence[t.Tuple[Result, t.Sequence[observe.Process]]]


def unit_names(names: t.Collection[str]) -> t.FrozenSet[str]:
    """Return the full names of units: puma stands for puma.service."""
    found = frozenset(name if name.endswith(_SUFFIXES) else f"{name}.service" for name in names)
    wrong = next((name for name in names if not systemd.is_name(name)), None)
    if wrong is not None:
        raise JemallocError(f"units: {wrong!r} is not the name of a unit; write it as in systemctl status NAME.")
    return found


def is_wanted(place: cgroups.Place, names: t.Collection[str]) -> bool:
    """Whether a process is in one of these units, or in an instance of one; without names all are."""
    return not names or place.unit in names or systemd.template_of(place.unit) in names


def installations(found: store.Store) -> t.List[Result]:
    """Return the installations of a store, the oldest release first."""
    return [
        {
            "version": version,
            "path": f"{found.prefix}/{version}",
            "current": version == found.current,
            "previous": version == found.previous,
            "receipt": dict(found.installations[version].receipt) or None,
            "damage": found.installations[version].damage,
        }
        for version in sorted(found.installations, key=catalogue.version_number)
    ]


def scope(found: scopes_util.Scope) -> Result:
    """Return a scope as it is reported."""
    whole = found._asdict()
    del whole["changed"]
    return {**whole, "preloads": list(found.preloads)}


def by_place(found: t.Iterable[observe.Process]) -> t.Dict[cgroups.Place, t.List[observe.Process]]:
    """Return processes by where they belong, in each place the oldest first."""
    places: t.Dict[cgroups.Place, t.List[observe.Process]] = {}
    for process in sorted(found, key=lambda process: (process.started, process.pid)):
        places.setdefault(process.place, []).append(process)
    return dict(sorted(places.items(), key=lambda item: (*item[0][:3], item[0].uid or 0)))


def unit(found: t.Sequence[observe.Process], wish: scopes_util.Wish, now: float) -> Result:
    """Return what is reported of the processes of a unit, without their PSS."""
    place, started = found[0].place, min(int(now), int(found[0].started))
    confs = [process.malloc_conf for process in found if process.allocator.kind in allocators.JEMALLOCS]
    return {
        "name": place.unit,
        "scope": place.scope,
        "container": place.container,
        "uid": place.uid,
        "allocators": dict(sorted(Counter(process.allocator.label for process in found).items())),
        "processes": len(found),
        "threads": sum(process.threads for process in found),
        "rss": sum(process.rss for process in found),
        "pss": None,
        "swap": sum(process.swap for process in found),
        "uptime": int(now) - started,
        "started": started,  # the same at each look
        "malloc_conf": next(filter(None, confs), ""),
        "configured": wish.release,
        "drift": drift.drift(found, wish),
        "candidate": drift.candidate(found, wish, now),
    }


def process(found: observe.Process, pss: t.Optional[int], now: float) -> Result:
    """Return what is reported of a process; its name only, as arguments can hold secrets."""
    return {
        "pid": found.pid,
        "unit": found.place.unit,
        "container": found.place.container,
        "command": found.command,
        "allocator": {**found.allocator._asdict(), "secure": found.secure},
        "rss": found.rss,
        "pss": pss,
        "swap": found.swap,
        "threads": found.threads,
        "uptime": max(0, int(now - found.started)),
        "malloc_conf": found.malloc_conf,
    }


def tells(found: observe.Process, wish: scopes_util.Wish) -> bool:
    """Whether what a process was started with says something: settings that count, or why it lacks the library."""
    return bool(wish.release or found.heaps.number or found.allocator.kind in allocators.JEMALLOCS)


def matters(reported: Result) -> bool:
    """Whether one wants to know the PSS of a unit: it runs with our library, is to do so, or looks worth it."""
    ours = any(label.startswith(f"{allocators.OURS} ") and "(" not in label for label in reported["allocators"])
    return bool(ours or reported["configured"] or reported["candidate"])


def pids_for_pss(units: Members, everyone: bool) -> t.List[int]:
    """Return the processes of which the PSS is read: whole units, the largest first, as many as may be."""
    found: t.List[int] = []
    for reported, members in sorted(units, key=lambda pair: -pair[0]["rss"]):
        if everyone or (matters(reported) and len(found) + len(members) <= MOST_PSS):
            found += [each.pid for each in members]
    return found


def read_pss(pids: t.Iterable[int], proc: str) -> t.Dict[int, t.Optional[int]]:
    """Return the PSS of processes, 0 for one that ended meanwhile, None for one that cannot be read."""
    found: t.Dict[int, t.Optional[int]] = {}
    for pid in pids:
        try:
            found[pid] = processes_util.memory_of(pid, proc)
        except OSError:
            found[pid] = None if os.path.exists(os.path.join(proc, str(pid))) else 0
    return found


def unreadable(found: t.Iterable[observe.Process], reader: scopes_util.Reader, proc: str) -> Result:
    """Return what could not be read, and why."""
    count = sum(process.allocator.kind == allocators.UNREADABLE for process in found)
    what = [f"what {count} {'process maps' if count == 1 else 'processes map'}"] if count else []
    what += reader.unreadable
    what += ["the processes of others, which /proc hides"] if os.geteuid() and _hides(proc) else []
    reason = f"This user cannot read {', '.join(what)}; {_ADVICE}." if what else ""
    return {"processes": count, "files": reader.unreadable, "reason": reason}


def _hides(proc: str) -> bool:
    """Whether /proc shows only one's own processes: it is mounted with hidepid=2, which is also called invisible."""
    with contextlib.suppress(OSError):
        return bool(
            re.search(r"^proc /proc proc \S*hidepid=(?:2|invisible|4|ptraceable)", _text(f"{proc}/self/mounts"), re.M)
        )
    return False


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def gather(
    prefix: str,
    gathered: t.Collection[str] = GATHERED,
    names: t.Collection[str] = (),
    listed: bool = False,
    proc: str = "/proc",
    root: str = "/",
) -> Result:
    """Return what is to be gathered, all keys always; names has the units to look at, listed adds each process."""
    reader, now = scopes_util.Reader(), time.time()
    scopes = scopes_util.scopes(reader, prefix, root)
    current = store.read_link(prefix, "current") or ""
    found: t.List[observe.Process] = []
    if "processes" in gathered:
        found = observe.processes(observe.look_at(prefix, proc), lambda place: is_wanted(place, names))
    units: t.List[t.Tuple[Result, t.List[observe.Process]]] = []
    for place, members in by_place(found).items():
        wish = scopes_util.wish_of(place, scopes, prefix, current)
        closer = [observe.with_start(each, proc) if listed or tells(each, wish) else each for each in members]
        units.append((unit(closer, wish, now), closer))
    pss = read_pss(pids_for_pss(units, bool(names) or "pss" in gathered), proc)
    for reported, closer in units:
        parts = [pss.get(each.pid) for each in closer]
        reported["pss"] = None if None in parts else sum(part or 0 for part in parts)
    return {
        "installations": installations(store.read(prefix)) if "installations" in gathered else [],
        "scopes": [scope(each) for each in scopes] if "scopes" in gathered else [],
        "units": [reported for reported, _members in units],
        "processes": _listed(units, pss, now) if listed else [],
        "unreadable": unreadable(found, reader, proc),
        "time": int(now),
        "boot_id": _boot_id(proc),
    }


def _listed(units: Members, pss: t.Mapping[int, t.Optional[int]], now: float) -> t.List[Result]:
    """Return what is reported of each process, by number."""
    found = (process(each, pss.get(each.pid), now) for _reported, members in units for each in members)
    return sorted(found, key=lambda each: each["pid"])


def _boot_id(proc: str) -> str:
    with contextlib.suppress(OSError):
        return _text(f"{proc}/sys/kernel/random/boot_id").strip()
    return ""
