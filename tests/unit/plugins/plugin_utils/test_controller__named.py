# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks of one run that take away what an earlier one named."""

from __future__ import annotations

import pathlib

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _named as named


def test_only_what_an_earlier_task_named_for_the_same_host_is_lost(tmp_path: pathlib.Path) -> None:
    run = str(tmp_path)
    assert named.warnings(run, "web1", {"named": ["a.service", "b.service"], "removed": ["old.service"]}) == []
    assert named.warnings(run, "web2", {"named": ["c.service"], "removed": ["a.service"]}) == []
    assert named.warnings(run, "web1", {}) == []
    lost = named.warnings(run, "web1", {"named": ["c.service"], "removed": ["b.service", "old.service", "a.service"]})
    assert lost == [
        "a.service, b.service: an earlier task of this run named it for jemalloc, and this task takes it away: its "
        "list is the whole truth for the host. Set jemalloc_purge: false (purge: false of jemalloc_preload) where each "
        "task is to add its own services, or name all services in one list."
    ]
