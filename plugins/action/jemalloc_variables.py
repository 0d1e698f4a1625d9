# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Returns the variables of a playbook, converted, or one sentence before anything changes."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _variables as variables_util

#: The arguments of the module of the same name, all of which this reads.
ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "playbook": {"type": "str", "choices": ["rollout", "bundle", "cache", "image", "profile", "report", "status"]},
}

_DISPLAY = Display()


class ActionModule(ActionBase):
    """Reads the variables of the host of the task; no host is asked."""

    _requires_connection = False

    def run(self, tmp: None = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        """Run the action."""
        result = super().run(tmp, task_vars)
        _validation, given = self.validate_argument_spec(argument_spec=ARGUMENTS)
        playbook = given["playbook"] or ""
        try:
            said = variables_util.said(task_vars or {}, self._templar.template, playbook)
            result["variables"] = variables_util.converted(said, playbook)
        except JemallocError as error:
            return {**result, "failed": True, "msg": str(error)}
        for alias, name in variables_util.old_names(said, playbook).items():
            _DISPLAY.deprecated(
                f"The variable {alias} of preload.jemalloc.{playbook} is now called {name}.",
                version="1.0.0",
                collection_name="preload.jemalloc",
            )
        return {**result, "changed": False}
