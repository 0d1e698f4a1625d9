# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of all actions: modules are run, their answers are checked, and what reaches a terminal is plain text."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import re
import typing as t

from ansible import constants
from ansible.plugins.action import ActionBase

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, of_system
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _answers as answers

Result = t.Dict[str, t.Any]

# A carriage return ends lines where a host is given a terminal.
_RETURN = re.compile(r"\r(?=\n)")


class Action(ActionBase):
    """Runs the module of the same name; a subclass does more with the answer."""

    _requires_connection = True

    #: The module that this is the controller's half of.
    NAME = ""

    def run(self, tmp: None = None, task_vars: t.Optional[Result] = None) -> Result:
        """Run the action."""
        result: Result = super().run(tmp, task_vars)
        self._variables = task_vars or {}
        self._host = str(self._variables.get("inventory_hostname", ""))
        try:
            return self._plain({**result, **self.answer()})
        except JemallocError as error:
            return self._plain({**result, "failed": True, "msg": str(error)})
        except OSError as error:
            msg = f"On the controller: {of_system(error, constants.DEFAULT_LOCAL_TMP)}"
            return self._plain({**result, "failed": True, "msg": msg})

    def answer(self) -> Result:
        """Return the result of the action."""
        return self.ask(self.NAME, wrap_async=self._task.async_val)

    def ask(self, module: str, module_args: t.Optional[Result] = None, **more: t.Any) -> Result:
        """Run a module where the task runs, with other arguments than the task's if they are given."""
        done = self._execute_module(
            module_name=f"preload.jemalloc.{module}", module_args=module_args, task_vars=self._variables, **more
        )
        return answers.check(self.asked_host(), module, done)

    def asked_host(self) -> str:
        """Return the host whose module answers."""
        return str(self._task.delegate_to or self._host)

    def _plain(self, result: Result) -> Result:
        try:
            return answers.clean(result)
        except answers.TooLargeError:
            error = answers.AnswerError(self.asked_host(), self.NAME, "it is larger than a host has to say")
            return {"failed": True, "msg": str(error)}

    def _low_level_execute_command(self, *arguments: t.Any, **keywords: t.Any) -> t.Any:
        """Run a command; Ansible shows what stands in its output beside the answer, which has no control characters."""
        done = super()._low_level_execute_command(*arguments, **keywords)
        texts = {name: answers.plain(_RETURN.sub("", done[name])) for name in ("stdout", "stderr")}
        return {**done, **texts, **{f"{name}_lines": text.splitlines() for name, text in texts.items()}}


class PlainAction(Action):
    """Runs a module that needs nothing of the controller, also in the background."""

    _supports_async = True
