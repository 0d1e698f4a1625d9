#!/usr/bin/python
# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: jemalloc_profile
short_description: Profile the heap of a service
version_added: 0.1.0
description:
  - Switches jemalloc's heap profiling on for one systemd service, lets it run so for a time, and switches it off again.
    What its processes had in use then is rendered on the host, which has the programs, as text, as a graph and as
    collapsed stacks for flame graphs, and kept on the controller.
  - The service is restarted twice, to switch profiling on and off, and proved each time as by
    M(preload.jemalloc.jemalloc_service). Its own files are not touched. A drop-in below C(/run/systemd/system) sets
    E(LD_PRELOAD) and E(MALLOC_CONF), and gives the service a directory for its dumps that nobody else can read, which
    works with C(ProtectSystem=), C(PrivateTmp=), C(User=) and C(DynamicUser=).
  - In any case the drop-in goes and the service is restarted as it was, also when the service fails meanwhile, or when
    this run is interrupted. When it is killed, a process beside it does the same at once. A reboot does it too.
  - It needs a release that was built with the option C(prof) of M(preload.jemalloc.jemalloc), and on the host perl and
    binutils, which find the names of functions.
  - jemalloc cannot be asked for a dump. Each process writes one whenever it has allocated another 2 to the power of
    O(lg_prof_interval) bytes since its start, so that one that allocates less leaves none.
author:
  - The preload.jemalloc contributors (@preload)
extends_documentation_fragment:
  - preload.jemalloc._attributes
  - ansible.builtin.action_common_attributes
attributes:
  check_mode:
    details: All that can be known before is looked at. Which processes leave dumps cannot, so RV(files) is empty.
  diff_mode:
    support: none
    details: The files of the service are afterwards what they were before.
  idempotent:
    support: none
    details: Each run restarts the service and makes another profile.
options:
  unit:
    description:
      - The systemd service, which has to run. C(.service) may be left out. Of a template name an instance, as
        V(sidekiq@1).
    type: str
    required: true
  duration:
    description: For how many seconds the service runs with profiling.
    type: int
    default: 60
  version:
    description:
      - The installed release to profile it with. Without it that which the service is configured to preload.
    type: str
  lg_prof_interval:
    description:
      - A process writes a dump whenever it has allocated 2 to the power of so many bytes more.
        The default is 64 MiB.
    type: int
    default: 26
  lg_prof_sample:
    description:
      - One allocation is recorded for each 2 to the power of so many bytes. The default is 512 KiB, as in jemalloc
        itself. A lower number shows more and slows the service down more.
    type: int
    default: 19
  size_limit:
    description:
      - MiB that its dumps may take on the host. Where they would take more, the older ones go, but for the first of
        each process and its last two. Where that is not enough the profile ends early.
      - Twice as much has to be free on the disk.
    type: int
    default: 256
  timeout:
    description: Seconds that the service may take to start, and again to show the proof, with profiling and without.
    type: int
    default: 60
  directory:
    description:
      - The directory on the controller that gets the files. It is made where it is missing, for its owner alone, as the
        names in a profile say what a service does.
    type: path
    required: true
  prefix:
    description: The directory that holds the installations, as given to M(preload.jemalloc.jemalloc).
    type: path
    default: /opt/jemalloc
seealso:
  - module: preload.jemalloc.jemalloc
  - module: preload.jemalloc.jemalloc_preload
  - module: preload.jemalloc.jemalloc_service
"""

EXAMPLES = r"""
- name: See what puma has in use after two minutes
  preload.jemalloc.jemalloc_profile:
    unit: puma
    duration: 120
    directory: "{{ playbook_dir }}/profile"
  register: profile

- name: Say what allocates most, and where the files are
  ansible.builtin.debug:
    var: profile.summary

- name: Profile a service that preloads nothing by itself
  preload.jemalloc.jemalloc_profile:
    unit: sidekiq@1
    version: 5.3.1
    directory: "{{ playbook_dir }}/profile"
    lg_prof_interval: 28

- name: Profile a service that starts slowly and allocates much, with more detail
  preload.jemalloc.jemalloc_profile:
    unit: search
    directory: "{{ playbook_dir }}/profile"
    lg_prof_interval: 32
    lg_prof_sample: 17
    size_limit: 1024
    timeout: 300
    prefix: /srv/jemalloc
"""

RETURN = r"""
unit:
  description: The service.
  returned: success
  type: str
  sample: puma.service
version:
  description: The release that it was profiled with.
  returned: success
  type: str
  sample: 5.3.1
began:
  description: When that began, in UTC by the clock of the host. In check mode it is now.
  returned: success
  type: str
  sample: 2026-11-26T103000Z
seconds:
  description: For how many seconds it was.
  returned: success
  type: float
  sample: 60.3
early:
  description: Why it was profiled for less than O(duration), empty when it was not.
  returned: success
  type: str
directory:
  description: Where RV(files) are on the controller, C(HOST/UNIT/TIME) below O(directory).
  returned: success
  type: str
  sample: /home/me/profile/web1/puma.service/2026-11-26T103000Z
