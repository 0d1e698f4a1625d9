# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's templates as the action renders them, and the login script run by the shells that there are."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import typing as t
from unittest import mock

import pytest
from ansible import constants

from ansible_collections.preload.jemalloc.plugins.action import jemalloc_preload as action
from ansible_collections.preload.jemalloc.plugins.module_utils import _contents as contents
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _rendering as rendering

SHELLS = [shell for shell in ("sh", "dash", "bash") if shutil.which(shell)]
MANAGED = "# Managed by the Ansible collection preload.jemalloc; changes made here are lost.\n"


def test_render() -> None:
    texts = rendering.render("/srv/j")
    profile = texts.pop("profile")
    assert texts == {
        "service": f"{MANAGED}[Service]\n{contents.SETTINGS}\n",
        "manager": f"{MANAGED}[Manager]\n{contents.SETTINGS}\n",
        "environment": f"LD_PRELOAD={contents.LD_PRELOAD}\n",
    }
    assert profile.startswith(MANAGED)
    assert profile.endswith("\n")
    assert "{" + "{" not in profile
    assert "/opt/jemalloc" not in profile


@pytest.fixture
def prefix(tmp_path: pathlib.Path, library: pathlib.Path) -> str:
    """A store with a library."""
    path = tmp_path / "store" / "current" / "lib" / "libjemalloc.so"
    path.parent.mkdir(parents=True)
    shutil.copy(str(library), str(path))
    return str(tmp_path / "store")


def login(shell: str, prefix: str, host: bool, set_options: str = "", **environment: str) -> t.Dict[str, str]:
    """Let a shell read the profile; return the environment of what it starts, and the names that it leaves behind."""
    profile = pathlib.Path(prefix, "profile.sh")
    profile.write_text(rendering.render(prefix)["profile"].replace(contents.ENABLED, "true" if host else ""))
    script = f'{set_options}\n. {profile}\n/usr/bin/env\nset | grep -c "^jemalloc_" || true\n'
    done = subprocess.run(
        [str(shutil.which(shell)), "-c", script],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    *lines, left = done.stdout.splitlines()
    assert left == "0"
    assert not [line for line in done.stderr.splitlines() if "ld.so" not in line]
    return dict(line.split("=", 1) for line in lines)


OURS, OLD = "{prefix}/current/lib/libjemalloc.so", "{prefix}/5.1.0/lib/libjemalloc.so"

#: Whether host-wide, JEMALLOC_ENABLED, LD_PRELOAD before and after.
LOGINS: t.List[t.Tuple[bool, t.Optional[str], t.Optional[str], t.Optional[str]]] = [
    (False, None, None, None),
    (False, None, "/a.so", "/a.so"),
    (False, None, OURS, OURS),
    (False, "true", None, OURS),
    (False, "true", "", OURS),
    (False, "true", "/a.so:/b.so", f"{OURS}:/a.so:/b.so"),
    (False, "true", f"/a.so:{OURS}:{OLD}:/b.so", f"{OURS}:/a.so:/b.so"),
    (False, "true", "{prefix}2/x.so", f"{OURS}:{{prefix}}2/x.so"),
    (False, "false", None, None),
    (False, "false", "/a.so", "/a.so"),
    (False, "", OURS, OURS),
    (True, None, None, OURS),
    (True, None, OURS, OURS),
    (True, None, f"{OURS}:/a.so", f"{OURS}:/a.so"),
    (True, None, "/a.so", f"{OURS}:/a.so"),
    (True, "true", OURS, OURS),
    (True, "false", OURS, None),
    (True, "false", f"{OURS}:/a.so:/b.so", "/a.so:/b.so"),
    (True, "false", f"/a.so:{OURS}", "/a.so"),
    (True, "no", OURS, None),
    (True, "", None, None),
]


@pytest.mark.parametrize("set_options", ["", "set -eu"])
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("host", "enabled", "before", "after"), LOGINS)
def test_login(
    prefix: str,
    shell: str,
    set_options: str,
    host: bool,
    enabled: t.Optional[str],
    before: t.Optional[str],
    after: t.Optional[str],
) -> None:
    environment = {} if enabled is None else {"JEMALLOC_ENABLED": enabled}
    if before is not None:
        environment["LD_PRELOAD"] = before.format(prefix=prefix)
    found = login(shell, prefix, host, set_options, **environment)
    assert found.get("LD_PRELOAD") == (None if after is None else after.format(prefix=prefix))
    assert found["PATH"] == f"/usr/bin:/bin:{prefix}/current/bin"
    assert set(found) - {"PATH", "LD_PRELOAD", "JEMALLOC_ENABLED"} <= {"PWD", "SHLVL", "_", "OLDPWD"}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("before", [OURS, f"{OURS}:/a.so"])
