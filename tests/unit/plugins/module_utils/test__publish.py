# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes to the store: one writer at a time, all or nothing."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.module_utils import _sandbox as sandbox
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

OPTIONS = {"cxx": False, "prof": False, "lg_page": None}
Install = t.Callable[..., None]


@pytest.fixture
def prefix(tmp_path: pathlib.Path) -> str:
    """Where a store can be; there is none yet."""
    return str(tmp_path / "store")


def damage(prefix: str) -> t.Tuple[str, t.Tuple[str, ...]]:
    """Return what is wrong with 5.9.0, and the wrappers that are not right."""
    found = store.read(prefix)
    return found.installations["5.9.0"].damage, found.stale_wrappers


def test_complete(prefix: str, tmp_path: pathlib.Path) -> None:
    tree = tmp_path / "tree"
    (tree / "lib").mkdir(parents=True)
    (tree / "lib" / "libjemalloc.so.2").write_text("library")
    publish.complete(str(tree), prefix, {"library": "libjemalloc.so.2", "x": "ä"})
    assert os.readlink(str(tree / "lib" / "libjemalloc.so")) == "libjemalloc.so.2"
    receipt = json.loads((tree / "receipt.json").read_text())
    assert receipt == {
        "library": "libjemalloc.so.2",
        "x": "ä",
        "files": {
            "lib/libjemalloc.so": "-> libjemalloc.so.2",
            "lib/libjemalloc.so.2": files.sha256(str(tree / "lib" / "libjemalloc.so.2")),
        },
    }
    publish.complete(str(tree), prefix, {"library": "libjemalloc.so.2"})
    assert sorted(json.loads((tree / "receipt.json").read_text())) == ["files", "library"]


