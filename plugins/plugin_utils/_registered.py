# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what a task registered on all hosts of a play, for an action that runs once for all of them."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import typing as t

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _answers as answers


def results(task_vars: t.Mapping[str, t.Any], variable: str) -> t.Dict[str, t.Any]:
    """Return the result that each host of the play, or of the batch with serial, registered as a variable."""
    raw = task_vars["hostvars"].raw_get  # a result is no template, and looking for one takes minutes in a large fleet
    return {str(host): plain(raw(host).get(variable)) for host in task_vars["ansible_play_batch"]}


def plain(value: t.Any, levels: int = answers.MOST_LEVELS) -> t.Any:
    """Return a value without Ansible's own kinds of texts, lists and mappings, which cost time at every look.

    What a host nests deeper than it has reason to is left out.
    """
    if not levels:
        return None
    if isinstance(value, t.Mapping):
        return {plain(key): plain(each, levels - 1) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each, levels - 1) for each in value]
    return str.__str__(value) if isinstance(value, str) else value
