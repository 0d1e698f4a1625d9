#!/usr/bin/python
# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: jemalloc_variables
short_description: Check and convert the variables of the role and the playbooks
version_added: 0.1.0
description:
  - Returns each variable with the prefix C(jemalloc_) as its specification says, whatever it was set by. V(false) of
    C(-e jemalloc_restart=false) is a text for Ansible, and a truth value in RV(variables).
  - A variable that does not exist, or whose value does not fit, is an error with one sentence. An empty text and
    V(null) count as not set.
  - It runs on the controller, and no host is asked. The playbooks of this collection call it as their first task. The
    role does the same without a task for it.
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
    support: none
  diff_mode:
    support: none
options:
  playbook:
    description:
      - The playbook of this collection whose variables are read, with those of the role. If not set, only those of the
        role are.
      - Only the playbooks that call the role get the defaults of its variables.
    type: str
    choices: [rollout, bundle, cache, image, profile, report, status]
seealso:
  - module: preload.jemalloc.jemalloc
"""

EXAMPLES = r"""
- name: Read the variables
  preload.jemalloc.jemalloc_variables:
    playbook: report
  register: read

- name: Show where the measurements are
  ansible.builtin.debug:
    var: read.variables.report_database
"""

RETURN = r"""
variables:
  description: The variables by their names without C(jemalloc_), those that are not set and have no default left out.
  returned: success
  type: dict
  sample: {prefix: /opt/jemalloc, restart: false, services: [puma, sidekiq], timeout: 90}
"""
