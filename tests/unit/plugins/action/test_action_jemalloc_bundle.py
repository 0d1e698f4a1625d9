# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles on the controller: the archive, the list of digests, and whether anything changes."""

from __future__ import annotations

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
    monkeypatch: pytest.MonkeyPatch,
    dist: pathlib.Path,
    done: t.Dict[str, t.Any],
    check: bool = False,
    **arguments: t.Any,
) -> t.Dict[str, t.Any]:
    """Run the action with a module that answers so."""
    monkeypatch.setattr(action.ActionModule, "_execute_module", lambda _self, **_arguments: dict(done))
    given = {"dist": str(dist), "cache": str(dist.parent / "cache"), **arguments}
    task = mock.MagicMock(args=given, async_val=0, check_mode=check, delegate_to=None)
    plugin = action.ActionModule(task, mock.MagicMock(), mock.MagicMock(), mock.MagicMock(), mock.MagicMock(), None)
    return dict(plugin.run(task_vars={"inventory_hostname": "web1"}))


DATA = packed.bundle(platform=packed.platform(libc="musl", libc_lowest=""))
PACKED = packed.answer(DATA)


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


REFUSED = "web1: the answer of its module jemalloc_bundle is refused, "


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"platform": "../victim/newdir"}, "platform is not of the form that it has to have"),
        ({"platform": "/srv/victim"}, "platform is not of the form that it has to have"),
        ({"platform": "x86_64-glibc2.34"}, "platform is not that of the bundle in content"),
        ({"version": "../../5.3.1"}, "version is not of the form that it has to have"),
        ({"version": "5.3.0"}, "version is not that of the bundle in content"),
        ({"sha256": "0" * 64}, "sha256 is not that of the bundle in content"),
        ({"receipt": packed.answer(packed.bundle())["receipt"]}, "receipt is not that of the bundle in content"),
        ({"receipt": {}}, "receipt is not that of the bundle in content"),
        ({"content": None}, "content is no text for at most 16 MiB"),
        ({"content": "\x1b[2J"}, "content is not in Base64"),
        ({"content": "é"}, "content is not in Base64"),
        (
            {"content": ""},
            "content is no bundle of this collection (The bundle is refused: it is not packed by bzip2, ",
        ),
        ({"changed": "yes"}, "changed is not of the form that it has to have"),
    ],
)
def test_an_answer_that_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, change: t.Dict[str, t.Any], wrong: str
) -> None:
    result = run(monkeypatch, tmp_path / "dist", {**PACKED, **change})
    assert (result["failed"], set(result)) == (True, {"failed", "msg"})
    assert result["msg"].startswith(f"{REFUSED}{wrong}")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_of_another_release_than_asked_for(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, tmp_path / "dist", PACKED, version="5.3.0")
    assert result["msg"].startswith(f"{REFUSED}version is not what this task asks for. Nothing of it was used. ")
    assert list(tmp_path.iterdir()) == []
    assert run(monkeypatch, tmp_path / "dist", PACKED, version="5.3.1")["changed"]