files:
  description:
    - The paths of the files on the controller. For each process C(PID.txt) has what allocates most, C(PID.growth.txt)
      what it has more of in its last dump than in its first, C(PID.collapsed) the stacks for flame graphs, C(PID.dot)
      the graph and C(PID.svg) its picture. C(PID.heap) is the dump with the names of functions, which C(jeprof) reads
      anywhere.
    - PID is what the process itself takes for its number.
  returned: success
  type: list
  elements: str
  sample: [/home/me/profile/web1/puma.service/2026-11-26T103000Z/4711.txt]
processes:
  description: The processes that left dumps, those first that had the most in use.
  returned: success
  type: list
  elements: dict
  contains:
    pid:
      description: Its number.
      type: int
      sample: 4711
    program:
      description: Its program.
      type: str
      sample: /usr/bin/ruby
top:
  description: The functions whose allocations take most in all processes that were rendered.
  returned: success
  type: list
  elements: dict
  contains:
    function:
      description: Its name.
      type: str
      sample: ruby_xmalloc
    mb:
      description: MB in use of what it allocated by itself.
      type: float
      sample: 19.4
summary:
  description: All of that in a few lines.
  returned: success
  type: list
  elements: str
left_out:
  description: What could not be rendered, and why.
  returned: success
  type: list
  elements: str
cleared:
  description: Services that were still being profiled for a run that was killed, and were restarted without it.
  returned: always
  type: list
  elements: str
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile as profile
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile_dumps as dumps_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile_render as render
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile_session as session
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, of_system
from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host

ARGUMENTS = {
    "unit": {"type": "str", "required": True},
    "duration": {"type": "int", "default": 60},
    "version": {"type": "str"},
    "lg_prof_interval": {"type": "int", "default": 26},
    "lg_prof_sample": {"type": "int", "default": 19},
    "size_limit": {"type": "int", "default": 256},
    "timeout": {"type": "int", "default": 60},
    "directory": {"type": "path", "required": True},
    "prefix": {"type": "path", "default": "/opt/jemalloc"},
}


def run(module: AnsibleModule, host: Host, result: t.Dict[str, t.Any]) -> None:
    """Make a profile, and put into the result what is known of it."""
    params = module.params
    for name in ("duration", "size_limit", "timeout"):
        if params[name] < 1:
            raise JemallocError(f"{name}: {params[name]} is not a whole number from 1 on.")
    prefix = store.check_prefix(params["prefix"])
    wanted = profile.Wanted(
        params["unit"],
        catalogue.check_number(params["version"]) if params["version"] else None,
        params["lg_prof_interval"],
        params["lg_prof_sample"],
        params["size_limit"] << 20,
    )
    if module.check_mode:
        plan = profile.plan(host.run, wanted, prefix)
        result.update(changed=True, **_known(plan, session.Outcome(time.time(), 0.0, "")))
        return
    with session.locked(host.run):
        result["cleared"] = session.clear(host.run)
        result["changed"] = bool(result["cleared"])
        plan = profile.plan(host.run, wanted, prefix)
        try:
            with session.guarded(host.run, plan, params["duration"], params["timeout"]):
                result["changed"] = True
                outcome = session.record(host.run, plan, params["duration"], wanted.limit, params["timeout"])
            result.update(_known(plan, outcome), **_made(host, plan, outcome, wanted))
            if outcome.early:
                host.warn(f"The profile of {plan.service} ended early: {outcome.early}.")
        finally:
            for path in session.remove_dumps(plan.directories):
                host.warn(f"{path} is still written to; the next run removes it.")


def _known(plan: profile.Plan, outcome: session.Outcome) -> t.Dict[str, t.Any]:
    """Return what is known without the dumps."""
    nothing: t.Dict[str, t.Any] = {"contents": {}, "processes": [], "top": [], "left_out": []}
    known = {"unit": plan.service.name, "version": plan.service.version}
    began = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime(outcome.began))
    return {**nothing, **known, "began": began, "seconds": outcome.seconds, "early": outcome.early}


def _made(host: Host, plan: profile.Plan, outcome: session.Outcome, wanted: profile.Wanted) -> t.Dict[str, t.Any]:
    """Return what became of the dumps; without any there is nothing to return."""
    with dumps_util.Directory(plan.real_directory()) as directory:
        found = dumps_util.ranked(directory, wanted.limit)
        if not found:
            reason = outcome.early or (
                f"none of its processes wrote a dump in {outcome.seconds:g} s, which each does after allocating "
                f"{1 << max(wanted.interval, 0)} bytes: give a lower lg_prof_interval, or a longer duration"
            )
            last_words = restarts.journal(host.run, plan.service)
            raise JemallocError(f"unit: {plan.service}: {reason}; it runs again as before{_ends_with(last_words)}.")
        tool = render.Tool(host.outputs, plan.tool, directory)
        rendered = render.render(tool, directory, found, wanted.limit)
    return {
        "contents": rendered.contents,
        "processes": [{"pid": each.pid, "program": render.printable(each.program)} for each in found],
        "top": [{"function": name, "mb": size} for name, size in rendered.top],
        "left_out": rendered.left_out,
    }


def _ends_with(last_words: str) -> str:
    """Return the end of a journal as part of a sentence."""
    return f"; its journal ends with: {last_words}" if last_words else ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    result: t.Dict[str, t.Any] = {"changed": False, "cleared": []}
    try:
        run(module, Host(module), result)
    except JemallocError as error:
        module.fail_json(msg=str(error), **result)
    except OSError as error:
        module.fail_json(msg=of_system(error, "this host", "the service runs as before"), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
