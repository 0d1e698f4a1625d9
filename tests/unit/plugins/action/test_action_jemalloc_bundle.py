# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles on the controller: the archive, the list of digests, and whether anything changes."""

from __future__ import annotations

import base64
import hashlib
import pathlib
import typing as t
from unittest import mock

import pytest

from ansible_collections.preload.jemalloc.plugins.action import jemalloc_bundle as action
from tests.unit import packed


def listed(name: str, data: bytes) -> str:
    """Return a line of the list of digests."""
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n"


def test_keep(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "dist" / "x86_64-glibc2.34"
    for check in (True, False):
        assert action.keep(str(directory), "b.tar.gz", b"1", check)
        assert directory.exists() is not check
    assert action.keep(str(directory), "a.tar.gz", b"2", False)
    for check in (True, False):
        assert not action.keep(str(directory), "b.tar.gz", b"1", check)
    sums = directory / "SHA256SUMS"
    assert sums.read_text() == listed("a.tar.gz", b"2") + listed("b.tar.gz", b"1")
    assert action.keep(str(directory), "a.tar.gz", b"3", False)
    assert sums.read_text() == listed("a.tar.gz", b"3") + listed("b.tar.gz", b"1")
    for spoil in (sums.unlink, lambda: (directory / "a.tar.gz").write_bytes(b"4")):
        spoil()
        assert action.keep(str(directory), "a.tar.gz", b"3", True)
        assert action.keep(str(directory), "a.tar.gz", b"3", False)
    assert sorted(path.name for path in directory.iterdir()) == ["SHA256SUMS", "a.tar.gz", "b.tar.gz"]


def run(
    monkeypatch: pytest.MonkeyPatch, dist: pathlib.Path, done: t.Dict[str, t.Any], check: bool = False
) -> t.Dict[str, t.Any]:
    """Run the action with a module that answers so."""
    monkeypatch.setattr(action.ActionModule, "_execute_module", lambda _self, **_arguments: dict(done))
    task = mock.MagicMock(args={"dist": str(dist), "cache": str(dist.parent / "cache")}, async_val=0, check_mode=check)
    plugin = action.ActionModule(task, mock.MagicMock(), mock.MagicMock(), mock.MagicMock(), mock.MagicMock(), None)
    return dict(plugin.run(task_vars={}))


DATA = packed.bundle()
PACKED = {
    "changed": False,
    "version": "5.3.1",
    "platform": "x86_64-musl",
    "receipt": {"release": "5.3.1", "source": {}, "platform": {}, "options": {}},
    "sha256": hashlib.sha256(DATA).hexdigest(),
    "content": base64.b64encode(DATA).decode("ascii"),
}


def test_the_action(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for changed in (True, False):
        result = run(monkeypatch, tmp_path, PACKED)
        assert (result["changed"], "content" in result) == (changed, False)
        assert pathlib.Path(result["path"]) == tmp_path / "x86_64-musl" / "jemalloc-5.3.1.tar.gz"
        assert pathlib.Path(result["path"]).read_bytes() == DATA


def test_the_module_failed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, tmp_path, {"failed": True, "msg": "no"})
    assert (result["failed"], result["msg"]) == (True, "no")
    assert list(tmp_path.iterdir()) == []


def test_dist_is_a_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dist").write_text("")
    result = run(monkeypatch, tmp_path / "dist", PACKED)
    assert result["failed"]
    assert (
        result["msg"]
        == f"dist: {tmp_path}/dist/x86_64-musl: Not a directory; name a path that the controller can write to."
    )


def test_check_mode_keeps_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, tmp_path / "dist", PACKED, check=True)["changed"]
    assert list(tmp_path.iterdir()) == []


def test_the_cache_is_a_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("")
    result = run(monkeypatch, tmp_path / "dist", PACKED)
    assert result["failed"]
    assert result["msg"].startswith(f"cache: {tmp_path}/cache/sources: Not a directory; name a path")
    assert not (tmp_path / "dist").exists()
