# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory of another user: whose links are followed, and what may stand under the name of a file of ours."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _untrusted as untrusted
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

OTHER = 65533


@pytest.fixture
def top(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory with a file in it."""
    directory = tmp_path / "top"
    directory.mkdir(0o755)
    (directory / "file").write_text("old")
    return directory


def names(path: pathlib.Path) -> t.List[str]:
    """Return the names in the directory that a path leads to."""
    with untrusted.Directory(str(path)) as directory:
        return os.listdir(directory._descriptor)


@pytest.mark.parametrize("target", ["top", "./top", "../{}/top", "{}/top", "again"])
def test_links_of_root_are_followed(tmp_path: pathlib.Path, top: pathlib.Path, target: str) -> None:
    (tmp_path / "again").symlink_to("top")
    absolute = str(tmp_path) if target.startswith("{") else tmp_path.name
    (tmp_path / "link").symlink_to(target.format(absolute))
    assert names(tmp_path / "link") == ["file"]
    assert names(tmp_path / "link" / ".." / "top") == ["file"]


def test_too_many_links(tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(JemallocError, match="too many links lead to it; name the directory itself"):
        untrusted.Directory(str(tmp_path / "link"))


@pytest.mark.parametrize("how", ["in a directory for all", "in a directory of another user", "made by another user"])
def test_links_of_others_are_not(
    tmp_path: pathlib.Path, top: pathlib.Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    around = tmp_path / "around"
    around.mkdir(0o755)
    (around / "link").symlink_to(top)
    if how == "in a directory for all":
        around.chmod(0o1777)
    elif os.geteuid() == 0:
        os.lchown(str(around if "in" in how else around / "link"), OTHER, OTHER)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    path = str(around / "link")
    with pytest.raises(JemallocError) as caught:
        untrusted.Directory(path)
    assert str(caught.value) == (
        f"{path}: link in it is a link, and a user other than root may have made it, so nothing is read or written "
        "there; name the directory that it leads to, or remove the link."
    )


@pytest.mark.parametrize("path", ["missing", "file", "file/below"])
def test_what_is_no_directory(top: pathlib.Path, path: str) -> None:
    with pytest.raises(OSError, match=r"No such file|Not a directory") as caught:
        untrusted.Directory(str(top / path))
    assert caught.value.filename == str(top / path)


def test_it_stays_the_same_directory(tmp_path: pathlib.Path, top: pathlib.Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with untrusted.Directory(str(top)) as directory:
        top.rename(tmp_path / "moved")
        top.symlink_to(elsewhere)
        directory.replace("file", b"new")
        directory.replace("other", b"")
        directory.remove("other")
    assert os.listdir(str(elsewhere)) == []
    assert os.listdir(str(tmp_path / "moved")) == ["file"]


@pytest.mark.parametrize("what", ["file", "nothing", "link", "pipe"])
def test_replace(top: pathlib.Path, what: str) -> None:
    path, target = top / "file", top.parent / "target"
    target.write_text("kept")
    if what != "file":
        path.unlink()
    if what == "link":
        path.symlink_to(target)
    elif what == "pipe":
        os.mkfifo(str(path))
    (top / ".file.preload-jemalloc").symlink_to(target)
    with untrusted.Directory(str(top)) as directory:
        before = directory.identity("file")
        assert (before is None) is (what == "nothing")
        assert directory.read("file", 100) == (b"old" if what == "file" else b"")
        old_umask = os.umask(0o077)
        try:
            directory.replace("file", b"new")
        finally:
            os.umask(old_umask)
        assert directory.identity("file") not in (None, before)
        assert directory.read("file", 2) == b"ne"
    assert path.stat().st_mode & 0o777 == 0o644
    assert sorted(os.listdir(str(top))) == ["file"]
    assert target.read_text() == "kept"


def test_a_directory_in_the_place_of_a_file(top: pathlib.Path) -> None:
    (top / "file").unlink()
    (top / "file").mkdir()
    with untrusted.Directory(str(top)) as directory:
        assert directory.identity("file") is None
        with pytest.raises(IsADirectoryError) as caught:
            directory.replace("file", b"new")
    assert caught.value.filename == str(top / "file")
    assert os.listdir(str(top)) == ["file"]


def test_what_a_killed_run_left(top: pathlib.Path) -> None:
    (top / ".file.preload-jemalloc").write_text("left")
    with untrusted.Directory(str(top)) as directory:
        for _time in range(2):
            directory.clear("file")
            directory.remove("missing")
    assert os.listdir(str(top)) == ["file"]
