#!/usr/bin/python
# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: jemalloc_report
short_description: Measure a fleet and report what jemalloc saves
version_added: 0.1.0
description:
  - Takes what M(preload.jemalloc.jemalloc_info) returned for all hosts of the play, or of the batch with C(serial),
    keeps the memory of each unit in a file of measurements, and writes a report of the fleet as HTML, JSON and CSV.
  - The HTML file needs no network and no other file. It lists hosts and units, which allocator each runs with, drift,
    candidates, and the memory of each unit over time with the moment when jemalloc was enabled.
  - Memory before and after is compared at equal uptimes only, as memory grows with uptime. Uptimes count as equal when
    they fall into the same of the steps that begin at O(min_uptime) and grow by a quarter each. In the steps that both
    sides have, each side needs five measurements; what is compared are the means of the medians of these steps.
  - A difference counts as one from 5 % on, and where 85 % of all pairs of a measurement before and one after, at equal
    uptimes, differ in the same direction. What has too few measurements, or another number of processes than before,
    gets no figure but the reason. The sums of the fleet are those of the units that can be compared, whether they gain
    or not.
  - Everything happens on the controller, once for all hosts. A host that could not be looked at is in the report with
    the reason, and in a warning.
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
  idempotent:
    description: When run twice on the same results, the second run changes nothing.
options:
  variable:
    description: The variable that M(preload.jemalloc.jemalloc_info) was registered as on each host.
    type: str
    required: true
  database:
    description:
      - The file of measurements on the controller, in the format of SQLite. It is made where it is missing, and only
        its owner can read it. Several runs may use it at once.
    type: path
    default: ~/.cache/preload.jemalloc/measurements.sqlite
  directory:
    description:
      - The directory on the controller that gets C(report.html), C(report.json) and C(report.csv). It is made where it
        is missing.
      - Without it the measurements are kept and no report is written.
    type: path
  keep:
    description: How many measurements of a unit are kept for each allocator that it ran with; the oldest go first.
    type: int
    default: 300
  keep_days:
    description: Days after which a measurement goes.
    type: int
    default: 400
  min_uptime:
    description: Seconds of uptime before which the memory of a unit says nothing, as it still fills its caches.
    type: int
    default: 600
seealso:
  - module: preload.jemalloc.jemalloc_info
"""

EXAMPLES = r"""
- name: Look at the host
  preload.jemalloc.jemalloc_info:
  register: found

- name: Write the report
  preload.jemalloc.jemalloc_report:
    variable: found
    directory: "{{ playbook_dir }}/report"

- name: Only keep the measurements, for two years and in a file of one's own
  preload.jemalloc.jemalloc_report:
    variable: found
    database: /srv/jemalloc/measurements.sqlite
    keep: 1000
    keep_days: 730

- name: Write the report of services that are warm after a minute
  preload.jemalloc.jemalloc_report:
    variable: found
    directory: "{{ playbook_dir }}/report"
    min_uptime: 60
"""

RETURN = r"""
added:
  description: How many measurements were added, one for each unit.
  returned: success
  type: int
  sample: 240
files:
  description: The files of the report.
  returned: success
  type: list
  elements: str
  sample: [/srv/report/report.html, /srv/report/report.json, /srv/report/report.csv]
msg:
  description: What the report says in two sentences.
  returned: always
  type: str
  sample: jemalloc saves 12.4 GiB, 27 %.
summary:
  description: The figures of the fleet, memory in bytes; empty without O(directory).
  returned: success
  type: dict
unread:
  description: The hosts that could not be looked at.
  returned: success
  type: list
  elements: str
"""
