# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps what the module of the same name made of a service's dumps as files on the controller."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _action as base
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _answers as answers
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _profiles as profiles
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _words as words


def kept(done: t.Mapping[str, t.Any], contents: t.Any, place: str) -> t.Dict[str, t.Any]:
    """Keep the files and return what there is to say of them."""
    paths, left_out = profiles.keep(place, contents)
    pictures, why = profiles.draw(paths)
    whole = {
        **done,
        "directory": place,
        "files": sorted([*paths, *pictures]),
        "left_out": [*done["left_out"], *left_out, *([why] if why else [])],
    }
    return {**whole, "summary": profiles.summary(whole)}


class ActionModule(base.Action):
    """Runs the module and keeps what it made."""

    NAME = "jemalloc_profile"

    def answer(self) -> base.Result:
        """Return the result of the module, with the files kept."""
        done = self.ask(self.NAME)
        contents = done.pop("contents", None)
        if done.get("failed") or contents is None:
            return done
        if self._task.check_mode:
            return {**done, "directory": "", "files": [], "summary": []}
        directory = os.path.abspath(os.path.expanduser(str(self._task.args["directory"])))
        place = profiles.place(directory, self._host, str(done["unit"]), str(done["began"]))
        try:
            return {**done, **kept(done, contents, place)}
        except JemallocError as error:
            raise answers.AnswerError(self.asked_host(), self.NAME, f"in its contents {error}") from error
        except OSError as error:
            return {**done, "failed": True, "msg": words.of_controller(error, "directory", directory)}
