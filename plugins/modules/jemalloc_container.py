#!/usr/bin/python
# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: jemalloc_container
short_description: Let containers that a host runs preload jemalloc
version_added: 0.1.0
description:
  - Makes the containers of a host that preload the library those that are listed. What was listed before and is not any
    more is taken away.
  - A quadlet of podman gets a drop-in, the services of a compose file an override file beside it. By these the store is
    mounted into the container, at the path that it has on the host and read-only, and E(LD_PRELOAD) is set. What the
    container preloads otherwise stays, behind the library.
  - Before anything changes the image of each container is looked at, whether it has the C library that the installed
    library is for, and the image's own programs are run with it.
  - Containers that run and do not map what they should are restarted. When C(/proc/PID/maps) of all their processes
    does not show the library in time, the files are as before, the container is started as it was, and this fails.
author:
  - The preload.jemalloc contributors (@preload)
extends_documentation_fragment:
  - preload.jemalloc._attributes
  - ansible.builtin.action_common_attributes
attributes:
  diff_mode:
    support: full
options:
  containers:
    description:
      - The containers that preload the library. Each entry has either C(quadlet) or C(compose) with C(service).
      - C(quadlet) is the name of a file below C(/etc/containers/systemd) or C(/usr/share/containers/systemd), for
        example V(web) or V(web.container); a template (V(web@)) stands for all its instances. It needs podman 5.0.
      - C(compose) is the path of a compose file with one of the names that compose finds by itself, such as
        C(compose.yaml), and C(service) the name of a service in it, which has a container already, running or not. It
        needs podman-compose or docker compose. An override file that somebody else wrote is left alone, and refused.
      - C(version) is another installed release than the current one.
      - C(malloc_conf) has options of jemalloc by name, which become the container's E(MALLOC_CONF), and C(preset), a
        set of them, see P(preload.jemalloc.malloc_conf#filter).
    type: list
    elements: dict
    default: []
  purge:
    description:
      - Whether containers that O(containers) does not name lose the library. If V(false), they stay as they are.
      - Ignored unless O(state=present).
    type: bool
    default: true
  state:
    description:
      - With V(absent) every file of this module goes, whatever O(containers) says.
      - With V(restored) the files of O(restore) hold again what they did, whatever O(containers) says.
    type: str
    choices: [present, absent, restored]
    default: present
  restore:
    description: What another call of the same play returned as RV(before).
    type: dict
    default: {}
  written:
    description:
      - What that call returned as RV(written).
      - With V(restored) a file that another run or somebody by hand changed since is left as it is, and a warning names
        it. If not set, all files are restored whatever they hold.
    type: dict
    default: {}
  restart:
    description: Whether containers that run are restarted when they do not run with what they should.
    type: bool
    default: true
  timeout:
    description: Seconds that a container may take to start, and again to show the proof.
    type: int
    default: 60
  prefix:
    description: The directory that holds the installations, as given to M(preload.jemalloc.jemalloc).
    type: path
    default: /opt/jemalloc
  version:
    description:
      - The release that C(current) leads to when this runs for real, as M(preload.jemalloc.jemalloc) returned it. It
        counts in check mode, in which that may not be so yet.
      - Without it, what C(current) leads to.
    type: str
  releases:
    description:
      - Other releases that are installed when this runs for real. In check mode they may not be there yet.
    type: list
    elements: str
    default: []
  rebuilt:
    description: The release that M(preload.jemalloc.jemalloc) built in this play, as its return value C(built) says.
    type: str
seealso:
  - module: preload.jemalloc.jemalloc
  - module: preload.jemalloc.jemalloc_image
  - module: preload.jemalloc.jemalloc_preload
"""

EXAMPLES = r"""
- name: Let the container of a quadlet preload jemalloc
  preload.jemalloc.jemalloc_container:
    containers:
      - quadlet: web

- name: Let two services of a compose file preload it, one with settings of its own
  preload.jemalloc.jemalloc_container:
    containers:
      - compose: /srv/app/compose.yaml
        service: web
      - compose: /srv/app/compose.yaml
        service: worker
        malloc_conf: {preset: low_memory}

- name: Only write the files; the containers are restarted by somebody else
  preload.jemalloc.jemalloc_container:
    containers:
      - quadlet: web
    restart: false

- name: Enable another container, leave the others as they are
  preload.jemalloc.jemalloc_container:
    containers:
      - quadlet: api
    purge: false

- name: Let one preload another release than that which an earlier task installed, with a check mode that predicts it
  preload.jemalloc.jemalloc_container:
    containers:
      - {quadlet: web, version: 5.2.1}
      - {quadlet: slow@}
    timeout: 180
    prefix: /srv/jemalloc
    version: "{{ installed.version }}"
    releases: [5.2.1]
    rebuilt: "{{ installed.built or omit }}"
  register: contained

- name: Give back what that changed
  preload.jemalloc.jemalloc_container:
    state: restored
    restore: "{{ contained.before }}"
    written: "{{ contained.written }}"

- name: Let no container preload it any more
  preload.jemalloc.jemalloc_container:
    state: absent
"""

RETURN = r"""
files:
  description: The files that changed, in check mode those that would.
  returned: always
  type: list
  elements: str
  sample: [/etc/containers/systemd/web.container.d/zz-preload-jemalloc.conf]
before:
  description: The text of each file that changed as it was, none for one that was not there. It is for O(restore).
  returned: always
  type: dict
  sample: {/etc/containers/systemd/web.container.d/zz-preload-jemalloc.conf: null}
written:
  description: Fingerprints of the files that changed, as this run left them. It is for O(written).
  returned: success
  type: dict
  sample: {/etc/containers/systemd/web.container.d/zz-preload-jemalloc.conf: absent}
containers:
  description: The containers that run and are listed, or were.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The service of systemd, or the service of the compose file.
      type: str
      sample: web.service
    of:
      description: The quadlet, or the compose file.
      type: str
      sample: web.container
    version:
      description: The release that its processes have to map, none when they have to map no library of the store.
      type: str
      sample: 5.3.1
    reason:
      description: Why it has to be restarted, empty where it is as it should be.
      type: str
      sample: 3 of its 3 processes do not map jemalloc 5.3.1
proved:
  description: The containers that were restarted and whose processes were all seen to map what they should.
  returned: always
  type: list
  elements: str
  sample: [web.service]
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _container as container
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_files as container_files
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_image as container_image
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_jobs as jobs_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_plan as planning
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _undo as undo
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, of_system
from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host, without_diff

ARGUMENTS: t.Dict[str, t.Any] = {
    "containers": {"type": "list", "elements": "dict", "default": []},
    "purge": {"type": "bool", "default": True},
    "state": {"type": "str", "choices": ["present", "absent", "restored"], "default": "present"},
    "restore": {"type": "dict", "default": {}},
    "written": {"type": "dict", "default": {}},
    "restart": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 60},
    "prefix": {"type": "path", "default": "/opt/jemalloc"},
    "version": {"type": "str"},
    "releases": {"type": "list", "elements": "str", "default": []},
    "rebuilt": {"type": "str"},
}


