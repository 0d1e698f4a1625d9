# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders the role's Jinja2 templates on the controller, for the module of the same name."""

from __future__ import annotations

import os
import typing as t

from ansible.plugins.action import ActionBase
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from ansible_collections.preload.jemalloc.plugins.module_utils import _preload as preload

_TEMPLATES = os.path.join(os.path.dirname(__file__), "..", "..", "roles", "jemalloc", "templates")


def render(prefix: str, host: bool) -> t.Dict[str, str]:
    """Return the texts that the module fills in; what LD_PRELOAD has to be, only the host can say."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=select_autoescape(),  # for HTML; these are none
    )
    variables = {"prefix": prefix, "host": host, "ld_preload": preload.LD_PRELOAD}
    names = {"service": "service.conf.j2", "manager": "system.conf.j2"}
    names.update({"environment": "environment.j2", "profile": "profile.sh.j2"})
    return {key: environment.get_template(name).render(variables) for key, name in names.items()}


class ActionModule(ActionBase):
    """Adds the rendered texts to the task's arguments and runs the module."""

    _requires_connection = True

    def run(self, tmp: None = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        """Run the action."""
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        prefix = str(arguments.get("prefix") or "/opt/jemalloc").rstrip("/")
        arguments["texts"] = render(
            prefix, host=str(arguments.get("host", False)).lower() in ("true", "yes", "1", "on")
        )
        result.update(
            self._execute_module(
                module_name="preload.jemalloc.jemalloc_preload", module_args=arguments, task_vars=task_vars
            )
        )
        return result
