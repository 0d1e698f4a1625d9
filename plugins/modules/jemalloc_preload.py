#!/usr/bin/python
# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: jemalloc_preload
short_description: Say who preloads jemalloc on a host
version_added: 0.1.0
description:
  - Makes all scopes of a host what is listed, in one transaction, which are its services and the host as a whole.
    What was listed before and is not any more is taken away.
  - A service gets a systemd drop-in. The host gets a drop-in for systemd's default environment (every service that
    starts afterwards) and a marked part of C(/etc/environment) (every login, ssh and cron command), or with O(via) a
    line in C(/etc/ld.so.preload) (every process that starts afterwards).
  - In any case C(/etc/profile.d/jemalloc.sh) puts C(jemalloc-config) and its like behind what is on the C(PATH) and
    lets E(JEMALLOC_ENABLED) decide at login, and C(/usr/local/bin/jemalloc.sh) and C(no-jemalloc.sh) lead to the
    wrappers, which run one command with the library and without it.
  - The library is looked at and run on the host before anything refers to it, and nothing is restarted here.
    RV(restarts) says which running services need it, for M(preload.jemalloc.jemalloc_service).
  - The texts are rendered on the controller from the templates of the role.
author:
  - The preload.jemalloc contributors (@preload)
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  platform:
    platforms: posix
    support: full
  idempotent:
    description: When run twice in a row without a change outside, the second run changes nothing.
    support: full
