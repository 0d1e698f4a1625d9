#!/usr/bin/python
# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: jemalloc_service
short_description: Restart services and prove that they run with jemalloc
version_added: 0.1.0
description:
  - Restarts systemd services and reads C(/proc/PID/maps) of every process in their control groups until all of them map
    the library that is wanted.
  - A service for which that proof does not come in time goes back to what it was, which is the release that it mapped
    before or no drop-in of ours, and is restarted. The module then fails with the reason.
  - systemd restarts other units along with a service, such as those with C(Requires=) or C(PartOf=) it. Where one of
    them, or a socket, path or timer that starts the service, was active before and is not afterwards, it is started
    again. A failure or a warning names it.
  - A service that ends, or that systemd has started again three times, goes back at once. It does not stay down for
    O(timeout).
  - That takes the lock of M(preload.jemalloc.jemalloc_preload), and rolls back only what O(services[].written) says. A
    drop-in that another run changed since is left as it is, the service runs with that, and the module fails.
  - A user's own systemd that does not answer within 5 seconds is left alone with its services, and a warning says so.
author:
  - The preload.jemalloc contributors (@preload)
extends_documentation_fragment:
  - preload.jemalloc._attributes
  - ansible.builtin.action_common_attributes
attributes:
  diff_mode:
    support: none
  idempotent:
    support: partial
    details: Like a restart everywhere O(state=restarted) changes something each time. Give it only what needs it.
