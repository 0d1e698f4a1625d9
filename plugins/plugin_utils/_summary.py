# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one line that the role ends with for each host: its release, what was restarted and verified, what is pending."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import typing as t

#: The variable of the role that has the result of a module.
_REGISTERED = {
    "jemalloc": "__jemalloc_installed",
    "jemalloc_preload": "__jemalloc_preloaded",
    "jemalloc_container": "__jemalloc_contained",
    "jemalloc_service": "__jemalloc_restarted",
    "jemalloc removed": "__jemalloc_removed",
}

#: So many names stand in a line.
MOST_NAMES = 10

Result = t.Mapping[str, t.Any]


class Results(t.NamedTuple):
    """The results of the role's modules for a host, empty for those that did not run."""

    installed: Result
    preloaded: Result
    contained: Result
    restarted: Result
    removed: Result

    @property
    def given(self) -> Result:
        """The variables of the role, converted."""
        variables: Result = self.installed.get("variables") or {}
        return variables


def results(variables: t.Mapping[str, t.Any], module: str, result: Result) -> Results:
    """Return the results of the role, from what it registered and from the module that has just run."""
    found = {name: variables.get(variable) or {} for name, variable in _REGISTERED.items()}
    if module in found:
        found[module] = result
    if found["jemalloc"].get("scopes"):  # up to date, so that jemalloc_preload did not run
        found["jemalloc_preload"] = {}
    return Results(*(found[name] for name in _REGISTERED))


def last_module(found: Results) -> str:
    """Return the module whose task comes last in the role for a host."""
    given, next_tasks = found.given, found.installed.get("next")
    if not next_tasks:
        return "jemalloc" if next_tasks == "" else ""
    if given["state"] == "absent":
        return "jemalloc_metrics"
    if given["restart"] and found.preloaded.get("restarts"):
        return "jemalloc_service"
    if "metrics" in given:
        return "jemalloc_metrics"
    return "jemalloc_container" if "containers" in given else "jemalloc_preload"


def line(found: Results, check: bool) -> str:
    """Return the line."""
    services = [_service(each) for each in found.preloaded.get("restarts") or ()]
    outdated = [each["name"] for each in found.contained.get("containers") or () if each["reason"]]
    verified = found.restarted.get("processes") or {}
    done, pending = [], [*services, *outdated]
    if found.given["restart"]:
        counts = {name: verified[name] for name in services if name in verified}
        pending = [] if check else [name for name in services if name not in counts]
        names = [*services, *outdated] if check else [*_counted(counts), *found.contained.get("proved", ())]
        done = [f"{'would restart' if check else 'restarted and verified'} {_listed(names)}"] if names else []
        along = _along(found.preloaded.get("restarts") or ())
        done += [f"systemd {'would restart' if check else 'restarted'} with it {_listed(along)}"] if along else []
    return "; ".join([_release(found, check), *done, f"pending: {_listed(pending) if pending else 'none'}"])


def _release(found: Results, check: bool) -> str:
    """Return the release of the host, or what stays of it."""
    if found.given["state"] == "absent":
        stays = f"; what stays: {_listed(found.removed['stays'])}" if found.removed.get("stays") else ""
        return f"{'would remove jemalloc' if check else 'jemalloc removed'}{stays}"
    return f"jemalloc {found.installed.get('version')}"


def _service(restart: Result) -> str:
    """Return a service as jemalloc_service names it."""
    uid = restart.get("uid")
    return str(restart["name"]) if uid is None else f"{restart['name']} of user {uid}"


def _along(restarts: t.Sequence[Result]) -> t.List[str]:
    """Return the units that systemd restarts along with services, without those that are restarted for themselves."""
    names = {each["name"] for each in restarts}
    return sorted({name for each in restarts for name in each.get("along") or ()} - names)


def _counted(counts: t.Mapping[str, int]) -> t.List[str]:
    """Return services with the number of their processes, whose word the first one has."""
    found = [f"{name} ({count})" for name, count in counts.items()]
    if found:
        found[0] = f"{found[0][:-1]} process{'' if next(iter(counts.values())) == 1 else 'es'})"
    return found


def _listed(names: t.Sequence[str]) -> str:
    """Return names in a line that is not too long."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(name.replace(".service", "", 1) for name in names[:MOST_NAMES]) + more
