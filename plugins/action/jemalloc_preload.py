# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders the role's templates for the module of the same name, and warns when tasks of a run undo each other."""

from __future__ import annotations

from ansible import constants

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _action as base
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _named as named
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _rendering as rendering


class ActionModule(base.Action):
    """Adds the rendered texts to the task's arguments and runs the module."""

    NAME = "jemalloc_preload"

    def answer(self) -> base.Result:
        """Return the result of the module."""
        result = self.ask(self.NAME, rendering.with_texts(self._task.args))
        found = [] if result.get("failed") else named.warnings(constants.DEFAULT_LOCAL_TMP, self.asked_host(), result)
        return {**result, "warnings": [*result.get("warnings", []), *found]} if found else result