options:
  host:
    description: Whether everything on the host that starts from now on preloads the library.
    type: bool
    default: false
  via:
    description:
      - How O(host) is done.
      - With V(environment) by what systemd and PAM give to the processes that they start. A command can be kept out of
        it at any time, by C(no-jemalloc.sh) or an empty C(LD_PRELOAD).
      - With V(ld_so_preload) by the list of the dynamic linker, for literally every process, set-user-ID programs
        too. Before the line is left there, new processes of several kinds are started with it by a process that
        outlives the module, and when one of them fails the file is as before within five seconds.
    type: str
    choices: [environment, ld_so_preload]
    default: environment
  services:
    description:
      - The systemd services that preload the library, for example V(puma). V(.service) may be left out. Timers, sockets
        and paths stand for the services that they start, a template (V(sidekiq@)) for all its instances.
      - An entry is a name, or a mapping with C(name) and what the service wants of its own.
      - C(version) is another installed release than the current one. C(scope) is V(system), or V(user) for a unit of
        every user's own systemd.
      - C(malloc_conf) has options of jemalloc by name, which become the service's E(MALLOC_CONF), and C(preset), a set
        of them, see P(preload.jemalloc.malloc_conf#filter). They are checked against the release and its build, and
        before a service gets others the installed library is run with them, and has to take them without a word.
      - In it C(narenas=auto) is four arenas for each CPU that the service can use by C(CPUQuota=), C(AllowedCPUs=) and
        C(CPUAffinity=), which jemalloc itself does not all heed, and one for a single CPU.
      - C(must_exist) (default V(true)) says whether the unit has to be there already, and C(force) (default V(false))
        whether reasons why it could not preload are passed over.
      - An C(LD_PRELOAD) from its own unit files stays, and the library comes in front of it. One from an
        C(EnvironmentFile=) would win, and is refused.
    type: list
    elements: raw
    default: []
  exclude:
    description:
      - What is kept out of O(host), services and commands.
      - A service gets a drop-in by which it does not preload the library. For a command on the C(PATH) of root a script
        of its name in C(/usr/local/bin) starts it by C(no-jemalloc.sh).
    type: list
    elements: str
    default: []
  state:
    description:
      - With V(absent) every file of this module goes, whatever O(host) and O(services) say.
      - With V(restored) the files of O(restore) hold again what they did, whatever O(host) and O(services) say.
    type: str
    choices: [present, absent, restored]
    default: present
  restore:
    description: What another call of the same play returned as RV(before).
    type: dict
    default: {}
  prefix:
    description: The directory that holds the installations, as given to M(preload.jemalloc.jemalloc).
    type: path
    default: /opt/jemalloc
  version:
    description:
      - The release that C(current) leads to when this runs for real, as M(preload.jemalloc.jemalloc) returned it.
        In check mode it is not there yet, and this says what RV(restarts) is to be measured against.
      - Without it, what C(current) leads to.
    type: str
  releases:
    description:
      - Other releases that are installed when this runs for real. In check mode they may not be there yet.
    type: list
    elements: str
    default: []
  rebuilt:
    description:
      - The release that M(preload.jemalloc.jemalloc) built in this play, as its return value C(built) says.
        In check mode its library is not replaced yet, so this says that processes which map it need a restart.
    type: str
  texts:
    description: The rendered templates. The action plugin of this name fills it; it is not to be set.
    type: dict
    suboptions:
      service:
        description: The drop-in of a service.
        type: str
      manager:
        description: The drop-in of systemd itself.
        type: str
      environment:
        description: The part of C(/etc/environment).
        type: str
      profile:
        description: The script for login shells.
        type: str
seealso:
  - module: preload.jemalloc.jemalloc
  - module: preload.jemalloc.jemalloc_service
  - plugin: preload.jemalloc.malloc_conf
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Let two services preload jemalloc, and nobody else
  preload.jemalloc.jemalloc_preload:
    services: [puma, sidekiq]
  register: preload
  notify: Restart and prove

- name: Let everything that starts from now on preload it, but for two
  preload.jemalloc.jemalloc_preload:
    host: true
    exclude: [php8.2-fpm, chromium]

- name: Give one service another release and settings of its own
  preload.jemalloc.jemalloc_preload:
    services:
      - puma
      - name: sidekiq@.service
        version: 5.2.1
        malloc_conf: {narenas: 2, dirty_decay_ms: 1000, background_thread: true}
      - name: worker
        malloc_conf: {preset: low_memory, narenas: auto}

- name: Take every scope away
  preload.jemalloc.jemalloc_preload:
    state: absent
"""

RETURN = r"""
files:
  description: The files that changed, in check mode those that would.
  returned: always
  type: list
  elements: str
  sample: [/etc/systemd/system/puma.service.d/zz-preload-jemalloc.conf]
before:
  description: The text of each file that changed as it was, none for one that was not there. It is for O(restore).
  returned: success
  type: dict
  sample: {/etc/systemd/system/puma.service.d/zz-preload-jemalloc.conf: null}
restarts:
  description:
    - The running services whose processes do not map what they should, each as M(preload.jemalloc.jemalloc_service)
      takes it.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The service.
      type: str
      sample: puma.service
    version:
      description: The release its processes have to map, none when they have to map no library of the store.
      type: str
      sample: 5.3.1
    uid:
      description: The user, by number, whose own systemd runs it, none for the host's.
      type: int
    unit:
      description: The unit that is listed, the template of an instance or the service itself.
      type: str
      sample: puma.service
    before:
      description: The text of the drop-in that this run changed.
      type: str
    reason:
      description: Why it has to be restarted.
      type: str
      sample: 3 of its 3 processes do not map jemalloc 5.3.1
services:
  description:
    - The services that run and preload the library, or are kept out.
    - Each is as M(preload.jemalloc.jemalloc_service) takes it.
  returned: success
  type: list
  elements: dict
  sample: [{name: puma.service, version: 5.3.1, uid: null, unit: puma.service}]
foreign:
  description: Files with the name of one of ours that somebody else made, and that were left alone.
  returned: success
  type: list
  elements: str
  sample: [/usr/local/bin/jemalloc.sh]
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _preload as preload
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils import _build as build

ARGUMENTS = {
    "host": {"type": "bool", "default": False},
    "via": {"type": "str", "choices": ["environment", "ld_so_preload"], "default": "environment"},
    "services": {"type": "list", "elements": "raw", "default": []},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "state": {"type": "str", "choices": ["present", "absent", "restored"], "default": "present"},
    "restore": {"type": "dict", "default": {}},
    "prefix": {"type": "path", "default": "/opt/jemalloc"},
    "version": {"type": "str"},
    "releases": {"type": "list", "elements": "str", "default": []},
    "rebuilt": {"type": "str"},
    "texts": {
        "type": "dict",
        "options": {
            "service": {"type": "str"},
            "manager": {"type": "str"},
            "environment": {"type": "str"},
            "profile": {"type": "str"},
        },
    },
}


def run(module: AnsibleModule, host: Host) -> t.Dict[str, t.Any]:
    """Plan the scopes, and apply them as the only run that does so."""
    if module.check_mode:
        return planned(module, host)[0]
    with changes_util.locked() as killed:
        preload.clear_leftovers()
        if killed:  # perhaps before systemd knew of what it had changed
            from ansible_collections.preload.jemalloc.plugins.module_utils import _activate as activate

            activate.reload_systemd(host, None)
        result, changes, scopes = planned(module, host)
        if changes:
            from ansible_collections.preload.jemalloc.plugins.module_utils import _activate as activate

            prefix = store.check_prefix(module.params["prefix"])
            activate.run_libraries(host, scopes, prefix)
            activate.probe(host, scopes, changes, prefix)
            activate.carry_out(host, changes, prefix)
    return result


def planned(
    module: AnsibleModule, host: Host
) -> t.Tuple[t.Dict[str, t.Any], t.Sequence[preload.Change], preload.Scopes]:
    """Return the result, which check mode and the real run share, and what it takes to come there."""
    params = module.params
    prefix = store.check_prefix(params["prefix"])
    foreign: t.List[str] = []
    scopes = preload.Scopes()
    if params["state"] == "restored":
        current = params["version"] or store.read(prefix, verify=False).current or ""
        changes = preload.plan_restored(params["restore"])
        listed = restarts.by_files(changes, prefix, current)
    else:
        present = params["state"] == "present"
        scopes = wanted_scopes(module, host, prefix) if present else scopes
        changes, foreign = preload.plan(scopes, rendered(params["texts"]) if present else None, prefix)
        paths = {change.path for change in changes}
        changing = [unit for unit in scopes.units if preload.drop_in_path(unit.name, unit.user) in paths]
        if changing:
            from ansible_collections.preload.jemalloc.plugins.module_utils import _activate as activate

            activate.judge(host, changing, prefix)
        versions: t.Dict[systemd.Unit, t.Optional[str]] = {unit: scopes.release(unit) for unit in scopes.units}
        versions.update(dict.fromkeys(scopes.excluded))
        listed = restarts.wanted(versions, changes, host_wide=bool(scopes.host))
    result = {
        "changed": bool(changes),
        "diff": [
            {"before_header": c.path, "after_header": c.path, "before": c.before or "", "after": c.after or ""}
            for c in changes
        ],
        "files": [change.path for change in changes],
        "before": {change.path: change.before for change in changes},
        "foreign": foreign,
        # Read before anything changes: what cannot be read here is found out while the host is as it was.
        **running(host, listed, prefix, changes, params["rebuilt"] if module.check_mode else None),
    }
    if foreign:
        host.warn(f"{', '.join(foreign)} was not made by this collection and is left as it is.")
    return result, changes, scopes


def running(host: Host, *arguments: t.Any) -> t.Dict[str, t.Any]:
    """Return the services that run, and those of them that have to be restarted."""
    found = restarts.running(host.run, *arguments)
    keys = ("name", "version", "uid", "unit")
    return {
        "services": [{key: each[key] for key in keys} for each in found],
        "restarts": [each for each in found if each["reason"]],
    }


def wanted_scopes(module: AnsibleModule, host: Host, prefix: str) -> preload.Scopes:
    """Return the scopes that the parameters describe; what cannot be done is an error here, before anything changes."""
    params = module.params
    via = params["via"] if params["host"] else None
    services = systemd.wanted_services(params["services"])
    units = systemd.units(host.run, services)
    excluded, commands = kept_out(host, params["exclude"])
    both = {unit.name for unit in units} & {unit.name for unit in excluded}
    if both:
        raise JemallocError(f"exclude: {', '.join(sorted(both))} is in services too; take it off one of the lists.")
    current, releases = installed(module, prefix, [each.version for each in services if each.version])
    scopes = preload.Scopes(via, units, excluded, commands, current, releases)
    if via == "ld_so_preload":
        check_list(scopes)
        check_commands(host.run, commands)
    elif via and not systemd.is_running():
        host.warn(
            "systemd is not the init of this host: logins, ssh and cron preload the library as far as they use PAM; "
            "whatever else starts processes here, such as the engine of a container, has to do it by jemalloc.sh, by "
            f"LD_PRELOAD={store.library(prefix)} in what it gives them, or via: ld_so_preload."
        )
    return scopes


def check_list(scopes: preload.Scopes) -> None:
    """Refuse what the list of the dynamic linker cannot do."""
    if platform.libc() != "glibc":
        raise JemallocError("via: only glibc reads /etc/ld.so.preload, which this host does not have; use environment.")
    for unit in scopes.units:
        if scopes.release(unit) != scopes.current:
            raise JemallocError(
                f"services: {unit.name} wants jemalloc {scopes.release(unit)}, but with via: ld_so_preload every "
                f"process has {scopes.current}; leave out its version, or use via: environment."
            )


def check_commands(run: build.Run, commands: t.Collection[str]) -> None:
    """Refuse to keep commands out of the list of the dynamic linker where not even root can hide a file from one."""
    if commands and os.geteuid() == 0 and run(["unshare", "--mount", "true"], None, None)[0]:
        raise JemallocError(
            f"exclude: {', '.join(sorted(commands))} would not start any more: with via: ld_so_preload that takes the "
            "capability CAP_SYS_ADMIN, which is not to be had here; take it off the list, or use via: environment."
        )


def kept_out(host: Host, names: t.Sequence[str]) -> t.Tuple[t.List[systemd.Unit], t.Dict[str, str]]:
    """Return the services and the commands (name: program) that are kept out."""
    units: t.List[systemd.Unit] = []
    commands = {}
    for name in names:
        found = service(host, name)
        if found:
            units += found
            continue
        program = preload.find_command(name, os.environ.get("PATH", "")) if "/" not in name else ""
        if not program:
            what = "neither a service of this host nor a command on the PATH"
            if not systemd.is_running():
                what = "not a command on the PATH, and services are only kept out where systemd is the init"
            raise JemallocError(f"exclude: {name!r} is {what}; take it off the list.")
        own = [path for path in preload.present_commands() if os.path.basename(path) == name]
        path = preload.command_path(name)
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
    module: AnsibleModule, prefix: str, others: t.Sequence[str]
) -> t.Tuple[str, t.Dict[str, t.Optional[t.Mapping[str, t.Any]]]]:
    """Return the current release, and all that are to be preloaded, each with the options of its build.

    They have to be there, but for check mode before the first run, and fit for the pages of this host.
    """
    found = store.read(prefix)
    promised = [each for each in [module.params["version"], *module.params["releases"]] if each]
    current = found.current
    if module.check_mode and module.params["version"]:
        current = module.params["version"]
    releases: t.Dict[str, t.Optional[t.Mapping[str, t.Any]]] = {}
    for version in [current or "", *others]:
        installation = found.installations.get(version)
        if module.check_mode and version in promised:
            releases[version] = installation.receipt.get("options") if installation else None
            continue
        if installation is None or installation.damage:
            what = version if version in others else "current"
            reason = installation.damage if installation else "no such release is installed there"
            raise JemallocError(
                f"{prefix}/{what} cannot be preloaded: {reason}; run preload.jemalloc.jemalloc with this prefix first."
            )
        page = installation.receipt.get("platform", {}).get("lg_page")
        if page is not None and page < platform.here().lg_page:
            raise JemallocError(
                f"{prefix}/{version} was built for pages of {1 << page} bytes, this host uses "
                f"{1 << platform.here().lg_page}; build it here by method: source."
            )
        releases[version] = installation.receipt.get("options")
    return current or "", releases


def rendered(texts: t.Optional[t.Mapping[str, t.Any]]) -> preload.Texts:
    """Return the rendered templates."""
    if not texts:
        raise JemallocError("texts: nothing was rendered; call this module by its full name, so that its action runs.")
    return preload.Texts(**texts)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = run(module, Host(module))
    except JemallocError as error:
        module.fail_json(msg=str(error), files=[])
    except OSError as error:
        remedy = "run this as root (become: true)" if os.geteuid() else "all files are as before"
        where = error.filename or "this host"
        module.fail_json(msg=f"{where}: {error.strerror}; {remedy}.", files=[])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
