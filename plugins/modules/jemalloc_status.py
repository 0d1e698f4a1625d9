#!/usr/bin/python
# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: jemalloc_status
short_description: Print what the hosts of a play run with as a table
version_added: 0.1.0
description:
  - Takes what M(preload.jemalloc.jemalloc_info) returned for all hosts of the play, or of the batch with C(serial), and
    prints a table of at most 100 columns - the releases of each host, what its enabled services run with, drift with
    its reason, pending restarts, exclusions, and candidates. The last line counts the hosts in each state.
  - A host is C(as configured), has C(nothing enabled), is C(with warnings), such as a damaged installation, C(with
    drift), C(unreadable) or C(unreachable).
  - A restart is pending where a process still runs with another release than its scope configures, or without it,
    because it was started before.
  - The table goes to standard output if the callback there writes for people. If it writes for machines, such as
    C(ansible.posix.json), only the result has the table. If the callback is not known, it goes to standard error.
  - Everything happens on the controller, once for all hosts. Nothing is changed.
author:
  - The preload.jemalloc contributors (@preload)
extends_documentation_fragment:
  - preload.jemalloc._attributes
  - ansible.builtin.action_common_attributes
  - ansible.builtin.action_common_attributes.flow
attributes:
  action:
    support: full
  async:
    support: none
  bypass_host_loop:
    support: full
  diff_mode:
    support: none
options:
  variable:
    description: The variable that M(preload.jemalloc.jemalloc_info) was registered as on each host.
    type: str
    required: true
  full:
    description:
      - Whether to print the services, exclusions and candidates of each host, and not only what differs.
      - If not set, the table is full for up to 10 hosts. For more, each host that is as configured takes one line.
    type: bool
seealso:
  - module: preload.jemalloc.jemalloc_info
  - module: preload.jemalloc.jemalloc_report
"""

EXAMPLES = r"""
- name: Read what the hosts run with
  preload.jemalloc.jemalloc_info:
  register: jemalloc_found
  failed_when: false
  ignore_unreachable: true

- name: Print it as a table
  preload.jemalloc.jemalloc_status:
    variable: jemalloc_found
  register: jemalloc_status

- name: Print the services of hosts that are as configured too
  preload.jemalloc.jemalloc_status:
    variable: jemalloc_found
    full: true

- name: Fail if a host does not run as configured
  ansible.builtin.assert:
    that: "jemalloc_status.states.values() is subset(['as configured', 'nothing enabled'])"
    fail_msg: "{{ jemalloc_status.msg }}"
  run_once: true
"""

RETURN = r"""
lines:
  description: The lines of the table.
  returned: success
  type: list
  elements: str
  sample:
    - HOST  CURRENT  PREVIOUS  STATE
    - "web1  5.3.1    5.3.0     as configured: 1 service"
    - "  puma  jemalloc 5.3.1  3 processes   for 2 d"
    - "1 host: 1 as configured"
msg:
  description: The last line of the table.
  returned: always
  type: str
  sample: "12 hosts: 10 as configured, 1 with drift, 1 unreachable"
states:
  description: The state of each host.
  returned: success
  type: dict
  sample: {web1: as configured, web2: with drift}
"""
