# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of jemalloc_image: what comes from the cache, and what goes there."""

from __future__ import annotations

import hashlib
import os
import pathlib
import typing as t
from unittest import mock

import pytest
from ansible import constants

from ansible_collections.preload.jemalloc.plugins.action import jemalloc_image as action
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _display as display
from tests.unit import packed

MISSING = packed.missing(libc="musl", libc_version="")
BUNDLE = packed.bundle(platform=packed.platform(libc="musl", libc_lowest=""))
ANSWER = packed.answer(BUNDLE)
BUILT = {"content": ANSWER["content"], "receipt": ANSWER["receipt"]}


class Play:
    """Runs the action; the module lacks a bundle until one is brought, or it may build."""

    def __init__(self, directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make a controller whose directories are below this one."""
        self._directory = directory
        self.calls: t.List[t.Dict[str, t.Any]] = []
        self.said: t.List[str] = []
        self.built: t.Dict[str, t.Any] = BUILT
        (directory / "run").mkdir()
        monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(directory / "run"))
        monkeypatch.setattr(display, "say", lambda words, **_more: self.said.append(words))
        monkeypatch.setattr(catalogue, "UPSTREAM_URL", "http://127.0.0.1:1/{version}")

    def run(self, check: bool = False, **arguments: t.Any) -> t.Dict[str, t.Any]:
        """Run the action."""
        task = mock.MagicMock(
            args={"cache": str(self._directory / "cache"), **arguments}, async_val=0, check_mode=check
        )
        task.delegate_to = None
        loaded = [mock.MagicMock() for _each in range(4)]
        plugin = action.ActionModule(task, *loaded, None)

        def execute(module_name: str, module_args: t.Dict[str, t.Any], task_vars: t.Any) -> t.Dict[str, t.Any]:
            assert module_name == "preload.jemalloc.jemalloc_image"
            self.calls.append(dict(module_args))
            if module_args["build"] == "never":
                return {"changed": False, "missing": MISSING}
            brought = (module_args.get("pushed") or {}).get("kind") == "bundle"
            return {"changed": True, "built": None if brought or check else "5.3.1", **({} if brought else self.built)}

        plugin._execute_module = execute
        plugin._make_tmp_path = lambda: "/tmp/x"
        plugin._connection._shell.tmpdir = None
        plugin._connection._shell.join_path = os.path.join
        plugin._transfer_file = mock.MagicMock()
        plugin._fixup_perms2 = mock.MagicMock()
        return dict(plugin.run(task_vars={"inventory_hostname": "web", "groups": {"all": ["web"]}}))


@pytest.fixture
def play(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Such a play."""
    return Play(tmp_path, monkeypatch)


@pytest.mark.parametrize("check", [False, True])
def test_what_is_built_for_one_image_is_there_for_the_next(play: Play, check: bool) -> None:
    first = play.run(tag="a")
    assert (first["changed"], first["built"]) == (True, "5.3.1")
    assert not {"content", "receipt"} & set(first)
    assert "web: building jemalloc 5.3.1 for x86_64-musl (1 of 1)" in play.said
    play.said.clear()
    assert play.run(check, tag="b") == {"changed": True, "built": None, "builder": "web"}
    assert play.said == ([] if check else ["web: taking jemalloc 5.3.1, built on web"])
    digest = hashlib.sha256(BUNDLE).hexdigest()
    assert play.calls[-1] == {
        "tag": "b",
        "build": "now",
        "pushed": {
            "kind": "bundle",
            "path": f"/tmp/x/{digest}",
            "sha256": digest,
            "origin": "the controller's cache, built on web",
            "builder": "web",
        },
    }


def test_another_run_made_the_image_meanwhile(play: Play) -> None:
    play.built = {"changed": False}
    assert not play.run(tag="a")["changed"]
    play.built = BUILT
    assert play.run(tag="a")["built"] == "5.3.1"  # the cache has got nothing
