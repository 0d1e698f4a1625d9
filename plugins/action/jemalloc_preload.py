# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders the role's Jinja2 templates on the controller, for the module of the same name."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _rendering as rendering


class ActionModule(ActionBase):
    """Adds the rendered texts to the task's arguments and runs the module."""

    _requires_connection = True

    def run(self, tmp: None = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        """Run the action."""
        result = super().run(tmp, task_vars)
        result.update(
            self._execute_module(
                module_name="preload.jemalloc.jemalloc_preload",
                module_args=rendering.with_texts(self._task.args),
                task_vars=task_vars,
            )
        )
        return result
