# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Atomic changes: the old state or the new one, modes whatever the umask is, and nothing left behind."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files


@pytest.fixture(params=[0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> t.Iterator[None]:
    """Run the test under the usual umask and under a strict one."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: pathlib.Path) -> int:
    """Return the permissions of a file."""
    return path.lstat().st_mode & 0o7777


def test_sha256(tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "large").write_bytes(b"a" * 1_000_000)
    assert files.sha256(str(tmp_path / "empty")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert files.sha256(str(tmp_path / "large")) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("permissions", [0o644, 0o755, 0o600])
def test_write_file(tmp_path: pathlib.Path, permissions: int) -> None:
    path = tmp_path / "file"
    for content in (b"one", b"", b"\xff\x00"):
        files.write_file(str(path), content, permissions)
        assert path.read_bytes() == content
        assert mode(path) == permissions
    assert os.listdir(str(tmp_path)) == ["file"]


def test_write_file_replaces_a_link_and_not_what_it_leads_to(tmp_path: pathlib.Path) -> None:
    (tmp_path / "target").write_text("kept")
    (tmp_path / "link").symlink_to("target")
    files.write_file(str(tmp_path / "link"), b"new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "kept"


def test_write_file_clears_what_a_killed_run_left(tmp_path: pathlib.Path) -> None:
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / f".file{files.TEMPORARY_SUFFIX}").symlink_to("elsewhere")
    files.write_file(str(tmp_path / "file"), b"new")
    assert sorted(os.listdir(str(tmp_path))) == ["elsewhere", "file"]
    assert (tmp_path / "elsewhere").read_text() == "kept"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_write_file_fails_as_a_whole(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    def fail(*_arguments: t.Any) -> None:
        raise error

    (tmp_path / "file").write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(type(error)):
            files.write_file(str(tmp_path / "file"), b"new")
    assert os.listdir(str(tmp_path)) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_read_text_waits_for_nobody(tmp_path: pathlib.Path) -> None:
    os.mkfifo(str(tmp_path / "pipe"))
    (tmp_path / "link").symlink_to("/dev/zero")
    assert [files.read_text(str(tmp_path / name)) for name in ("pipe", "link", "missing")] == ["", "", None]
    assert (files.read_text("/proc/self/status") or "").startswith("Name:")
    with pytest.raises(IsADirectoryError):
        files.read_text(str(tmp_path))


def test_replace_link(tmp_path: pathlib.Path) -> None:
    link = tmp_path / "link"
    for target in ("one", "two", "/absolute"):
        files.replace_link(str(link), target)
        assert os.readlink(str(link)) == target
    assert os.listdir(str(tmp_path)) == ["link"]


def test_replace_link_takes_the_place_of_a_file_but_not_of_a_directory(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    files.replace_link(str(tmp_path / "file"), "target")
    assert (tmp_path / "file").is_symlink()
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        files.replace_link(str(tmp_path / "directory"), "target")
    assert sorted(os.listdir(str(tmp_path))) == ["directory", "file"]


@pytest.mark.usefixtures("umask")
def test_sync_tree_makes_it_readable_for_everybody(tmp_path: pathlib.Path) -> None:
    top = tmp_path / "top"
    (top / "inner").mkdir(parents=True, mode=0o700)
    for name, permissions in (("plain", 0o600), ("inner/program", 0o700), ("inner/group", 0o4670)):
        (top / name).write_text("")
        (top / name).chmod(permissions)
    (top / "dangling").symlink_to("nowhere")
    (tmp_path / "outside").mkdir(mode=0o700)
    (top / "away").symlink_to("../outside")
    files.sync_tree(str(top))
    expected = {"": 0o755, "inner": 0o755, "plain": 0o644, "inner/program": 0o755, "inner/group": 0o644}
    assert {name: mode(top / name) for name in expected} == expected
    assert mode(tmp_path / "outside") == 0o700


def test_sync_tree_leaves_no_descriptor_open(tmp_path: pathlib.Path) -> None:
    (tmp_path / "plain").write_text("")
    before = os.listdir("/proc/self/fd")
    files.sync_tree(str(tmp_path))
    assert os.listdir("/proc/self/fd") == before


def test_remove_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    files.remove_file(str(tmp_path / "link"))
    files.remove_file(str(tmp_path / "link"))
    assert os.listdir(str(tmp_path)) == []


def test_remove_tree_takes_whatever_stands_there_and_follows_no_link(tmp_path: pathlib.Path) -> None:
    (tmp_path / "kept" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "file").write_text("")
    (tmp_path / "tree" / "inner").mkdir(parents=True)
    (tmp_path / "tree" / "link").symlink_to("../kept")
    for name in ("link", "file", "tree", "missing"):
        files.remove_tree(str(tmp_path / name))
    assert os.listdir(str(tmp_path)) == ["kept"]
    assert os.listdir(str(tmp_path / "kept")) == ["inner"]


@pytest.mark.parametrize("content", [b"", b"a\r\nb\rc\n", "ä\n".encode(), b"\xff\xfe\x80", "ä".encode("latin-1")])
def test_read_text_survives_a_round_trip(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    text = files.read_text(str(tmp_path / "file"))
    assert text is not None
    assert text.encode("utf-8", "surrogateescape") == content


def test_lock(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "lock"
    held = files.lock(str(path))
    assert held is not None
    assert files.lock(str(path)) is None
    os.close(held)
    again = files.lock(str(path))
    assert again is not None
    os.close(again)


def test_a_lock_that_is_given_back_by_removing_its_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flock = tmp_path / "lock", fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        path.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    assert files.lock(str(path)) is None


def test_a_lock_that_there_is_not(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int, _operation: int) -> t.NoReturn:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="No locks available") as caught:
        files.lock(str(tmp_path / "lock"))
    assert caught.value.filename == str(tmp_path / "lock")


def test_read_text_of_nothing(tmp_path: pathlib.Path) -> None:
    assert files.read_text(str(tmp_path / "missing")) is None


def test_exchange(tmp_path: pathlib.Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("")
    assert files.exchange(str(tmp_path / "one"), str(tmp_path / "other"))
    assert os.listdir(str(tmp_path / "one")) == ["other"]
    assert os.listdir(str(tmp_path / "other")) == ["one"]
    with pytest.raises(FileNotFoundError):
        files.exchange(str(tmp_path / "one"), str(tmp_path / "missing"))
    assert not files.exchange(str(tmp_path), str(tmp_path / "one"))  # EINVAL, as where a file system cannot


def test_exchange_without_renameat2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_arguments, **_options: object())
    assert not files.exchange("/a", "/b")


@pytest.mark.usefixtures("umask")
def test_make_directories(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: t.List[str] = []
    monkeypatch.setattr(files, "sync_directory", synced.append)
    deepest = tmp_path / "a" / "b" / "c"
    files.make_directories(str(tmp_path / "a"), 0o700)
    files.make_directories(str(deepest))
    files.make_directories(str(deepest))
    assert [mode(each) for each in (tmp_path / "a", deepest.parent, deepest)] == [0o700, 0o755, 0o755]
    assert synced == [str(tmp_path), str(tmp_path / "a"), str(deepest.parent)]


def test_a_directory_that_another_run_makes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = os.mkdir

    def second(path: str) -> None:
        make(path)
        make(path)

    monkeypatch.setattr(os, "mkdir", second)
    files.make_directories(str(tmp_path / "new"))
    assert (tmp_path / "new").is_dir()


def test_a_file_in_place_of_a_directory(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        files.make_directories(str(tmp_path / "file"))


def test_waiting_for_a_lock(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "lock")
    first = files.lock(path)
    assert first is not None
    second = files.wait_for_lock(path, 60, lambda: os.close(first))
    assert second is not None
    assert files.wait_for_lock(path, 0) is None
    os.close(second)