def run(module: AnsibleModule, host: Host) -> t.Tuple[t.Dict[str, t.Any], t.List[str]]:
    """Plan, and carry it out as the only run that changes this host; return the result, and what failed."""
    if module.check_mode:
        result, releases, jobs = planned(module, host)
        try_images(host, jobs, releases, only_look=True)
        return result, []
    with changes_util.locked():
        container_files.clear_leftovers()
        result, releases, jobs = planned(module, host)
        try_images(host, jobs, releases)
        return carried_out(module, result, releases, jobs)


def planned(
    module: AnsibleModule, host: Host
) -> t.Tuple[t.Dict[str, t.Any], container.Releases, t.List[jobs_util.Job]]:
    """Return the result, which check mode and the real run share, and what it takes to come there."""
    params = module.params
    prefix = store.check_prefix(params["prefix"])
    wanted = container.wanted_containers(params["containers"] if params["state"] == "present" else [])
    own = [each.version for each in wanted if each.version]
    promised = [catalogue.check_number(each) for each in [params["version"], *params["releases"]] if each]
    current = params["version"] if module.check_mode else None
    releases = container.releases(prefix, own, promised if module.check_mode else [], current, len(own) < len(wanted))
    restore = to_restore(params, host) if params["state"] == "restored" else None
    rebuilt = params["rebuilt"] if module.check_mode else None
    adds = params["state"] == "present" and not params["purge"]
    jobs = planning.Planner(host, releases, not module.check_mode, rebuilt, restore, adds).jobs(wanted)
    changes = [change for job in jobs for change in job.changes]
    restarted = params["restart"] and any(job.reasons for job in jobs)
    result = {
        "changed": bool(changes) or restarted,
        "diff": undo.diff(changes),
        "files": [change.path for change in changes],
        "before": {change.path: change.before for change in changes if not change.link},
        "written": {c.path: undo.fingerprint(c.path, c.after) for c in changes if not c.link},
        "containers": [
            {"name": unit, "of": job.title, "version": version, "reason": job.reasons.get(unit, "")}
            for job in jobs
            for unit, version in job.versions.items()
        ],
        "proved": [],
    }
    return result, releases, jobs