def test_login_when_the_library_is_gone(prefix: str, shell: str, before: str) -> None:
    shutil.rmtree(f"{prefix}/current")
    found = login(shell, prefix, True, LD_PRELOAD=before.format(prefix=prefix))
    assert found.get("LD_PRELOAD") == (None if before == OURS else "/a.so")


@pytest.mark.parametrize("shell", SHELLS)
def test_login_below_a_login(prefix: str, shell: str) -> None:
    path = f"/usr/bin:{prefix}/current/bin:/bin"
    assert login(shell, prefix, False, PATH=path)["PATH"] == path


def made(arguments: t.Dict[str, t.Any]) -> t.Tuple[t.Any, action.ActionModule]:
    """Return a task and its action."""
    task = mock.MagicMock(args=arguments, async_val=0, check_mode=False, diff=False, delegate_to=None)
    names = ("connection", "play_context", "loader", "templar", "shared_loader_obj")
    return task, action.ActionModule(task=task, **{name: mock.MagicMock() for name in names})


@pytest.fixture(autouse=True)
def _own_run(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Let each test be a run of its own."""
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))


def test_a_task_that_takes_away_what_an_earlier_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: t.List[t.Dict[str, t.Any]] = [
        {"named": ["a.service"], "removed": []},
        {"failed": True, "msg": "no", "removed": 1},
        {"named": ["b.service"], "removed": ["a.service"], "warnings": ["its own"]},
        {"named": [], "removed": ["../b"]},
    ]
    monkeypatch.setattr(action.ActionModule, "_execute_module", lambda _self, **_options: answers.pop(0))
    results = [made({})[1].run(task_vars={"inventory_hostname": "web1"}) for _answer in list(answers)]
    assert [len(result.get("warnings", [])) for result in results] == [0, 0, 2, 0]
    assert results[2]["warnings"][0] == "its own"
    assert results[2]["warnings"][1].startswith("a.service: an earlier task of this run named it for jemalloc, ")
    assert "removed" in results[3]["msg"]


@pytest.mark.parametrize(
    ("arguments", "prefix"),
    [
        ({}, "/opt/jemalloc"),
        ({"prefix": "/srv/j/", "host": True}, "/srv/j"),
        ({"host": "yes", "texts": {"service": "smuggled"}}, "/opt/jemalloc"),
        ({"host": "no", "prefix": None}, "/opt/jemalloc"),
    ],
)
def test_the_action_hands_the_texts_on(
    monkeypatch: pytest.MonkeyPatch, arguments: t.Dict[str, t.Any], prefix: str
) -> None:
    calls: t.List[t.Dict[str, t.Any]] = []

    def execute(_self: t.Any, **options: t.Any) -> t.Dict[str, t.Any]:
        calls.append(options)
        return {"changed": True}

    monkeypatch.setattr(action.ActionModule, "_execute_module", execute)
    task, plugin = made(arguments)
    assert plugin.run(task_vars={"x": 1})["changed"] is True
    expected = {**arguments, "texts": rendering.render(prefix)}
    assert calls == [
        {"module_name": "preload.jemalloc.jemalloc_preload", "module_args": expected, "task_vars": {"x": 1}}
    ]
    assert task.args == arguments
