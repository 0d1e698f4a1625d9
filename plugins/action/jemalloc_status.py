# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the status of all hosts of a play as a table; on the controller, once for all of them."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _display as display
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _registered as registered
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _report as reporting
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _status as status_util
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _status_table as drawing

#: What jemalloc_status of the modules documents.
ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "variable": {"type": "str", "required": True},
    "full": {"type": "bool"},
}


class ActionModule(ActionBase):
    """Runs once for all hosts of the play, or of the batch with serial."""

    BYPASS_HOST_LOOP = True
    _requires_connection = False

    def run(self, tmp: None = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        """Run the action."""
        result = super().run(tmp, task_vars)
        _validation, given = self.validate_argument_spec(argument_spec=ARGUMENTS)
        results = registered.results(task_vars or {}, str(given["variable"]))
        statuses = [status_util.judge(reporting.read(name, found)) for name, found in results.items()]
        lines = drawing.table(statuses, given["full"])
        display.say("\n".join(lines))
        states = {status.host.name: status.state for status in statuses}
        return {**result, "changed": False, "lines": lines, "msg": lines[-1], "states": states}
