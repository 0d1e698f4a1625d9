# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several files as one: all changes or none, whatever fails, and nothing left behind."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import signal
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
    [("replace", 1), ("rename", 5), ("link", 2), ("symlink", 1), ("fsync", 10), ("open", 10), ("mkdir", 2)],
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
with _changes.locked() as lock:
    print(lock.killed, flush=True)
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
    for _run in range(2):  # the mark of a killed run stays until a run recovers
        with module.locked() as held:
            assert held.killed == (end == "killed")
            assert module.is_taken()
        assert module.is_taken() == (end == "killed")
    with contextlib.suppress(KeyboardInterrupt), module.locked(recovers=True):
        raise KeyboardInterrupt
    with module.locked(recovers=True) as held:
        assert held.killed == (end == "killed")
    assert lock.read_text() == ""
    holder.wait()
    holder.stdout.close()
    with module.locked() as held:
        assert not held.killed


def test_a_lock_that_somebody_removed_is_not_held(lock: pathlib.Path) -> None:
    assert not module.is_taken()
    with module.locked() as held:
        assert held.is_held()
        lock.unlink()
        assert not held.is_held()
        with module.locked() as other:
            assert other.is_held()
            assert not held.is_held()


STOPPED = """
import os, signal, sys, time
from ansible_collections.preload.jemalloc.plugins.module_utils import _changes, _fence
_changes.LOCK = sys.argv[1]
with _changes.locked() as lock:
    start = _fence.start_of(os.getpid())
    lock.name_watchdog(os.getpid(), start if sys.argv[3] == "itself" else "1", _fence.now() + float(sys.argv[2]))
    print(flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.mark.parametrize(
    ("over", "named", "ends"), [("-1", "itself", True), ("60", "itself", False), ("-1", "", False)]
)
def test_a_stopped_watchdog_whose_time_is_over_is_ended(lock: pathlib.Path, over: str, named: str, ends: bool) -> None:
    command = [sys.executable, "-c", STOPPED, str(lock), over, named]
    stopped = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert stopped.stdout
    stopped.stdout.readline()
    while "T (stopped)" not in pathlib.Path(f"/proc/{stopped.pid}/status").read_text():
        pass
    with contextlib.suppress(JemallocError), module.locked(timeout=60 if ends else 0.3) as held:
        assert ends
        assert held.killed
    assert stopped.poll() == (-signal.SIGKILL if ends else None)
    stopped.kill()
    stopped.communicate()


def test_only_root_keeps_scopes(lock: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for user in (0, 1000):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        with module.scopes_kept():
            assert module.is_taken() == (user == 0)


def test_what_another_wrote_meanwhile_is_not_overwritten(top: pathlib.Path) -> None:
    change = Change(str(top / "gone"), "other", "new")
    with pytest.raises(JemallocError) as caught:
        module.apply([Change(str(top / "new"), None, "new"), change])
    assert str(caught.value) == (
        f"{top}/gone: changed since by another run, or by hand, after this run had read it; all files are as before."
    )
    assert (top / "gone").read_text() == "old"
    assert not (top / "new").exists()
    assert sorted(os.listdir(str(top))) == ["alone.service.d", "bin", "environment", "gone", "shared.service.d"]


def test_what_another_made_already_is_neither_made_nor_rolled_back(top: pathlib.Path) -> None:
    fail_in([Change(str(top / "gone"), None, "old")], lambda: None)
    assert (top / "gone").read_text() == "old"


def test_what_another_wrote_since_is_not_rolled_back(top: pathlib.Path) -> None:
    def fail() -> None:
        with module.applied(changes(top)):
            (top / "environment").write_text("another's")
            (top / "fresh.service.d" / module.DROP_IN).write_text("another's")
            raise JemallocError("It fails.")

    with pytest.raises(JemallocError) as caught:
        fail()
    drop_in = top / "fresh.service.d" / module.DROP_IN
    assert str(caught.value) == (
        f"It fails. {drop_in}, {top}/environment: changed since by another run, or by hand; left as it is."
    )
    assert drop_in.read_text() == (top / "environment").read_text() == "another's"
    assert (top / "gone").read_text() == "old"


def test_the_check_comes_last(top: pathlib.Path) -> None:
    before = picture(top)

    def check() -> t.NoReturn:
        raise JemallocError("It is too late.")

    for change in changes(top):
        with pytest.raises(JemallocError), module.applied([change], check):
            pass
    assert picture(top) == before


def test_the_directory_in_which_a_drop_in_appears_is_synced(top: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []

    def sync(path: str) -> None:
        synced.append((path, (top / "units" / "fresh.service.d").exists()))

    monkeypatch.setattr(files, "sync_directory", sync)
    drop_in = top / "units" / "fresh.service.d" / module.DROP_IN
    module.apply([Change(str(drop_in), None, "fresh")])
    units = str(top / "units")
    assert synced == [(str(top), False), (units, False), (str(drop_in.parent), True), (units, True)]
    synced.clear()
    module.apply([Change(str(drop_in), "fresh", None)])
    assert synced == [(units, False)]
