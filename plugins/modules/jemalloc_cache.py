#!/usr/bin/python
# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: jemalloc_cache
short_description: List the builds in the controller's cache, and remove those of a host
version_added: 0.1.0
description:
  - Lists the bundles in the cache of M(preload.jemalloc.jemalloc), each with the host that built it.
  - Removes the bundles that a host built, for example after somebody else was root on that host. Another host that
    made the same bundle keeps it.
  - Everything happens on the controller, once for all hosts of the play. Hosts that have installed a bundle keep it.
    The manifest of an installation, C(receipt.json), names the host that built it as C(builder).
author:
  - The preload.jemalloc contributors (@preload)
extends_documentation_fragment:
  - preload.jemalloc._attributes
  - ansible.builtin.action_common_attributes
  - ansible.builtin.action_common_attributes.flow
  - preload.jemalloc._library.cache
attributes:
  action:
    support: full
  async:
    support: none
  bypass_host_loop:
    support: full
  diff_mode:
    support: full
options:
  state:
    description:
      - V(present) lists the bundles.
      - V(absent) removes the bundles of O(builder).
    type: str
    choices: [present, absent]
    default: present
  builder:
    description:
      - A host of the inventory, or the address of a mirror. Only its bundles are listed or removed.
      - Required if O(state=absent). If not set, all bundles are listed.
    type: str
seealso:
  - module: preload.jemalloc.jemalloc
"""

EXAMPLES = r"""
- name: List the builds in the cache
  preload.jemalloc.jemalloc_cache:

- name: Remove the builds of a host from a cache that controllers share
  preload.jemalloc.jemalloc_cache:
    builder: web1
    state: absent
    cache: /srv/jemalloc-cache
    cache_size: 4096
"""

RETURN = r"""
entries:
  description: The bundles that were found, the oldest first. With O(state=absent) those that were removed.
  returned: success
  type: list
  elements: dict
  contains:
    release:
      description: The release of jemalloc.
      type: str
      sample: 5.3.1
    platform:
      description: Architecture, C library, its lowest version, and the options that differ from the defaults.
      type: str
      sample: x86_64-glibc2.34
    builder:
      description: The host that built it, or the address of the mirror that it is from.
      type: str
      sample: web1
    origin:
      description: Whether the builder is a host or a mirror.
      type: str
      sample: host
    added:
      description: When it was added, in UTC. Empty for entries of older versions of this collection.
      type: str
      sample: "2026-11-28T18:30:00Z"
    size:
      description: The size in bytes, 0 where the file is missing.
      type: int
      sample: 1153434
    sha256:
      description: The digest of the bundle in hexadecimal.
      type: str
lines:
  description: The same bundles for people, one a line.
  returned: success
  type: list
  elements: str
  sample: ["jemalloc 5.3.1 for x86_64-glibc2.34, built on web1 at 2026-11-28T18:30:00Z, 1.10 MiB, SHA-256 0123abcd"]
msg:
  description: How many bundles were found or removed.
  returned: always
  type: str
  sample: 3 bundles in /root/.cache/preload.jemalloc.
"""