options:
  services:
    description: The services to restart, as RV(preload.jemalloc.jemalloc_preload#module:restarts) names them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The service.
        type: str
        required: true
      version:
        description:
          - The release its processes have to map; without it they must not map any of the store.
          - With V(any) they may map what the host as a whole gives them, and the service only has to be up.
        type: str
      uid:
        description: The user, by number, whose own systemd runs the service; without it the host's does.
        type: int
      unit:
        description: The unit that our drop-in belongs to, where the service is an instance of a template.
        type: str
      before:
        description: The text of our drop-in that the service goes back to.
        type: str
      written:
        description:
          - The fingerprint of our drop-in as M(preload.jemalloc.jemalloc_preload) left it.
          - If not set, the drop-in is rolled back whoever wrote it.
        type: str
      reason:
        description: Why it is restarted. Only for the reader.
        type: str
      along:
        description: The units that systemd restarts along with it. Only for the reader; the module asks systemd itself.
        type: list
        elements: str
  state:
    description:
      - V(restarted) restarts the services and proves them.
      - V(proved) leaves them alone and only sees whether they are up, with what they should map.
    type: str
    choices: [restarted, proved]
    default: restarted
  written:
    description:
      - What M(preload.jemalloc.jemalloc_preload) returned as RV(preload.jemalloc.jemalloc_preload#module:written).
      - After all services were verified, these files must still be as that module left them, or this module fails.
    type: dict
    default: {}
  memory_limit:
    description:
      - MiB that the processes of each service may take together (PSS, so that what they share counts once) with
        O(state=proved).
    type: int
  prefix:
    description: The directory that holds the installations, as given to M(preload.jemalloc.jemalloc).
    type: path
    default: /opt/jemalloc
  timeout:
    description:
      - Seconds that a service may take to start, and again to show the proof.
      - A service that looks good when this time is over gets its second look, however long one look at all takes.
    type: int
    default: 60
seealso:
  - module: preload.jemalloc.jemalloc_preload
"""

EXAMPLES = r"""
- name: Restart what needs it, and prove it
  preload.jemalloc.jemalloc_service:
    services: "{{ preload.restarts }}"
    written: "{{ preload.written }}"

- name: See that all services are up with the library, and do not take more than 2 GiB each
  preload.jemalloc.jemalloc_service:
    services: "{{ preload.services }}"
    state: proved
    memory_limit: 2048

- name: Restart one that starts slowly, with a library from another prefix
  preload.jemalloc.jemalloc_service:
    services:
      - {name: search, version: 5.3.1}
    prefix: /srv/jemalloc
    timeout: 300
"""

RETURN = r"""
proved:
  description: The services whose processes were all seen to map what they should.
  returned: always
  type: list
  elements: str
  sample: [puma.service]
processes:
  description: The number of processes of each verified service that run with what they should.
  returned: success
  type: dict
  sample: {puma.service: 3}
"""

import functools
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _managers as managers
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils import _undo as undo
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, of_system
from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run

ARGUMENTS = {
    "services": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "version": {"type": "str"},
            "uid": {"type": "int"},
            "unit": {"type": "str"},
            "before": {"type": "str"},
            "written": {"type": "str"},
            "reason": {"type": "str"},
            "along": {"type": "list", "elements": "str"},
        },
    },
    "state": {"type": "str", "choices": ["restarted", "proved"], "default": "restarted"},
    "written": {"type": "dict", "default": {}},
    "memory_limit": {"type": "int"},
    "prefix": {"type": "path", "default": "/opt/jemalloc"},
    "timeout": {"type": "int", "default": 60},
}


def carry_out(module: AnsibleModule, host: Host) -> t.Tuple[t.List[str], t.List[restarts.Failure]]:
    """Restart and prove; return the services that are proved and those that are not.

    Those of a user whose systemd does not answer are left alone.
    """
    params = module.params
    prefix = store.check_prefix(params["prefix"])
    services = [service_of(entry) for entry in params["services"]]
    systemd.units(host.run, [systemd.Wanted(service.name) for service in services if service.uid is None])
    if module.check_mode:
        return [], []
    run = managers.asking_once(host.run, host.warn)
    users = {service.uid for service in services if service.uid is not None}
    silent = {uid for uid in users if not managers.answers(run, uid)}
    services = [service for service in services if service.uid not in silent]
    if params["state"] == "restarted":
        return restarted(run, services, prefix, params["timeout"], host.warn)
    limit = None if params["memory_limit"] is None else params["memory_limit"] << 20
    reasons = restarts.prove_health(run, services, prefix, params["timeout"], limit)
    failures = [restarts.Failure(service, reason) for service, reason in reasons.items()]
    return [str(service) for service in services if service not in reasons], failures


def restarted(
    run: Run, services: t.Sequence[restarts.Service], prefix: str, timeout: int, warn: t.Callable[[str], None]
) -> t.Tuple[t.List[str], t.List[restarts.Failure]]:
    """Restart and prove the services whose drop-in is as this play left it, also when they run; the others failed."""
    failures = []
    for service in services:
        why = undo.superseded(service, prefix)
        if why:
            failures.append(restarts.Failure(service, why, back="left as it is"))
    others = [failure.service for failure in failures]
    own = [service for service in services if service not in others]
    proved, failed = restarts.restart_and_prove(run, own, prefix, timeout, warn)
    rolled_back = {failure.service.drop_in for failure in failed}
    for service in own:
        # Another run that came between the restart and its proof may have taken the service for one that it need not
        # restart.
        why = undo.superseded(service, prefix) if service.drop_in not in rolled_back else ""
        if why:
            back = undo.follow(functools.partial(restarts.restart, run, service, timeout), service)
            failed.append(restarts.Failure(service, why, back=back))
            proved.remove(str(service))
    return proved, failures + failed


def check_files(module: AnsibleModule) -> str:
    """Return which files of this play another run changed since, empty where all stand."""
    changed = [] if module.check_mode else undo.changed_files(module.params["written"])
    return f"{', '.join(changed)}: {changes_util.CHANGED}; left as it is. Run the play again." if changed else ""


def count(params: t.Mapping[str, t.Any], proved: t.Collection[str]) -> t.Dict[str, int]:
    """Return the number of processes of each verified service that run with what they should."""
    services = [each for each in map(service_of, params["services"]) if str(each) in proved]
    members = {str(each): processes.Member(each.name, each.name, each.uid) for each in services}
    wanted = {members[str(each)]: each.version for each in services}
    counts = processes.count_with(wanted, store.check_prefix(params["prefix"]))
    return {name: counts[member] for name, member in members.items()}


def service_of(entry: t.Mapping[str, t.Any]) -> restarts.Service:
    """Return the service that an entry describes."""
    name = systemd.unit_name(entry["name"])
    version, unit = entry["version"] or None, entry["unit"] or name
    return restarts.Service(name, version, entry["uid"], unit, entry["before"], entry["written"])


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    is_restart = module.params["state"] == "restarted"
    try:
        proved, failures = carry_out(module, Host(module))
        reason = " | ".join(map(str, failures)) or check_files(module)
    except JemallocError as error:
        module.fail_json(msg=str(error), proved=[])
    except PermissionError as error:
        module.fail_json(msg=of_system(error, "this host"), proved=[])
    if reason:
        module.fail_json(msg=reason, changed=is_restart, proved=proved)
    restarts_any = module.params["services"] if module.check_mode else proved
    counts = count(module.params, proved) if is_restart and proved else {}
    module.exit_json(changed=is_restart and bool(restarts_any), proved=proved, processes=counts)


if __name__ == "__main__":
    main()
