# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps what the module of the same name made of a service's dumps as files on the controller."""

from __future__ import annotations

import os
import typing as t

from ansible.plugins.action import ActionBase

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _profiles as profiles
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _words as words


def kept(done: t.Mapping[str, t.Any], contents: t.Mapping[str, str], directory: str, host: str) -> t.Dict[str, t.Any]:
    """Keep the files and return what there is to say of them."""
    place = profiles.place(directory, host, str(done["unit"]), str(done["began"]))
    paths = profiles.keep(place, contents)
    pictures, why = profiles.draw(paths)
    whole = {
        **done,
        "directory": place,
        "files": sorted([*paths, *pictures]),
        "left_out": [*done["left_out"], *([why] if why else [])],
    }
    return {**whole, "summary": profiles.summary(whole)}


class ActionModule(ActionBase):
    """Runs the module and keeps what it made."""

    _requires_connection = True

    def run(self, tmp: None = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        """Run the action."""
        result = super().run(tmp, task_vars)
        done = self._execute_module(module_name="preload.jemalloc.jemalloc_profile", task_vars=task_vars)
        contents = done.pop("contents", None)
        if contents is None:
            return {**result, **done}
        if self._task.check_mode:
            return {**result, **done, "directory": "", "files": [], "summary": []}
        directory = os.path.abspath(os.path.expanduser(str(self._task.args["directory"])))
        try:
            host = str((task_vars or {}).get("inventory_hostname", ""))
            return {**result, **kept(done, contents, directory, host)}
        except JemallocError as error:
            return {**result, **done, "failed": True, "msg": str(error)}
        except OSError as error:
            return {**result, **done, "failed": True, "msg": words.of_controller(error, "directory", directory)}
