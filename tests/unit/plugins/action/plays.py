# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A play of the action jemalloc over hosts that are not there."""

from __future__ import annotations

import os
import pathlib
import typing as t
from unittest import mock

import pytest
from ansible import constants

from ansible_collections.preload.jemalloc.plugins.action import jemalloc as action
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _apt as apt
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _cache as caching
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _display as display
from tests.unit import packed

MISSING = packed.missing()
THERE = {"changed": False, "missing": None, "version": "5.3.1", "built": None}
BUNDLE = packed.bundle()
HOSTS = ["web1", "web2", "web3", "builder"]


class Play:
    """A play of the action over hosts: what each module call got, in their order, and what was said."""

    def __init__(self, directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make a controller whose directories are below this one."""
        self.directory = directory
        self.calls: t.List[t.Tuple[str, str, t.Dict[str, t.Any]]] = []
        self.said: t.List[str] = []
        self.installed: t.Set[str] = set()
        self.answers: t.Dict[str, t.Dict[str, t.Any]] = {}
        self.needs: t.Dict[str, t.Dict[str, t.Any]] = {}
        self.groups: t.Dict[str, t.List[str]] = {"all": list(HOSTS)}
        (directory / "run").mkdir()
        monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(directory / "run"))
        monkeypatch.setattr(display, "say", lambda words, **_more: self.said.append(words))
        monkeypatch.setattr(catalogue, "UPSTREAM_URL", "http://127.0.0.1:1/{version}")
        monkeypatch.setattr(apt, "archive_roots", list)

    def run(self, name: str, _check: bool = False, _delegate: str = "", **arguments: t.Any) -> t.Dict[str, t.Any]:
        """Run the action for a host."""
        cache = str(self.directory / "cache")
        task = mock.MagicMock(args={"cache": cache, **arguments}, async_val=0, check_mode=_check)
        task.delegate_to = _delegate or None
        plugin = action.ActionModule(task, mock.MagicMock(), mock.MagicMock(), mock.MagicMock(), mock.MagicMock(), None)

        target = _delegate or name

        def execute(module_name: str, module_args: t.Dict[str, t.Any], task_vars: t.Any) -> t.Dict[str, t.Any]:
            leaf = module_name.rpartition(".")[2]
            self.calls.append((target, leaf, dict(module_args)))
            answer = self.answers.get(target, {})
            if leaf == "jemalloc_bundle":
                return {**packed.answer(answer.get("bundle", BUNDLE)), **self.answers.get("packed", {})}
            if target in self.installed:
                return dict(THERE)
            if module_args["build"] == "never":
                missing = {**MISSING, **self.needs.get(target, {})}
                return {**THERE, "built": "5.3.1", "missing": missing, **answer.get("look", {})}
            built = {**THERE, "changed": True, "built": "5.3.1", **answer.get("build", {})}
            if not _check and not built.get("failed"):
                self.installed.add(target)
            return built

        plugin._execute_module = execute
        plugin._make_tmp_path = lambda: "/tmp/x"
        plugin._connection._shell.tmpdir = None
        plugin._connection._shell.join_path = os.path.join
        plugin._transfer_file = mock.MagicMock()
        plugin._fixup_perms2 = mock.MagicMock()
        return dict(plugin.run(task_vars={"inventory_hostname": name, "groups": self.groups}))

    def volunteer(self, *names: str, **arguments: t.Any) -> t.Dict[str, t.Dict[str, t.Any]]:
        """Let hosts say what is missing there; return what each said."""
        return {name: self.run(name, build="never", **arguments)["missing"] for name in names}

    def cache(self) -> caching.Cache:
        """Return the controller's cache."""
        return caching.Cache(str(self.directory / "cache"), 1)

    def builds(self) -> t.List[str]:
        """Return the hosts that were told to build."""
        return [
            name
            for name, leaf, arguments in self.calls
            if (leaf, arguments.get("build")) == ("jemalloc", "now")
            and (arguments.get("pushed") or {}).get("kind") != "bundle"
        ]
