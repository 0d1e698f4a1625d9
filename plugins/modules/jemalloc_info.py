#!/usr/bin/python
# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: jemalloc_info
short_description: See which allocator every process of a host really uses
version_added: 0.1.0
description:
  - Returns the installations of jemalloc, all files that preload something, and the processes of the host by their
    units, each with the allocator that it really uses, with what it takes, and with what differs from what is
    configured.
  - What a process uses is read from C(/proc/PID/maps), and from the bytes of its program for an allocator that is built
    in. Settings and environments only say what was meant.
  - Services on the malloc of glibc that look worth jemalloc are returned with the evidence, which is no promise.
  - Works for everybody's own processes without rights, and says what it could not read.
author:
  - The preload.jemalloc contributors (@preload)
extends_documentation_fragment:
  - preload.jemalloc._attributes
  - ansible.builtin.action_common_attributes
attributes:
  diff_mode:
    support: none
options:
  prefix:
    description: The directory that holds the installations, as given to M(preload.jemalloc.jemalloc).
    type: path
    default: /opt/jemalloc
  gather:
    description:
      - What to gather; what is left out is returned empty.
      - V(installations) holds every file of an installation against its receipt.
      - V(pss) reads the PSS of all units, for which the kernel looks at every page that they have. Without it that is
        done for the units in O(units), or else for those that run with our library, are to do so, or are candidates,
        the largest first, up to 256 processes.
    type: list
    elements: str
    choices: [installations, scopes, processes, pss]
    default: [installations, scopes, processes]
  processes:
    description: Whether to return each process too, and not only units.
    type: bool
    default: false
  units:
    description:
      - Units to look at, all when it is not given. V(puma) stands for V(puma.service), and a template such as
        V(sidekiq@.service) for all its instances.
    type: list
    elements: str
seealso:
  - module: preload.jemalloc.jemalloc
  - module: preload.jemalloc.jemalloc_preload
  - module: preload.jemalloc.jemalloc_service
"""

EXAMPLES = r"""
- name: See what runs with what
  preload.jemalloc.jemalloc_info:
  register: info

- name: Fail where something has to be restarted
  ansible.builtin.assert:
    that: info.units | map(attribute="drift") | flatten | length == 0

- name: See the services that look worth a trial
  ansible.builtin.debug:
    msg: "{{ info.units | selectattr('candidate') | map(attribute='candidate.why') }}"

- name: See every process of two services
  preload.jemalloc.jemalloc_info:
    gather: [processes]
    processes: true
    units: [puma, sidekiq@]

- name: Hold the installations below another prefix against their receipts
  preload.jemalloc.jemalloc_info:
    gather: [installations]
    prefix: /srv/jemalloc
"""

RETURN = r"""
installations:
  description: What stands in O(prefix).
  returned: always
  type: list
  elements: dict
  contains:
    version:
      description: The release.
      type: str
    path:
      description: Its directory.
      type: str
    current:
      description: Whether the link C(current) leads to it.
      type: bool
    previous:
      description: Whether it was current before.
      type: bool
    receipt:
      description: Of what, how and when it was built; null when that cannot be read.
      type: dict
    damage:
      description: What is wrong with it, empty when it is as its receipt says.
      type: str
  sample:
    - {version: 5.3.1, path: /opt/jemalloc/5.3.1, current: true, previous: false, receipt: {release: 5.3.1}, damage: ""}
scopes:
  description: The files that preload something, and those of this collection.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The file.
      type: str
    kind:
      description: Whom it is for.
      type: str
      choices: [host, service, user_service, login, command, ld_so_preload]
    unit:
      description: The service, empty for more than one.
      type: str
    ours:
      description: Whether it is a file of this collection, or a part of it is.
      type: bool
    preloads:
      description: The libraries that it preloads, in their order.
      type: list
      elements: str
    malloc_conf:
      description: The settings of jemalloc in it.
      type: str
  sample:
    - path: /etc/systemd/system/puma.service.d/zz-preload-jemalloc.conf
      kind: service
      unit: puma.service
      ours: true
      preloads: [/opt/jemalloc/current/lib/libjemalloc.so]
      malloc_conf: narenas:2
