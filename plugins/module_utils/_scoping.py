"""Who preloads: from the arguments of the module jemalloc_preload to what it changes and returns."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import functools
import os
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _managers as managers
from ansible_collections.preload.jemalloc.plugins.module_utils import _pending as pending
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _preload as preload
from ansible_collections.preload.jemalloc.plugins.module_utils import _relations as relations
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _strays as strays_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run
    from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host

#: The arguments of the module jemalloc_preload, as _arguments.SCOPES lists them.
Params = t.Mapping[str, t.Any]


def run(params: Params, host: Host, check: bool) -> t.Dict[str, t.Any]:
    """Plan the scopes, and apply them as the only run that does so."""
    if check:
        return with_along(planned(params, host, check)[0], host)
    with changes_util.locked(recovers=True) as lock:
        preload.clear_leftovers()
        if lock.killed:  # perhaps before systemd knew of what it had changed
            from ansible_collections.preload.jemalloc.plugins.module_utils import _activate as activate

            activate.reload_systemd(host, None)
        result, changes, scopes, listed = planned(params, host, check)
        if changes:
            from ansible_collections.preload.jemalloc.plugins.module_utils import _activate as activate

            prefix = store.check_prefix(params["prefix"])
            activate.run_libraries(host, scopes, prefix)
            activate.probe(host, scopes, changes, prefix)
            activate.carry_out(host, changes, prefix, lock)
            # Once more: another run may have restarted a service in the meantime, by the files from before.
            result.update(running(host, listed, prefix, changes))
    return with_along(result, host)


def with_along(result: t.Dict[str, t.Any], host: Host) -> t.Dict[str, t.Any]:
    """Return a result whose restarts name what systemd restarts along with each service."""
    run = managers.asking_once(host.run, host.warn)
    along = relations.along(run, [(each["name"], each["uid"]) for each in result["restarts"]])
    for each in result["restarts"]:
        each["along"] = along[each["name"], each["uid"]]
    return result


def settled(params: Params, host: Host) -> t.Optional[t.Dict[str, t.Any]]:
    """Return the result of a run, where that would neither change nor restart anything; else, and after an error, none.

    It reads only. An error is for the run itself to tell.
    """
    if changes_util.is_taken() or preload.leftovers():
        return None
    try:
        result, changes, _scopes, _listed = planned(params, host, False)
    except (JemallocError, OSError):
        return None
    return None if changes or result["restarts"] else result


def planned(
    params: Params, host: Host, check: bool
) -> t.Tuple[t.Dict[str, t.Any], t.Sequence[changes_util.Change], preload.Scopes, t.Sequence[pending.Listed]]:
    """Return the result, which check mode and the real run share, and what it takes to come there."""
    prefix = store.check_prefix(params["prefix"])
    places.check_one_store(prefix)
    foreign: t.List[str] = []
    left: t.List[str] = []
    scopes = preload.Scopes()
    if params["state"] == "restored":
        current = params["version"] or store.read(prefix, verify=False).current or ""
        changes, left = preload.plan_restored(params["restore"], params["written"])
        listed = pending.by_files(changes, prefix, current)
    else:
        present = params["state"] == "present"
        scopes = wanted_scopes(params, host, prefix, check) if present else scopes
        changes, foreign = preload.plan(scopes, rendered(params["texts"]) if present else None, prefix)
        judge(host, scopes, changes, prefix)
        listed = pending.by_files(changes, prefix, scopes.current, host_wide=bool(scopes.host))
    strays, remaining = unasked(params, host, listed, prefix, changes)
    listed += strays
    result = {
        **of_changes(changes),
        "left": left,
        "foreign": foreign,
        "remaining": [each._asdict() for each in remaining],
        **named(params, scopes, changes),
        # Read before anything changes: what cannot be read here is found out while the host is as it was.
        **running(host, listed, prefix, changes, params["rebuilt"] if check else None),
    }
    if foreign:
        host.warn(f"{', '.join(foreign)} was not made by this collection and is left as it is.")
    if left:
        host.warn(f"{', '.join(left)}: {changes_util.CHANGED}; left as it is.")
    return result, changes, scopes, listed


def of_changes(changes: t.Sequence[changes_util.Change]) -> t.Dict[str, t.Any]:
    """Return what the result says of changes: of shared files only the managed part."""
    if not changes:
        return {"changed": False, "diff": [], "files": [], "before": {}}
    from ansible_collections.preload.jemalloc.plugins.module_utils import _undo as undo

    before = {change.path: undo.managed(change.path, change.before) for change in changes}
    return {"changed": True, "diff": undo.diff(changes), "files": list(before), "before": before}


def judge(host: Host, scopes: preload.Scopes, changes: t.Sequence[changes_util.Change], prefix: str) -> None:
    """Refuse services that cannot preload, of those whose drop-in changes."""
    paths = {change.path for change in changes}
    changing = [unit for unit in scopes.units if places.drop_in_path(unit.name, unit.user) in paths]
    if changing:
        from ansible_collections.preload.jemalloc.plugins.module_utils import _activate as activate

        activate.judge(host, changing, prefix)


def unasked(
    params: Params,
    host: Host,
    listed: t.Sequence[pending.Listed],
    prefix: str,
    changes: t.Sequence[changes_util.Change],
) -> t.Tuple[t.List[pending.Listed], t.List[strays_util.Stray]]:
    """Return the services to restart because they run with the library unasked, and what is left to the operator.

    The latter only where everything goes: whatever starts a program afterwards looks for the library in vain.
    """
    run = managers.asking_once(host.run, host.warn)
    known = {(each.unit, each.user) for each in listed}
    found = strays_util.find(run, known, prefix, changes, everything=params["state"] == "absent")
    services = {pending.Listed(each.unit, each.uid is not None, None) for each in found if not each.why}
    remaining = [each for each in found if each.why]
    if remaining:
        host.warn(
            f"Not restarted, and still with jemalloc: {', '.join(map(str, remaining))}. When the library is gone, "
            "programs that they start print ERROR: ld.so. Restart or end them, or reboot."
        )
    return sorted(services), remaining


def named(params: Params, scopes: preload.Scopes, changes: t.Sequence[changes_util.Change]) -> t.Dict[str, t.List[str]]:
    """Return the services that lists name, and those that lose their drop-in because no list names them any more."""
    gone = [change.path for change in changes if change.after is None and change.path.endswith(changes_util.DROP_IN)]
    units = [places.unit_of_drop_in(path) for path in gone if params["state"] == "present"]
    return {
        "named": [unit.name for unit in (*scopes.units, *scopes.excluded)],
        "removed": [unit for unit in units if unit.endswith(".service")],
    }


def running(
    host: Host,
    listed: t.Sequence[pending.Listed],
    prefix: str,
    changes: t.Sequence[changes_util.Change],
    rebuilt: t.Optional[str] = None,
) -> t.Dict[str, t.Any]:
    """Return the services that run, those that have to be restarted, and what this run leaves in the files for them."""
    found = pending.running(managers.asking_once(host.run, host.warn), listed, prefix, changes, rebuilt)
    keys = ("name", "version", "uid", "unit")
    result: t.Dict[str, t.Any] = {"services": [{key: each[key] for key in keys} for each in found]}
    result["restarts"] = [each for each in found if each["reason"]]
    result["written"] = fingerprints(listed, changes) if changes or result["restarts"] else {}
    for each in result["restarts"]:
        each["written"] = result["written"][places.drop_in_path(each["unit"], each["uid"] is not None)]
    return result


def fingerprints(listed: t.Iterable[pending.Listed], changes: t.Iterable[changes_util.Change]) -> t.Dict[str, str]:
    """Return the fingerprints of all files that change and of all drop-ins of listed units, as this run leaves them."""
    from ansible_collections.preload.jemalloc.plugins.module_utils import _undo as undo

    paths = [places.drop_in_path(each.unit, each.user) for each in listed]
    texts = {path: files.read_text(path) for path in paths}
    texts.update({change.path: change.after for change in changes})
    return {path: undo.fingerprint(path, text) for path, text in texts.items()}


def wanted_scopes(params: Params, host: Host, prefix: str, check: bool) -> preload.Scopes:
    """Return the scopes that the parameters describe; what cannot be done is an error here, before anything changes."""
    kept = kept_scopes(params)
    present = preload.present_via() if {"host", "exclude"} & set(kept) else None
    via = present if "host" in kept else wanted_via(params, present)
    services = systemd.wanted_services(params["services"] or [])
    # An earlier task of a play may be what makes a service, and has not made it in check mode.
    missing = functools.partial(warn_of_missing, host) if check else systemd.refuse
    units = systemd.units(host.run, services, missing=missing)
    excluded, commands = kept_out(host, params["exclude"] or [])
    both = {unit.name for unit in units} & {unit.name for unit in excluded}
    if both:
        raise JemallocError(f"exclude: {', '.join(sorted(both))} is in services too; take it off one of the lists.")
    current, releases = installed(params, check, prefix, [each.version for each in services if each.version])
    if "exclude" in kept and via != present:
        excluded += still_excluded(host, [*units, *excluded])
    conf = host_conf(params, via if "host" not in kept else None, current, releases)
    scopes = preload.Scopes(via, units, excluded, commands, current, releases, kept, conf)
    if via == "ld_so_preload":
        check_list(scopes, prefix)
        present_commands = places.present_commands() if "exclude" in kept and via != present else []
        check_commands(host.run, {*commands, *map(os.path.basename, present_commands)})
    elif via and not systemd.is_running():
        host.warn(
            "systemd is not the init of this host: logins, ssh and cron preload the library as far as they use PAM; "
            "whatever else starts processes here, such as the engine of a container, has to do it by jemalloc.sh, by "
            f"LD_PRELOAD={store.library(prefix)} in what it gives them, or /etc/ld.so.preload has to name it."
        )
    return scopes


def warn_of_missing(host: Host, message: str) -> None:
    """Warn of a service that is not there, whatever the list of it is called."""
    host.warn(f"{message.partition(': ')[2]} Without check mode this is an error.")


def kept_scopes(params: Params) -> t.List[str]:
    """Return the scopes that keep what the host has of them: they are not set, or purge is false and they only add."""
    adds = () if params["purge"] else ("services", "exclude", *(() if params["host"] else ("host",)))
    return [name for name in preload.SCOPES if params[name] is None or name in adds]


def wanted_via(params: Params, present: t.Optional[str]) -> t.Optional[str]:
    """Return how the whole host is to preload the library; with purge: false never for fewer processes than now."""
    widest = present == "ld_so_preload" and not params["purge"]
    return present if widest else params["via"] if params["host"] else None


def host_conf(
    params: Params,
    via: t.Optional[str],
    current: str,
    releases: t.Mapping[str, t.Optional[t.Mapping[str, t.Any]]],
) -> str:
    """Return the MALLOC_CONF of the whole host, which preloads via something; empty for none."""
    if not params["malloc_conf"] or not params["host"]:
        return ""
    if via != "environment":
        raise JemallocError(
            "malloc_conf: it needs via: environment; for one service write it in its entry of services."
        )
    from ansible_collections.preload.jemalloc.plugins.module_utils import _malloc_conf as malloc_conf

    return malloc_conf.of_host(params["malloc_conf"], current, releases)


def still_excluded(host: Host, named: t.Sequence[systemd.Unit]) -> t.List[systemd.Unit]:
    """Return the services that the host excludes, without those that are named now: their drop-ins depend on via."""
    names = [places.unit_of_drop_in(path) for path in preload.present("exclude") if not places.is_user_drop_in(path)]
    others = [name for name in names if name not in {unit.name for unit in named}]
    return [unit for name in others for unit in service(host, name)]


def check_list(scopes: preload.Scopes, prefix: str) -> None:
    """Refuse what the list of the dynamic linker cannot do."""
    if platform.libc() != "glibc":
        raise JemallocError("via: only glibc reads /etc/ld.so.preload, which this host does not have; use environment.")
    releases = {unit.name: scopes.release(unit) for unit in scopes.units}
    if "services" in scopes.kept:
        listed = pending.by_files([], prefix, scopes.current)
        releases = {**{each.unit: each.version for each in listed if each.version}, **releases}
    for name, release in releases.items():
        if release != scopes.current:
            raise JemallocError(
                f"services: {name} wants jemalloc {release}, but with via: ld_so_preload every "
                f"process has {scopes.current}; leave out its version, or use via: environment."
            )


def check_commands(run: Run, commands: t.Collection[str]) -> None:
    """Refuse to keep commands out of the list of the dynamic linker where not even root can hide a file from one."""
    if commands and os.geteuid() == 0 and run(["unshare", "--mount", "true"], None, None)[0]:
        raise JemallocError(
            f"exclude: {', '.join(sorted(commands))} would not start any more: with via: ld_so_preload that takes the "
            "capability CAP_SYS_ADMIN, which is not to be had here; take it off the list, or use via: environment."
        )


def kept_out(host: Host, names: t.Sequence[str]) -> t.Tuple[t.List[systemd.Unit], t.Dict[str, str]]:
    """Return the services and the commands (name: program) that are kept out, of those that this host has."""
    units: t.List[systemd.Unit] = []
    commands = {}
    for name in names:
        found = service(host, name)
        if found:
            units += found
            continue
        program = places.find_command(name, os.environ.get("PATH", "")) if "/" not in name else ""
        if not program:
            if not systemd.is_name(name):
                raise JemallocError(
                    f"exclude: {name!r} is the name of no service and no command; take it off the list."
                )
            continue  # one list does for hosts of several kinds
        own = [path for path in places.present_commands() if os.path.basename(path) == name]
        path = places.command_path(name)
        if os.path.lexists(path) and not own:
            raise JemallocError(f"exclude: {path} is there and not ours; call {name} there by no-jemalloc.sh.")
        commands[name] = program
    return units, commands


def service(host: Host, name: str) -> t.List[systemd.Unit]:
    """Return the service of a name; none when there is no such service."""
    if not systemd.is_running():
        return []
    try:
        return systemd.units(host.run, systemd.wanted_services([name]))
    except JemallocError:
        return []


def installed(
    params: Params, check: bool, prefix: str, others: t.Sequence[str]
) -> t.Tuple[str, t.Dict[str, t.Optional[t.Mapping[str, t.Any]]]]:
    """Return the current release, and all that are to be preloaded, each with the options of its build.

    They have to be there, but for check mode before the first run, and fit for the pages of this host.
    """
    found = store.read(prefix)
    if not check and params["version"] and found.current and found.current != params["version"]:
        raise JemallocError(
            f"version: {prefix}/current leads to {found.current}, not to {params['version']}: another run switched it "
            "since. Nothing was changed. Run the play again when the other one ended."
        )
    promised = [each for each in [params["version"], *params["releases"]] if each]
    current = found.current
    if check and params["version"]:
        current = params["version"]
    releases: t.Dict[str, t.Optional[t.Mapping[str, t.Any]]] = {}
    for version in [current or "", *others]:
        if check and version in promised:
            there = found.installations.get(version)
            releases[version] = there.receipt.get("options") if there else None
            continue
        installation = store.usable(found, version, version if version in others else "current")
        releases[version] = installation.receipt.get("options")
    return current or "", releases


def rendered(texts: t.Optional[t.Mapping[str, t.Any]]) -> preload.Texts:
    """Return the rendered templates."""
    if not texts:
        raise JemallocError("texts: nothing was rendered; call this module by its full name, so that its action runs.")
    return preload.Texts(**texts)
