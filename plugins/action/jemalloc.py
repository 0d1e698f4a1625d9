# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks up the newest release on the controller where that is asked for, and runs the module of the same name."""

from __future__ import annotations

import typing as t

from ansible import constants
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _latest as latest


def with_latest(arguments: t.Dict[str, t.Any], cache: str) -> t.Dict[str, t.Any]:
    """Return the arguments with the newest release in place of the wish for it."""
    if not boolean(arguments.get("latest") or False, strict=False):
        return arguments
    if arguments.get("version") or arguments.get("checksum"):
        raise JemallocError("latest: it excludes version and checksum; leave out the one or the other.")
    release = latest.look_up(str(arguments.get("latest_url") or catalogue.LATEST_URL), cache)
    found = {**arguments, "latest": False, "version": release.version}
    if release.version not in catalogue.RELEASES:
        found["checksum"] = f"sha256:{release.sha256}"
    return found


class ActionModule(ActionBase):
    """Replaces the wish for the newest release by its number and digest and runs the module."""

    _requires_connection = True

    def run(self, tmp: None = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        """Run the action."""
        result = super().run(tmp, task_vars)
        try:
            arguments = with_latest(dict(self._task.args), constants.DEFAULT_LOCAL_TMP)
        except JemallocError as error:
            return {**result, "failed": True, "msg": str(error)}
        result.update(
            self._execute_module(module_name="preload.jemalloc.jemalloc", module_args=arguments, task_vars=task_vars)
        )
        return result