units:
  description: The processes by their units. Sizes are bytes, times seconds. Threads of the kernel are left out.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The unit, empty for processes that are in none.
      type: str
    scope:
      description: Whose it is.
      type: str
      choices: [system, user, container, none]
    container:
      description: The container, by its short identity; of containers in each other all, with slashes between.
      type: str
    uid:
      description: The user, by number, whose own systemd runs it.
      type: int
    allocators:
      description:
        - The allocators in use, each with the number of processes.
        - V(jemalloc 5.3.1) is a release of O(prefix), V(jemalloc (other\)) another library, V(jemalloc (built in\)) one
          in the program itself. V(static) is a static program without an allocator that is known.
          V(unreadable) is what this user cannot see.
      type: dict
    processes:
      description: Their number.
      type: int
    threads:
      description: The number of their threads.
      type: int
    rss:
      description: The memory that is resident; what they share counts for each.
      type: int
    pss:
      description: The memory that is resident, what is shared counted once; null when it was not read, see O(gather).
      type: int
    swap:
      description: What is swapped out.
      type: int
    uptime:
      description: The age of the oldest process.
      type: int
    started:
      description: When that was started, since the epoch.
      type: int
    malloc_conf:
      description: The E(MALLOC_CONF) that the oldest process with jemalloc was started with.
      type: str
    configured:
      description: The release that its scope wants, empty for none.
      type: str
    drift:
      description: How what runs differs from that, with the reason.
      type: list
      elements: str
    candidate:
      description:
        - Why a service looks worth jemalloc, null when it does not. It is on the malloc of glibc, no scope is for it,
          and after an hour its threads have four arenas or more with 64 MiB or more.
      type: dict
      contains:
        arenas:
          description: The heaps of 64 MiB that arenas show as, without the main arena.
          type: int
        arena_bytes:
          description: What these have opened for use.
          type: int
        threads:
          description: The threads of its processes on glibc.
          type: int
        uptime:
          description: The age of the oldest of these.
          type: int
        rss:
          description: Their resident memory.
          type: int
        why:
          description: All that in a sentence.
          type: str
  sample:
    - name: puma.service
      scope: system
      container: ""
      uid: null
      allocators: {jemalloc 5.3.1: 3}
      processes: 3
      threads: 36
      rss: 734003200
      pss: 612368384
      swap: 0
      uptime: 86400
      started: 1767225600
      malloc_conf: narenas:2
      configured: 5.3.1
      drift: []
      candidate: null
processes:
  description: Each process, with O(processes=true).
  returned: always
  type: list
  elements: dict
  contains:
    pid:
      description: Its number.
      type: int
    unit:
      description: As in RV(units).
      type: str
    container:
      description: As in RV(units).
      type: str
    command:
      description: Its name; arguments can hold secrets.
      type: str
    allocator:
      description:
        - What it uses, its release if it is ours, the path of the library, whether that was deleted since, and whether
          the process is in secure-execution mode (set-user-ID, file capabilities).
      type: dict
    rss:
      description: As in RV(units).
      type: int
    pss:
      description: As in RV(units).
      type: int
    swap:
      description: As in RV(units).
      type: int
    threads:
      description: As in RV(units).
      type: int
    uptime:
      description: Its age.
      type: int
    malloc_conf:
      description: The E(MALLOC_CONF) that it was started with.
      type: str
  sample: []
unreadable:
  description: What could not be read - the number of processes, the files, and a sentence that says why.
  returned: always
  type: dict
  sample: {processes: 0, files: [], reason: ""}
time:
  description: When this was measured, since the epoch.
  returned: always
  type: int
  sample: 1767312000
boot_id:
  description: What the kernel calls the time since the host was started.
  returned: always
  type: str
  sample: 5d9a0c6e-58a3-4c7e-9a53-7b0f0f6c2f6f
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.preload.jemalloc.plugins.module_utils import _info as info
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, of_system

ARGUMENTS: t.Dict[str, t.Any] = {
    "prefix": {"type": "path", "default": "/opt/jemalloc"},
    "gather": {
        "type": "list",
        "elements": "str",
        "choices": ["installations", "scopes", "processes", "pss"],
        "default": ["installations", "scopes", "processes"],
    },
    "processes": {"type": "bool", "default": False},
    "units": {"type": "list", "elements": "str"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    try:
        prefix = store.check_prefix(params["prefix"])
        result = info.gather(prefix, params["gather"], info.unit_names(params["units"] or []), params["processes"])
    except JemallocError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=of_system(error, "this host"))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
