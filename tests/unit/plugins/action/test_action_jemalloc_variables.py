# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action that returns the variables of a playbook, and the one of the role that reads them itself."""

from __future__ import annotations

import pathlib
import typing as t
from unittest import mock

import pytest
from ansible import constants

from ansible_collections.preload.jemalloc.plugins.action import jemalloc as installing
from ansible_collections.preload.jemalloc.plugins.action import jemalloc_variables as action
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _display as display
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _named as named


def run(
    plugin: t.Any, arguments: t.Dict[str, t.Any], scopes: t.Any = None, **variables: t.Any
) -> t.Tuple[t.Dict[str, t.Any], t.List[t.Dict[str, t.Any]]]:
    """Run an action with these variables; return its result and the arguments of each module call."""
    calls: t.List[t.Dict[str, t.Any]] = []
    task = mock.MagicMock(args=arguments, async_val=0, check_mode=False, delegate_to=None)
    task._role.get_name.return_value = "preload.jemalloc.jemalloc"
    names = ("connection", "play_context", "loader", "templar", "shared_loader_obj")
    made = plugin.ActionModule(task=task, **{name: mock.MagicMock() for name in names})
    made._templar.template = lambda value: value

    def execute(**options: t.Any) -> t.Dict[str, t.Any]:
        calls.append(options["module_args"])
        if options["module_args"].get("version") == "5.9.9":
            return {"failed": True, "msg": "version: jemalloc 5.9.9 is not a known release."}
        return {"changed": False, "missing": None, "scopes": scopes, "version": "5.3.1"}

    made._execute_module = execute
    result = dict(made.run(task_vars={"inventory_hostname": "web1", **variables}))
    result.pop("invocation", None)
    return result, calls


def test_variables_of_a_playbook(monkeypatch: pytest.MonkeyPatch) -> None:
    said: t.List[str] = []
    monkeypatch.setattr(action._DISPLAY, "deprecated", lambda message, **_more: said.append(message))
    result, _calls = run(action, {"playbook": "profile"}, unit="puma", jemalloc_timeout="90", other=1)
    assert not result["changed"]
    assert (result["variables"]["profile_unit"], result["variables"]["timeout"]) == ("puma", 90)
    assert said == ["The variable unit of preload.jemalloc.profile is now called jemalloc_profile_unit."]
    result, _calls = run(action, {}, jemalloc_restart="no")
    assert (result["variables"]["restart"], result["variables"]["prefix"]) == (False, "/opt/jemalloc")
    assert len(said) == 1


def test_a_wrong_variable_of_a_playbook() -> None:
    result, _calls = run(action, {"playbook": "image"}, jemalloc_image_base="x")
    assert result["failed"]
    assert result["msg"].startswith("jemalloc_image_tag: it is not set, ")


def test_the_role_reads_its_variables() -> None:
    result, calls = run(
        installing, {"from_variables": True}, jemalloc_services="puma", jemalloc_origins="https://u:p@x"
    )
    assert result["next"] == "preload"
    assert result["releases"] == []
    assert (result["variables"]["services"], result["variables"]["state"]) == (["puma"], "present")
    assert "u:p@x" not in str(result)
    assert calls[0]["scopes"]["services"] == ["puma"]
    assert "host" not in calls[0]["scopes"]
    assert calls[0]["origins"] == ["https://u:p@x"]
    assert {"from_variables", "cache"} & set(calls[0]) == set()
    _result, calls = run(installing, {"from_variables": "yes", "build": "never"})
    assert "scopes" not in calls[0]


def test_the_role_says_a_line_for_what_is_up_to_date(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    said: t.List[str] = []
    monkeypatch.setattr(display, "say", said.append)
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    run(installing, {"from_variables": True}, {"named": [], "removed": []})
    assert said == ["web1: jemalloc 5.3.1; pending: none"]
    run(installing, {"from_variables": True})
    assert len(said) == 1


def test_what_the_role_finds_up_to_date_counts_as_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    found = {"named": ["puma.service"], "removed": []}
    result, _calls = run(installing, {"from_variables": True}, found, jemalloc_services="puma")
    assert result["next"] == ""
    assert named.warnings(str(tmp_path), "web1", {"removed": ["puma.service"]})
    result, _calls = run(installing, {"from_variables": True}, {"named": [1]})
    assert "scopes is not of the form" in result["msg"]


def test_the_role_names_variables() -> None:
    result, _calls = run(installing, {"from_variables": True}, jemalloc_version="5.9.9")
    assert result["failed"]
    assert result["msg"] == "jemalloc_version: jemalloc 5.9.9 is not a known release."
    assert result["variables"]["prefix"] == "/opt/jemalloc"
    result, calls = run(installing, {"from_variables": True}, jemalloc_service=["puma"])
    assert result["msg"].endswith("Did you mean jemalloc_services?")
    assert calls == []
    result, calls = run(installing, {"from_variables": True}, jemalloc_latest="yes", jemalloc_version="5.1.0")
    assert result["msg"].startswith("jemalloc_latest: it excludes version")
    assert calls == []


def test_nothing_is_installed_where_all_goes() -> None:
    result, calls = run(installing, {"from_variables": True}, jemalloc_state="absent")
    assert (result["next"], result["changed"], calls) == ("remove", False, [])