def to_restore(params: t.Mapping[str, t.Any], host: Host) -> t.Dict[str, t.Optional[str]]:
    """Return what files are to hold again; those that another run changed since are left out, and named."""
    restore = dict(container.check_restore(params["restore"]))
    written = {path: params["written"][path] for path in restore if path in params["written"]}
    left = [path for path in undo.changed_files(written) if files.read_text(path) != restore[path]]
    if left:
        host.warn(f"{', '.join(left)}: {changes_util.CHANGED}; left as it is.")
    return {path: text for path, text in restore.items() if path not in left}


def try_images(
    host: Host, jobs: t.Sequence[jobs_util.Job], releases: container.Releases, only_look: bool = False
) -> None:
    """Try the library in the images of what is going to change or to be restarted, before anything does."""
    for job in jobs:
        for fitting in job.fittings if job.changes or job.reasons else ():
            try:
                shown = container_image.check(fitting, only_look)
            except JemallocError as error:
                held = "" if only_look else jobs_util.hold(job, releases)
                more = f" From now on {job.path} names {held}, which runs there." if held else ""
                raise JemallocError(f"{error}{more}") from error
            if not shown and not only_look:
                host.warn(
                    f"{fitting.image_name} has no program that shows what is mapped: of the library only the loader's "
                    "own look at it is known before the restart."
                )


def carried_out(
    module: AnsibleModule, result: t.Dict[str, t.Any], releases: container.Releases, jobs: t.Sequence[jobs_util.Job]
) -> t.Tuple[t.Dict[str, t.Any], t.List[str]]:
    """Do each job by itself: what fails is taken back, and the others are done."""
    params = module.params
    failures = []
    for job in jobs:
        failure = jobs_util.carry_out(job, releases, params["timeout"], params["restart"])
        if failure:
            failures.append(failure)
        elif params["restart"]:
            result["proved"] += list(job.reasons)
    container_files.tidy()
    return result, failures


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result, failures = run(module, Host(module))
    except JemallocError as error:
        module.fail_json(msg=str(error), files=[], before={}, proved=[])
    except OSError as error:
        said = of_system(error, "this host", "nothing was changed")
        module.fail_json(msg=said, files=[], before={}, proved=[])
    result = without_diff(module, result)
    if failures:
        module.fail_json(msg=f"{' | '.join(failures)}.", **{**result, "changed": True})
    module.exit_json(**result)


if __name__ == "__main__":
    main()
