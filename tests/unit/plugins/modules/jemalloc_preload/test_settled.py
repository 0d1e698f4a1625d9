# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc says what jemalloc_preload would, where that one had nothing to do."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc as module
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _rendering as rendering
from tests.unit.plugins.modules.jemalloc_preload.test_jemalloc_preload import running

Call = t.Callable[..., t.Dict[str, t.Any]]
Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Any]]

WANTED = {"services": ["puma"], "exclude": ["cron"]}


@pytest.fixture
def look(call: Call, prefix: str) -> Call:
    """Run the module jemalloc as the role does, where 9.9.9 is wanted and there."""

    def run(_check: bool = False, version: str = "9.9.9", **scopes: t.Any) -> t.Dict[str, t.Any]:
        wanted = rendering.with_texts({"prefix": prefix, **scopes})
        return call(module, _check=_check, prefix=prefix, version=version, scopes=wanted)

    return run


@pytest.mark.parametrize("check", [True, False])
def test_nothing_is_left_to_do(
    look: Call, scopes: Call, root: pathlib.Path, prefix: str, snapshot: Snapshot, check: bool
) -> None:
    assert look(check, **WANTED)["scopes"] is None
    scopes(**WANTED)
    running(root, f"{prefix}/9.9.9/lib/libjemalloc.so.2")
    before = snapshot(root)
    found = look(check, **WANTED)
    assert not found["changed"]
    assert found["scopes"] == {key: value for key, value in scopes(**WANTED).items() if key in found["scopes"]}
    assert found["scopes"]["services"] == [
        {"name": "puma.service", "version": "9.9.9", "uid": None, "unit": "puma.service"}
    ]
    assert snapshot(root) == before


def test_something_is(look: Call, scopes: Call, root: pathlib.Path, prefix: str) -> None:
    scopes(**WANTED)
    running(root, f"{prefix}/9.9.8/lib/libjemalloc.so.2")
    assert look(**WANTED)["scopes"] is None  # puma has to be restarted
    running(root, f"{prefix}/9.9.9/lib/libjemalloc.so.2")
    assert look(**WANTED)["scopes"]
    assert look(services=["puma", "cron"])["scopes"] is None
    assert look(services=["puma", {"name": "sidekiq", "version": "9.9.7"}])["scopes"] is None  # which is not there
    assert look(services=["puma", "missing"])["scopes"] is None  # the error is for the other module to tell
    changed = look(version="9.9.8", **WANTED)
    assert changed["changed"]
    assert changed["scopes"] is None


def test_what_a_killed_run_left_is_for_the_other_module(look: Call, scopes: Call, root: pathlib.Path) -> None:
    scopes(**WANTED)
    pathlib.Path(changes.LOCK).write_text("killed")
    assert look(**WANTED)["scopes"] is None
    pathlib.Path(changes.LOCK).unlink()
    left = root / f"etc/.environment{files.TEMPORARY_SUFFIX}"
    left.write_text("")
    assert look(**WANTED)["scopes"] is None
    left.unlink()
    assert look(**WANTED)["scopes"]


def test_arguments_that_the_other_module_would_refuse(call: Call, root: pathlib.Path, prefix: str) -> None:
    found = call(module, prefix=prefix, version="9.9.9", scopes={"host": "perhaps", "prefix": prefix})
    assert found["failed"]
    assert found["msg"].startswith("scopes: argument 'host' is of type ")
    assert call(module, prefix=prefix, version="9.9.9")["scopes"] is None
