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
from ansible.playbook.handler import Handler
from ansible.plugins.action import ActionBase

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, of_system
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _answers as answers
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _display as display

Result = t.Dict[str, t.Any]

# A carriage return ends lines where a host is given a terminal.
_RETURN = re.compile(r"\r(?=\n)")

_ROLE = "preload.jemalloc.jemalloc"


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
            result = {**result, **self.answer()}
        except JemallocError as error:
            result = {**result, "failed": True, "msg": str(error)}
        except OSError as error:
            msg = f"On the controller: {of_system(error, constants.DEFAULT_LOCAL_TMP)}"
            result = {**result, "failed": True, "msg": msg}
        role = self._task._role
        return self._plain(self._of_role(result) if role and role.get_name() == _ROLE else result)

    def _of_role(self, result: Result) -> Result:
        """Return the result of a task of the role: with its variables in messages, or after the line for the host."""
        from ansible_collections.preload.jemalloc.plugins.plugin_utils import _role as role
        from ansible_collections.preload.jemalloc.plugins.plugin_utils import _summary as summary

        if result.get("failed"):
            return {**result, "msg": role.in_variables(str(result.get("msg", "")), self.NAME)}
        found = summary.results(self._variables, self.NAME, result)
        is_restart = isinstance(self._task, Handler) or self.NAME != "jemalloc_service"
        if is_restart and summary.last_module(found) == self.NAME and self._task.args.get("state") != "restored":
            display.say(answers.line(f"{self._host}: {summary.line(found, self._task.check_mode)}"))
        return result

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
