# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all actions have in common: answers are checked, and what Ansible gets of them is plain text."""

from __future__ import annotations

import pathlib
import types
import typing as t
from unittest import mock

import pytest
from ansible.playbook.handler import Handler
from ansible.plugins.action import ActionBase

from ansible_collections.preload.jemalloc.plugins.action import (
    jemalloc_container,
    jemalloc_info,
    jemalloc_metrics,
    jemalloc_preload,
    jemalloc_service,
)
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _action as base
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _answers as answers
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _display as display
from tests.checkout import ROOT

TASK: t.Dict[str, t.Any] = {"args": {"some": "argument"}, "check_mode": False, "delegate_to": None, "_role": None}

PLAIN = [jemalloc_container, jemalloc_info, jemalloc_metrics, jemalloc_service]


def run(
    module: types.ModuleType,
    answer: t.Any,
    calls: t.Optional[t.List[t.Any]] = None,
    registered: t.Optional[t.Dict[str, t.Any]] = None,
    **of_task: t.Any,
) -> t.Dict[str, t.Any]:
    """Run an action with a module that answers so."""
    async_val = 0 if module is jemalloc_preload else 7
    task = mock.MagicMock(**{**TASK, "async_val": async_val, **of_task})
    plugin = module.ActionModule(task, *[mock.MagicMock() for _each in range(4)], None)

    def execute(**keywords: t.Any) -> t.Any:
        if calls is not None:
            calls.append(keywords)
        return answer

    plugin._execute_module = execute
    return dict(plugin.run(task_vars={"inventory_hostname": "web1", **(registered or {})}))


@pytest.mark.parametrize("module", PLAIN)
def test_modules_that_need_nothing_of_the_controller(module: types.ModuleType) -> None:
    calls: t.List[t.Any] = []
    name = module.__name__.rpartition(".")[2]
    assert run(module, {"changed": False, "msg": "a\n\x1b[2Jb", "units": [{"\a": "\r"}]}, calls) == {
        "changed": False,
        "msg": "a\n\ufffd[2Jb",
        "units": [{"\ufffd": "\ufffd"}],
    }
    assert calls == [
        {
            "module_name": f"preload.jemalloc.{name}",
            "module_args": None,
            "task_vars": {"inventory_hostname": "web1"},
            "wrap_async": 7,
        }
    ]


def test_an_answer_that_is_refused() -> None:
    for answer, wrong in (([], "it is no mapping"), ({"failed": 1}, "failed is not of the form that it has to have")):
        result = run(jemalloc_preload, answer)
        assert set(result) == {"failed", "msg"}
        assert result["msg"].startswith(f"web1: the answer of its module jemalloc_preload is refused, {wrong}. Nothing")


def test_an_answer_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST_VALUES", 3)
    result = run(jemalloc_preload, {"changed": False, "files": ["a", "b", "c"]})
    assert result["msg"].startswith(
        "web1: the answer of its module jemalloc_preload is refused, it is larger than a host has to say. Nothing of"
    )


def test_what_stands_beside_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    done = {"rc": 0, "stdout": '{"a": 1}\r\n\x1b[2J\n', "stdout_lines": [], "stderr": "\a", "stderr_lines": ["\a"]}
    monkeypatch.setattr(ActionBase, "_low_level_execute_command", lambda _self, *_given, **_named: done)
    plugin = base.Action.__new__(base.Action)
    assert plugin._low_level_execute_command("true", sudoable=False) == {
        "rc": 0,
        "stdout": '{"a": 1}\n\ufffd[2J\n',
        "stdout_lines": ['{"a": 1}', "\ufffd[2J"],
        "stderr": "\ufffd",
        "stderr_lines": ["\ufffd"],
    }


GIVEN = {"variables": {"state": "present", "restart": True}, "version": "5.3.1", "next": "preload"}
RESTARTS = [{"name": "puma.service", "uid": None}]


def test_the_last_task_of_the_role_says_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said: t.List[str] = []
    monkeypatch.setattr(display, "say", said.append)
    ours, theirs = mock.MagicMock(), mock.MagicMock()
    ours.get_name.return_value, theirs.get_name.return_value = "preload.jemalloc.jemalloc", "acme.web.jemalloc"
    installed = {"__jemalloc_installed": GIVEN}
    done = {"changed": True, "restarts": []}
    for more in ({"_role": theirs}, {"_role": ours, "args": {"state": "restored"}}):
        run(jemalloc_preload, done, registered=installed, **more)
    run(jemalloc_preload, {**done, "restarts": RESTARTS}, registered=installed, _role=ours)
    assert said == []
    run(jemalloc_preload, done, registered=installed, _role=ours)
    assert said == ["web1: jemalloc 5.3.1; pending: none"]
    restarting = {**installed, "__jemalloc_preloaded": {"restarts": RESTARTS}}
    verified = {"changed": True, "processes": {"puma.service": 2}}
    run(jemalloc_service, verified, registered=restarting, _role=ours)
    assert len(said) == 1
    run(jemalloc_service, verified, registered=restarting, _role=ours, spec=Handler)
    run(jemalloc_service, {"changed": True}, registered=restarting, _role=ours, spec=Handler, check_mode=True)
    assert said[1:] == [
        "web1: jemalloc 5.3.1; restarted and verified puma (2 processes); pending: none",
        "web1: jemalloc 5.3.1; would restart puma; pending: none",
    ]


def test_messages_of_the_role_name_its_variables() -> None:
    role = mock.MagicMock()
    role.get_name.return_value = "preload.jemalloc.jemalloc"
    answer = {"failed": True, "msg": "via: only glibc reads it; use via: environment."}
    assert run(jemalloc_preload, answer)["msg"] == answer["msg"]
    assert run(jemalloc_preload, answer, _role=role)["msg"] == (
        "jemalloc_enabled_via: only glibc reads it; use jemalloc_enabled_via: environment."
    )


def test_every_module_on_a_host_has_an_action() -> None:
    modules, actions = (
        {path.name for path in pathlib.Path(ROOT, "plugins", kind).glob("*.py")} for kind in ("modules", "action")
    )
    assert modules == actions
