# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several files as one: all changes or none, whatever fails, and nothing left behind."""

from __future__ import annotations

import errno
import os
import pathlib
import stat
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as module
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils._changes import Change
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

Picture = t.Dict[str, t.Tuple[int, int, t.Union[str, bytes]]]


@pytest.fixture
def top(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory with what the changes are about."""
    top = tmp_path / "top"
    for name in ("alone.service.d", "shared.service.d", "bin"):
        (top / name).mkdir(parents=True)
    for name in ("alone.service.d", "shared.service.d"):
        (top / name / module.DROP_IN).write_text("old\n")
    (top / "shared.service.d" / "own.conf").write_text("foreign\n")
    (top / "environment").write_bytes(b"\xff\r\n\0")
    (top / "environment").chmod(0o640)
    (top / "gone").write_text("old")
    (top / "bin" / "link").symlink_to("nowhere")
    return top


def changes(top: pathlib.Path) -> t.List[Change]:
    """Return one change of each kind."""

    def drop_in(name: str) -> str:
        return str(top / f"{name}.service.d" / module.DROP_IN)

    return [
        Change(str(top / "environment"), "\udcff\r\n\0", "\udcff\r\n\0more"),
        Change(str(top / "new"), None, "new", mode=0o755),
        Change(str(top / "gone"), "old", None),
        Change(str(top / "bin" / "link"), "nowhere", None, link=True),
        Change(str(top / "bin" / "other"), None, "somewhere", link=True),
        Change(str(top / "made" / "below" / "file"), None, "x"),
        Change(drop_in("fresh"), None, "fresh"),
        Change(drop_in("alone"), "old\n", None),
        Change(drop_in("shared"), "old\n", None),
    ]


def picture(top: pathlib.Path) -> Picture:
    """Return all files and links, and the directories of drop-ins, with modes and owners."""
    found: Picture = {}
    for path in top.rglob("*"):
        status = path.lstat()
        if path.is_symlink() or path.is_file() or path.name.endswith(".d"):
            content = os.readlink(str(path)) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
            found[str(path.relative_to(top))] = status.st_mode, status.st_uid, content
    return found


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_apply(top: pathlib.Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        module.apply(changes(top))
    finally:
        os.umask(before)
    found = picture(top)
    owner = os.geteuid()
    file, link, directory = stat.S_IFREG, stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755
    assert found == {
        "environment": (file | 0o640, owner, b"\xff\r\n\0more"),
        "new": (file | 0o755, owner, b"new"),
        "bin/other": (link, owner, "somewhere"),
        "made/below/file": (file | 0o644, owner, b"x"),
        "fresh.service.d": (directory, owner, b""),
        f"fresh.service.d/{module.DROP_IN}": (file | 0o644, owner, b"fresh"),
        "shared.service.d": (found["shared.service.d"][0], owner, b""),
        "shared.service.d/own.conf": (found["shared.service.d/own.conf"][0], owner, b"foreign\n"),
    }
    assert stat.S_IMODE((top / "made" / "below").stat().st_mode) == 0o755


def test_the_owner_stays(top: pathlib.Path) -> None:
    if os.geteuid() == 0:
        os.chown(str(top / "environment"), 12345, 54321)
    before = (top / "environment").stat()
    module.apply(changes(top))
    after = (top / "environment").stat()
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


def fail_in(wanted: t.Sequence[Change], look: t.Callable[[], t.Any]) -> None:
    """Make changes around a block that looks at them, and fails."""

    def block() -> None:
        with module.applied(wanted):
            look()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        block()


def test_what_is_a_link_is_one_again(top: pathlib.Path) -> None:
    (top / "target").write_text("kept")
    (top / "link").symlink_to("target")

    def look() -> None:
        assert not (top / "link").is_symlink()
        assert (top / "link").read_text() == "new"

    fail_in([Change(str(top / "link"), "kept", "new")], look)
    assert os.readlink(str(top / "link")) == "target"
    assert (top / "target").read_text() == "kept"


def test_a_block_that_fails_takes_everything_back(top: pathlib.Path) -> None:
    before = picture(top)
    inode = (top / "environment").stat().st_ino
    fail_in(changes(top), (top / "fresh.service.d" / module.DROP_IN).read_text)
    assert picture(top) == before
    assert (top / "environment").stat().st_ino == inode  # the very file, which takes no space to come back


def failing_at(step: int, real: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    """Return a function that fails the given time it is called, and otherwise does what the real one does."""
    calls = iter(range(1, 999))

    def call(*arguments: t.Any, **options: t.Any) -> t.Any:
        if next(calls) == step:
            raise OSError(errno.EIO, "Input/output error")
        return real(*arguments, **options)

    return call


def attempt(wanted: t.Sequence[Change]) -> t.Optional[str]:
    """Make changes; return the file that an error is about, None when there is none."""
    try:
        module.apply(wanted)
    except OSError as error:
        return str(error.filename)
    return None


@pytest.mark.parametrize(
    ("call", "least"),
    [("replace", 1), ("rename", 5), ("link", 2), ("symlink", 1), ("fsync", 10), ("open", 10), ("makedirs", 2)],
)
def test_a_failing_system_call_leaves_everything_as_it_was(
    top: pathlib.Path, monkeypatch: pytest.MonkeyPatch, call: str, least: int
) -> None:
    before = picture(top)
    for step in range(1, 99):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing_at(step, getattr(os, call)))
            named = attempt(changes(top))
        if named is None:
            break
        assert named.startswith(str(top))
        assert not named.endswith(files.TEMPORARY_SUFFIX)
        assert picture(top) == before
    assert step > least
    assert (top / "fresh.service.d").exists()


def test_what_cannot_be_cleared_is_left_to_the_next_run(top: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", failing_at(4, os.unlink))  # both names are cleared before and afterwards
        module.apply([Change(str(top / "gone"), "old", "new")])
    assert (top / "gone").read_text() == "new"
    kept = top / f".gone.kept{files.TEMPORARY_SUFFIX}"
    assert kept.read_text() == "old"
    module.apply([Change(str(top / "gone"), "new", "newer")])
    assert not kept.exists()


def test_what_cannot_be_brought_back_is_said(top: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: t.Any) -> t.NoReturn:
        raise OSError(errno.EROFS, "Read-only file system")

    with pytest.raises(JemallocError) as caught:
        fail_in([Change(str(top / "gone"), "old", "new")], lambda: monkeypatch.setattr(os, "replace", fail))
    assert str(caught.value) == (
        f"{top}/gone: Read-only file system, and it cannot be brought back to what it was; run this again."
    )


def test_what_somebody_removed_meanwhile_is_no_fault(top: pathlib.Path) -> None:
    (top / "gone").unlink()
    module.apply([Change(str(top / "gone"), "old", None)])
    assert not (top / "gone").exists()


KILLED = """
import os, sys
from ansible_collections.preload.jemalloc.plugins.module_utils._changes import Change, applied
with applied([Change(sys.argv[1], sys.argv[2] or None, "on trial")]):
    os._exit(9)
"""


@pytest.mark.parametrize("before", [None, "old"])
def test_a_trial_that_nobody_finished(tmp_path: pathlib.Path, before: t.Optional[str]) -> None:
    path = tmp_path / "list"
    if before:
        path.write_text(before)
    subprocess.run([sys.executable, "-c", KILLED, str(path), before or ""], check=False)
    assert path.read_text() == "on trial"
    module.take_back_trial(str(path))
    assert (path.read_text() if path.exists() else None) == before
    module.take_back_trial(str(path))
    assert (path.read_text() if path.exists() else None) == before


def test_what_was_not_on_trial_stays(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "list"
    path.write_text("mine")
    (tmp_path / f".list{files.TEMPORARY_SUFFIX}").write_text("prepared, no more")
    module.take_back_trial(str(path))
    assert path.read_text() == "mine"


HOLDER = """
import os, sys, time
from ansible_collections.preload.jemalloc.plugins.module_utils import _changes
_changes.LOCK = sys.argv[1]
with _changes.locked() as killed:
    print(killed, flush=True)
    sys.stdin.read()
    os._exit(9) if sys.argv[2] == "killed" else None
"""


@pytest.fixture
def lock(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The lock."""
    monkeypatch.setattr(module, "LOCK", str(tmp_path / "lock"))
    return tmp_path / "lock"


@pytest.mark.parametrize("end", ["killed", "well"])
def test_one_run_at_a_time_and_the_next_knows_how_it_ended(lock: pathlib.Path, end: str) -> None:
    command = [sys.executable, "-c", HOLDER, str(lock), end]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin
    assert holder.stdout
    assert holder.stdout.readline() == "False\n"
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    with pytest.raises(JemallocError) as caught, module.locked(timeout=0.15):
        pass
    assert str(caught.value) == "Another run has been changing who preloads for 0.15 s; wait for it to end."
    holder.stdin.close()
    with module.locked() as killed:
        assert killed == (end == "killed")
    assert not lock.exists()
    holder.wait()
    holder.stdout.close()
    with module.locked() as killed:
        assert not killed