def after(installations: t.List[str], current: t.Optional[str] = None, previous: t.Optional[str] = None) -> t.Any:
    """Return what a plan says of the store after it."""
    return {"installations": installations, "current": current, "previous": previous}


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_locked_makes_the_prefix_and_takes_it_away_again(prefix: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        with publish.locked(prefix):
            assert os.stat(prefix).st_mode & 0o777 == 0o755
            assert os.listdir(prefix) == [".lock"]
            staging = publish.stage(prefix)
            assert os.stat(staging).st_mode & 0o777 == 0o700
            assert os.stat(f"{prefix}/.staging").st_mode & 0o777 == 0o700
    finally:
        os.umask(before)
    assert not os.path.exists(prefix)


def test_locked_takes_the_prefix_away_when_the_block_fails(prefix: str) -> None:
    def fail() -> None:
        with publish.locked(prefix):
            publish.stage(prefix)
            raise JemallocError("no")

    with pytest.raises(JemallocError, match=r"^no$"):
        fail()
    assert not os.path.exists(prefix)


def test_locked_keeps_a_prefix_that_was_there(prefix: str) -> None:
    os.mkdir(prefix, 0o750)
    with publish.locked(prefix):
        publish.stage(prefix)
    assert os.listdir(prefix) == [".lock"]
    assert os.stat(prefix).st_mode & 0o777 == 0o750


def test_locked_keeps_a_prefix_in_which_something_was_made(prefix: str) -> None:
    with publish.locked(prefix):
        os.mkdir(f"{prefix}/5.9.0")
    assert sorted(os.listdir(prefix)) == [".lock", "5.9.0"]


def test_locked_clears_what_a_killed_run_left(prefix: str, installed: Install) -> None:
    installed(prefix, "5.9.0")
    os.makedirs(f"{prefix}/.staging/tmpx/root")
    left = [f"{prefix}/.current{files.TEMPORARY_SUFFIX}", f"{prefix}/5.9.0/bin/.jemalloc.sh{files.TEMPORARY_SUFFIX}"]
    for path in left:
        os.symlink("x", path)
    kept = [f"{prefix}/.notes", f"{prefix}/5.9.0/bin/x{files.TEMPORARY_SUFFIX}"]
    for path in kept:
        pathlib.Path(path).write_text("")
    with publish.locked(prefix):
        assert not any(os.path.lexists(path) for path in [*left, f"{prefix}/.staging"])
    assert all(os.path.exists(path) for path in kept)


HOLD = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_one_writer_at_a_time(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(prefix)
    monkeypatch.setattr(publish, "LOCK_TIMEOUT", -1)
    arguments = [sys.executable, "-I", "-c", HOLD, f"{prefix}/.lock"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        pathlib.Path(prefix, ".staging").mkdir()
        with pytest.raises(JemallocError) as caught, publish.locked(prefix):
            pytest.fail("it was let in")
        assert str(caught.value) == f"Another run has been writing to {prefix} for -1 s; wait for it to end."
        assert pathlib.Path(prefix, ".staging").exists()
        holder.kill()  # the kernel drops the lock of a killed process
        holder.wait()
        with publish.locked(prefix):
            assert not pathlib.Path(prefix, ".staging").exists()


def test_a_writer_waits(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(prefix)
    arguments = [sys.executable, "-I", "-c", HOLD, f"{prefix}/.lock"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        waits = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            holder.kill()
            holder.wait()

        monkeypatch.setattr(time, "sleep", sleep)
        with publish.locked(prefix):
            assert waits == [0.1]


def test_the_lock_of_a_prefix_that_was_removed_meanwhile_is_none(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one who had the lock took the whole store away, after we had opened its lock file."""
    flock, opened = fcntl.flock, os.open
    failures = iter([True, False, True])

    def late(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        if next(failures, False):
            shutil.rmtree(prefix)

    def early(path: str, *arguments: t.Any, **options: t.Any) -> int:
        if path.endswith(".lock") and not os.path.exists(f"{prefix}2"):
            os.mkdir(f"{prefix}2")
            shutil.rmtree(prefix)
        return opened(path, *arguments, **options)

    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(fcntl, "flock", late)
    monkeypatch.setattr(os, "open", early)
    with publish.locked(prefix):
        held = os.stat(f"{prefix}/.lock")
        assert held.st_nlink == 1
    assert not os.path.exists(prefix)


def test_a_prefix_that_was_made_for_nothing_goes(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def chmod(path: str, _mode: int) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), path)

    monkeypatch.setattr(os, "chmod", chmod)
    with pytest.raises(PermissionError), publish.locked(prefix):
        pytest.fail("it was let in")
    assert not os.path.exists(prefix)


def test_what_a_killed_build_still_does_is_ended(prefix: str) -> None:
    directory = pathlib.Path(prefix, ".staging", "tmp", "work")
    directory.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"], cwd=str(directory)) as build, subprocess.Popen(["cat"], stdin=-1) as other:
        with publish.locked(prefix):
            assert build.wait() == -signal.SIGKILL
            assert not directory.exists()
        assert other.poll() is None
        other.kill()


def test_leftovers_are_cleared_unless_somebody_works_there(prefix: str) -> None:
    staging = pathlib.Path(prefix, ".staging", "tmp")
    publish.clear_leftovers(prefix)
    assert not os.path.exists(prefix)
    os.mkdir(prefix)
    with publish.locked(prefix):
        staging.mkdir(parents=True)
        publish.clear_leftovers(prefix)
        assert staging.exists()
    staging.mkdir(parents=True)
    publish.clear_leftovers(prefix)
    assert os.listdir(prefix) == [".lock"]


def test_what_does_not_end(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pathlib.Path(prefix, ".staging", "tmp").mkdir(parents=True)
    monkeypatch.setattr(sandbox, "leftovers", lambda *_arguments, **_options: [2**22 + 1])  # more than a pid can be
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    with pytest.raises(JemallocError) as caught, publish.locked(prefix):
        pytest.fail("it was let in")
    assert str(caught.value) == f"Processes that work in {prefix}/.staging do not end: {2**22 + 1}; end them."


def test_an_error_takes_everything_back(prefix: str, installed: Install) -> None:
    for version in ("5.1.0", "5.2.0", "5.9.0"):
        installed(prefix, version, number=1)
        publish.switch(prefix, version, publish.Undo())
    before = {path: path.lstat().st_ino for path in pathlib.Path(prefix).rglob("*") if not path.is_symlink()}
    was = store.read(prefix)

    def fail() -> None:
        with publish.locked(prefix) as undo:
            for version in ("5.9.0", "5.10.0"):
                tree = f"{publish.stage(prefix)}/tree"
                shutil.copytree(f"{prefix}/5.1.0", tree, symlinks=True)
                publish.publish(prefix, tree, version, undo)
                publish.switch(prefix, version, undo)
            publish.remove(prefix, store.Plan({}, remove=("5.1.0", "5.2.0"), unlink=True), undo)
            assert list(store.read(prefix).installations) == ["5.10.0", "5.9.0"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.read(prefix) == was
    assert {path: path.lstat().st_ino for path in pathlib.Path(prefix).rglob("*") if not path.is_symlink()} == before


def test_an_error_without_a_way_back_is_the_one_that_is_reported(
    prefix: str, installed: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str, *_arguments: t.Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    def fail() -> None:
        with publish.locked(prefix) as undo:
            publish.switch(prefix, "5.9.0", undo)
            for module, name in ((os, "unlink"), (shutil, "rmtree")):
                monkeypatch.setattr(module, name, broken)
            raise ZeroDivisionError

    installed(prefix, "5.9.0")
    with pytest.raises(ZeroDivisionError):
        fail()


def test_a_file_system_without_locks(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    os.mkdir(prefix)
    monkeypatch.setattr(fcntl, "flock", flock)
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="No locks available"), publish.locked(prefix):
        pytest.fail("it was let in")
    assert os.listdir("/proc/self/fd") == descriptors


def test_a_lock_that_is_a_link_is_not_followed(prefix: str, tmp_path: pathlib.Path) -> None:
    os.mkdir(prefix)
    os.symlink(str(tmp_path / "victim"), f"{prefix}/.lock")
    with pytest.raises(OSError, match="Too many levels of symbolic links"), publish.locked(prefix):
        pytest.fail("it was let in")
    assert not (tmp_path / "victim").exists()


def test_publish_replaces_in_one_step(prefix: str, installed: Install) -> None:
    installed(prefix, "5.9.0", number=1)
    installed(prefix, "5.9.0", number=2)
    assert store.read(prefix).installations["5.9.0"].receipt["number"] == 2
    assert sorted(os.listdir(prefix)) == [".lock", "5.9.0"]


def test_publish_where_that_cannot_be(prefix: str, installed: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(prefix, "5.9.0", number=1)
    monkeypatch.setattr(files, "exchange", lambda _one, _other: False)
    with pytest.raises(JemallocError) as caught:
        installed(prefix, "5.9.0", number=2)
    assert str(caught.value) == (
        f"The file system of {prefix} cannot swap two directories, so {prefix}/5.9.0 cannot be replaced safely; remove "
        "that release first (state: absent, version: 5.9.0) or install another one."
    )
    assert store.read(prefix).installations["5.9.0"].receipt["number"] == 1


@pytest.mark.parametrize("exchanges", [True, False])
def test_switch(prefix: str, installed: Install, monkeypatch: pytest.MonkeyPatch, exchanges: bool) -> None:
    if not exchanges:
        monkeypatch.setattr(files, "exchange", lambda _one, _other: False)
    for version in ("5.1.0", "5.9.0"):
        installed(prefix, version)
    publish.switch(prefix, "5.1.0", publish.Undo())
    assert store.read(prefix).describe() == after(["5.1.0", "5.9.0"], "5.1.0")
    publish.switch(prefix, "5.9.0", publish.Undo())
    assert store.read(prefix).describe() == after(["5.1.0", "5.9.0"], "5.9.0", "5.1.0")
    shutil.rmtree(f"{prefix}/5.9.0")
    publish.switch(prefix, "5.1.0", publish.Undo())
    assert store.read(prefix).describe() == after(["5.1.0"], "5.1.0", "5.1.0")


def remove(prefix: str, version: t.Optional[str]) -> None:
    """Remove as the module does."""
    with publish.locked(prefix):
        publish.remove(prefix, store.plan_absent(store.read(prefix), version), publish.Undo())


def test_remove(prefix: str, installed: Install) -> None:
    for version in ("5.1.0", "5.2.0", "5.9.0"):
        installed(prefix, version)
        publish.switch(prefix, version, publish.Undo())
    remove(prefix, "5.2.0")
    assert store.read(prefix).describe() == after(["5.1.0", "5.9.0"], "5.9.0")
    assert sorted(os.listdir(prefix)) == [".lock", "5.1.0", "5.9.0", "current"]
    remove(prefix, None)
    assert not os.path.exists(prefix)


def test_remove_leaves_what_is_foreign(prefix: str, installed: Install) -> None:
    installed(prefix, "5.9.0")
    publish.switch(prefix, "5.9.0", publish.Undo())
    os.mkdir(f"{prefix}/5.1.0")
    remove(prefix, None)
    assert [name for name in sorted(os.listdir(prefix)) if name != ".lock"] == ["5.1.0"]


def test_remove_a_prefix_that_gets_something_foreign_meanwhile(prefix: str, installed: Install) -> None:
    installed(prefix, "5.9.0")
    plan = store.plan_absent(store.read(prefix), None)
    with publish.locked(prefix):
        os.mkdir(f"{prefix}/new")
        publish.remove(prefix, plan, publish.Undo())
    assert os.listdir(prefix) == ["new"]


@pytest.mark.parametrize(("number", "gone"), [(errno.EXDEV, True), (errno.EACCES, False)])
def test_remove_from_a_lower_layer(
    prefix: str, installed: Install, monkeypatch: pytest.MonkeyPatch, number: int, gone: bool
) -> None:
    def rename(one: str, _other: str) -> None:
        raise OSError(number, os.strerror(number), one)

    installed(prefix, "5.9.0")
    monkeypatch.setattr(os, "rename", rename)
    if gone:
        remove(prefix, "5.9.0")
        assert not os.path.exists(prefix)
        return
    with pytest.raises(PermissionError):
        remove(prefix, "5.9.0")
    assert damage(prefix) == ("", ())
