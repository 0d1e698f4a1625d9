# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store: reading, planning, one writer at a time, and killed writers."""

from __future__ import annotations

import dataclasses
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
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _wrapper as wrapper
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

OPTIONS = {"cxx": False, "prof": False, "lg_page": None}

Install = t.Callable[..., None]


@pytest.fixture
def prefix(tmp_path: pathlib.Path) -> str:
    """Where a store can be; there is none yet."""
    return str(tmp_path / "store")


@pytest.mark.parametrize(
    ("prefix", "expected"), [("/opt/", "/opt"), ("/tmp", "/tmp"), ("/nonexistent-1_2.3+4@5", "/nonexistent-1_2.3+4@5")]
)
def test_check_prefix(prefix: str, expected: str) -> None:
    assert store.check_prefix(prefix) == expected


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "/",
        "//",
        "opt",
        "/opt/a b",
        "/opt/a:b",
        "/opt/%i",
        "/opt/a'b",
        "/o\\pt",
        "/opt/..",
        "/opt/./a",
        "/ä",
        "/a\n",
    ],
)
def test_check_prefix_that_cannot_be(prefix: str) -> None:
    with pytest.raises(JemallocError) as caught:
        store.check_prefix(prefix)
    assert str(caught.value) == (
        f"prefix: {prefix.rstrip('/') or '/'!r} cannot hold the store; name an absolute path of letters, digits and "
        "._+@- such as /opt/jemalloc."
    )


@pytest.mark.parametrize("link", [True, False])
def test_check_prefix_that_is_no_directory(tmp_path: pathlib.Path, link: bool) -> None:
    path = tmp_path / "store"
    if link:
        path.symlink_to("nowhere")
    else:
        path.write_text("")
    with pytest.raises(JemallocError) as caught:
        store.check_prefix(str(path))
    assert str(caught.value) == (
        f"prefix: {path} is there and is not a directory; move it away or name another prefix."
    )


def test_check_prefix_without_parent(tmp_path: pathlib.Path) -> None:
    with pytest.raises(JemallocError) as caught:
        store.check_prefix(f"{tmp_path}/a/b/")
    assert str(caught.value) == (
        f"prefix: {tmp_path}/a is not a directory; make it, or name another prefix than {tmp_path}/a/b."
    )


def test_read_nothing(prefix: str) -> None:
    assert store.read(prefix) == store.Store(prefix)
    os.mkdir(prefix)
    assert store.read(prefix) == store.Store(prefix, exists=True)


def test_read(prefix: str, installed: Install) -> None:
    for version in ("5.10.0", "5.9.0"):
        installed(prefix, version)
    publish.switch(prefix, "5.9.0", publish.Undo())
    publish.switch(prefix, "5.10.0", publish.Undo())
    for name in ("5.1.0", "notes", "5.1"):
        os.mkdir(f"{prefix}/{name}")
    os.symlink("5.9.0", f"{prefix}/5.2.0")
    pathlib.Path(prefix, "5.3.0").write_text("a file")
    pathlib.Path(prefix, f".current{files.TEMPORARY_SUFFIX}").symlink_to("x")
    os.makedirs(f"{prefix}/5.4.0/receipt.json")
    found = store.read(prefix)
    assert found.describe() == {"installations": ["5.9.0", "5.10.0"], "current": "5.10.0", "previous": "5.9.0"}
    assert found.foreign == ("5.1", "5.1.0", "5.2.0", "5.3.0", "5.4.0", "notes")
    assert found.exists
    assert not found.stale_wrappers
    assert not any(installation.damage for installation in found.installations.values())


def damage(prefix: str) -> t.Tuple[str, t.Tuple[str, ...]]:
    """Return what is wrong with 5.9.0, and the wrappers that are not right."""
    found = store.read(prefix)
    return found.installations["5.9.0"].damage, found.stale_wrappers


def test_damage(prefix: str, installed: Install) -> None:
    installed(prefix, "5.9.0")
    top = pathlib.Path(prefix, "5.9.0")
    assert damage(prefix) == ("", ())
    (top / "lib" / "libjemalloc.so.2").write_bytes(b"x")
    assert damage(prefix) == ("lib/libjemalloc.so.2 is not what its receipt says", ())
    (top / "lib" / "libjemalloc.so.2").unlink()
    assert damage(prefix) == ("lib/libjemalloc.so.2 is not what its receipt says", ())
    installed(prefix, "5.9.0")
    (top / "extra").write_text("")
    assert damage(prefix) == ("extra is not what its receipt says", ())
    (top / "extra").unlink()
    files.replace_link(str(top / "lib" / "libjemalloc.so"), "/elsewhere.so")
    assert damage(prefix) == ("lib/libjemalloc.so is not what its receipt says", ())


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "null", '{"files": 5}', '{"files": ["ab", 3]}', "\udcff", "1" * 5000]
)
def test_a_receipt_that_cannot_be_read(prefix: str, installed: Install, text: str) -> None:
    installed(prefix, "5.9.0")
    pathlib.Path(prefix, "5.9.0", "receipt.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert damage(prefix) == ("its receipt cannot be read", ())


def test_a_wrapper_of_another_time_is_no_damage(prefix: str, installed: Install) -> None:
    installed(prefix, "5.9.0")
    path = pathlib.Path(prefix, "5.9.0", "bin", "jemalloc.sh")
    path.write_text("old")
    assert damage(prefix) == ("", ("5.9.0",))
    shutil.rmtree(str(path.parent))
    assert damage(prefix) == ("", ("5.9.0",))
    publish.write_wrappers(f"{prefix}/5.9.0", prefix)
    assert damage(prefix) == ("", ())
    assert path.read_text() == wrapper.texts(prefix)["bin/jemalloc.sh"]
    assert path.stat().st_mode & 0o777 == 0o755


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


def installation(damage: str = "", **receipt: t.Any) -> store.Installation:
    """Return an installation that was built from the source with the digest a."""
    whole = {"options": OPTIONS, "source": {"sha256": "a"}, "method": "source", **receipt}
    return store.Installation("5.9.0", whole, damage)


def wish(version: str = "5.9.0", **more: t.Any) -> store.Wish:
    """Return a wish with the usual options."""
    return store.Wish(version, **{"options": OPTIONS, **more})


BUNDLED = installation(method="bundle", bundle="b")
PACKAGED = installation(method="package", source={"package": "x"}, options=None, library_sha256="c")
SUITED = [
    (installation(), {}, True),
    (installation(), {"source": "a"}, True),
    (installation(), {"source": "b"}, False),
    (installation(), {"options": {**OPTIONS, "prof": True}}, False),
    (installation(damage="it is bent"), {}, False),
    (store.Installation("5.9.0", {"options": OPTIONS}), {}, True),
    (store.Installation("5.9.0", {"options": OPTIONS}), {"source": "a"}, False),
    (store.Installation("5.9.0", {}), {}, False),
    (BUNDLED, {}, True),
    (BUNDLED, {"method": "source"}, True),
    (BUNDLED, {"method": "bundle"}, True),
    (BUNDLED, {"method": "bundle", "bundle": "b"}, True),
    (BUNDLED, {"method": "bundle", "bundle": "x"}, False),
    (BUNDLED, {"method": "auto", "bundle": "x"}, True),
    (installation(), {"method": "bundle", "bundle": "b"}, False),
    (PACKAGED, {}, False),
    (PACKAGED, {"method": "package", "options": {}}, True),
    (PACKAGED, {"method": "package", "packaged": "c"}, True),
    (PACKAGED, {"method": "package", "packaged": "d"}, False),
    (installation(), {"method": "package"}, False),
]


@pytest.mark.parametrize(("found", "wanted", "expected"), SUITED)
def test_suits(found: store.Installation, wanted: t.Dict[str, t.Any], expected: bool) -> None:
    assert found.suits(wish(**wanted)) is expected


def of(*versions: str, **more: t.Any) -> store.Store:
    """Return a store with these releases."""
    receipt = {"options": OPTIONS}
    found = {version: store.Installation(version, receipt) for version in versions}
    return store.Store("/p", found, exists=True, **more)


def present(before: store.Store, version: str = "5.9.0", make_current: bool = True, **options: t.Any) -> store.Plan:
    """Plan state present."""
    return store.plan_present(before, wish(version, options={**OPTIONS, **options}), make_current)


def after(installations: t.List[str], current: t.Optional[str] = None, previous: t.Optional[str] = None) -> t.Any:
    """Return what a plan says of the store after it."""
    return {"installations": installations, "current": current, "previous": previous}


NEW = "it is not installed"
OTHER = "it came in another way, from another source or with other options"

PRESENT: t.List[t.Tuple[store.Store, t.Dict[str, t.Any], store.Plan]] = [
    (store.Store("/p"), {}, store.Plan(after(["5.9.0"], "5.9.0"), "5.9.0", NEW, switch="5.9.0")),
    (store.Store("/p"), {"make_current": False}, store.Plan(after(["5.9.0"]), "5.9.0", NEW)),
    (of("5.9.0", current="5.9.0"), {}, store.Plan(after(["5.9.0"], "5.9.0"))),
    (of("5.9.0"), {}, store.Plan(after(["5.9.0"], "5.9.0"), switch="5.9.0")),
    (
        of("5.9.0", "5.10.0", current="5.10.0", previous="5.1.0"),
        {},
        store.Plan(after(["5.9.0", "5.10.0"], "5.9.0", "5.10.0"), switch="5.9.0"),
    ),
    (
        of("5.10.0", current="5.10.0", previous="5.1.0"),
        {"make_current": False},
        store.Plan(after(["5.9.0", "5.10.0"], "5.10.0", "5.1.0"), "5.9.0", NEW),
    ),
    (
        of("5.9.0", current="5.9.0", previous="5.1.0"),
        {"prof": True},
        store.Plan(after(["5.9.0"], "5.9.0", "5.1.0"), "5.9.0", OTHER),
    ),
    (of("5.9.0", current="gone"), {}, store.Plan(after(["5.9.0"], "5.9.0"), switch="5.9.0")),
    (
        of("5.9.0", "5.1.0", current="5.9.0", stale_wrappers=("5.1.0", "5.9.0")),
        {"prof": True},
        store.Plan(after(["5.1.0", "5.9.0"], "5.9.0"), "5.9.0", OTHER, wrappers=("5.1.0",)),
    ),
    (
        store.Store("/p", {"5.9.0": store.Installation("5.9.0", {}, "it is bent")}, "5.9.0"),
        {},
        store.Plan(after(["5.9.0"], "5.9.0"), "5.9.0", "it is bent"),
    ),
    (of("5.9.0", current="5.9.0", foreign=("notes",)), {}, store.Plan(after(["5.9.0"], "5.9.0"))),
]


@pytest.mark.parametrize(("before", "wanted", "expected"), PRESENT)
def test_plan_present(before: store.Store, wanted: t.Dict[str, t.Any], expected: store.Plan) -> None:
    found = present(before, **wanted)
    assert found == expected
    assert found.changes == bool(found.install or found.switch or found.wrappers)


def test_plan_present_where_something_foreign_stands() -> None:
    with pytest.raises(JemallocError) as caught:
        present(of(foreign=("5.9.0",)))
    assert str(caught.value) == (
        "/p/5.9.0 is there but has no receipt.json, so this collection did not make it; move it away."
    )


def aged(**ages: int) -> store.Store:
    """Return a store with these releases, installed in these years."""
    found = {
        name: store.Installation(name, {"options": OPTIONS, "installed_at": f"20{age}-01-01"})
        for name, age in ((f"5.{key[1:]}.0", age) for key, age in ages.items())
    }
    return store.Store("/p", found, "5.1.0", "5.2.0", exists=True)


@pytest.mark.parametrize(
    ("version", "keep", "referred", "removed"),
    [
        ("5.1.0", None, (), ()),
        ("5.1.0", 9, (), ()),
        ("5.1.0", 4, (), ()),
        ("5.1.0", 3, (), ("5.4.0",)),
        ("5.1.0", 2, (), ("5.5.0", "5.4.0")),
        ("5.1.0", 1, (), ("5.3.0", "5.5.0", "5.4.0")),
        ("5.1.0", 0, (), ("5.3.0", "5.5.0", "5.4.0")),
        ("5.1.0", 0, ("5.4.0",), ("5.3.0", "5.5.0")),
        ("5.1.0", 2, ("5.4.0",), ("5.3.0", "5.5.0")),
        ("5.9.0", 1, (), ("5.3.0", "5.2.0", "5.5.0", "5.4.0")),
        ("5.4.0", 1, (), ("5.3.0", "5.2.0", "5.5.0")),
    ],
)
def test_keep(version: str, keep: t.Optional[int], referred: t.Tuple[str, ...], removed: t.Tuple[str, ...]) -> None:
    before = aged(_1=11, _2=15, _3=19, _4=12, _5=14)
    found = store.plan_present(before, wish(version), True, keep, referred)
    assert set(found.remove) == set(removed)
    assert found.after["installations"] == sorted({*before.installations, version} - set(removed))
    assert found.changes is bool(removed or version != "5.1.0")


def test_what_goes_gets_no_new_wrapper() -> None:
    before = dataclasses.replace(aged(_1=11, _3=12, _4=13), stale_wrappers=("5.3.0", "5.4.0"))
    assert store.plan_present(before, wish("5.1.0"), True, 1).wrappers == ("5.4.0",)


def test_wish_for_installed() -> None:
    assert store.wish_for_installed(aged(_1=11, _2=12), "previous") == wish("5.2.0")
    packaged = store.Store("/p", {"5.9.0": PACKAGED}, previous="5.9.0")
    assert PACKAGED.suits(store.wish_for_installed(packaged, "previous"))


def test_wish_for_installed_that_cannot_be() -> None:
    with pytest.raises(JemallocError) as caught:
        store.wish_for_installed(store.Store("/p"), "previous")
    assert str(caught.value) == (
        "version: there is no previous installation in /p to go back to; name a release instead."
    )
    with pytest.raises(JemallocError) as caught:
        store.wish_for_installed(store.Store("/p", {"5.9.0": installation("it is bent")}, previous="5.9.0"), "previous")
    assert str(caught.value) == (
        "version: the previous installation /p/5.9.0 is damaged (it is bent); name 5.9.0 to have it installed again, "
        "with its checksum if it is not a known release."
    )
    with pytest.raises(
        JemallocError, match=r"^version: the installation /p/5.9.0 is damaged \(it is bent\); name 5.9.0 "
    ):
        store.wish_for_installed(store.Store("/p", {"5.9.0": installation("it is bent")}), "5.9.0")


def test_is_installed(tmp_path: pathlib.Path, installed: t.Callable[..., None]) -> None:
    installed(str(tmp_path / "store"), "9.9.9")
    for version, there in (("9.9.9", True), ("9.9.8", False), ("../store/9.9.9", False), ("a\0b", False)):
        assert store.is_installed(str(tmp_path / "store"), version) is there


NOTHING = after([])

ABSENT: t.List[t.Tuple[store.Store, t.Optional[str], store.Plan]] = [
    (store.Store("/p"), None, store.Plan(NOTHING)),
    (of(), None, store.Plan(NOTHING, remove_prefix=True)),
    (of(foreign=("notes",)), None, store.Plan(NOTHING)),
    (
        of("5.9.0", "5.1.0", current="5.9.0", previous="5.1.0"),
        None,
        store.Plan(NOTHING, remove=("5.9.0", "5.1.0"), unlink=True, remove_prefix=True),
    ),
    (of("5.9.0", foreign=("notes",)), None, store.Plan(NOTHING, remove=("5.9.0",))),
    (store.Store("/p"), "5.9.0", store.Plan(NOTHING)),
    (of("5.1.0", current="5.1.0"), "5.9.0", store.Plan(after(["5.1.0"], "5.1.0"))),
    (
        of("5.9.0", "5.1.0", current="5.1.0", previous="5.9.0"),
        "5.9.0",
        store.Plan(after(["5.1.0"], "5.1.0"), remove=("5.9.0",)),
    ),
    (
        of("5.9.0", "5.1.0", "5.2.0", current="5.1.0", previous="5.2.0"),
        "5.9.0",
        store.Plan(after(["5.1.0", "5.2.0"], "5.1.0", "5.2.0"), remove=("5.9.0",)),
    ),
    (of("5.9.0", current="5.9.0"), "5.9.0", store.Plan(NOTHING, remove=("5.9.0",), unlink=True, remove_prefix=True)),
    (of("5.9.0", previous="5.1.0"), "5.9.0", store.Plan(NOTHING, remove=("5.9.0",), unlink=True, remove_prefix=True)),
]


@pytest.mark.parametrize(("before", "version", "expected"), ABSENT)
def test_plan_absent(before: store.Store, version: t.Optional[str], expected: store.Plan) -> None:
    found = store.plan_absent(before, version)
    assert found == expected
    assert found.changes == bool(found.remove or found.unlink or found.remove_prefix)


def test_plan_absent_of_what_is_in_use() -> None:
    with pytest.raises(JemallocError) as caught:
        store.plan_absent(of("5.9.0", "5.1.0", "5.10.0", current="5.9.0"), "5.9.0")
    assert str(caught.value) == (
        "jemalloc 5.9.0 is what /p/current leads to and cannot be removed; make another release current first (5.1.0, "
        "5.10.0 are installed)."
    )


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_locked_makes_the_prefix_and_takes_it_away_again(prefix: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        with publish.locked(prefix):
            assert os.stat(prefix).st_mode & 0o777 == 0o755
            assert os.listdir(prefix) == [".lock"]
            staging = publish.stage(prefix)
            assert os.stat(staging).st_mode & 0o777 == 0o711
            assert os.stat(f"{prefix}/.staging").st_mode & 0o777 == 0o711
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
    monkeypatch.setattr(processes, "working_in", lambda _directory: [2**22 + 1])  # more than a pid can be
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


def reinstall(prefix: str) -> None:
    """Replace 5.9.0, which is current, by another build of it."""
    with publish.locked(prefix):
        tree = f"{publish.stage(prefix)}/tree"
        shutil.copytree(f"{prefix}/5.9.0", tree, symlinks=True)
        pathlib.Path(tree, "lib", "libjemalloc.so.2").write_text("new")
        publish.complete(tree, prefix, {"library": "libjemalloc.so.2", "options": OPTIONS})
        publish.publish(prefix, tree, "5.9.0", publish.Undo())


def install_and_switch(prefix: str) -> None:
    """Install 5.10.0 from a copy of 5.9.0 and make it current."""
    with publish.locked(prefix):
        tree = f"{publish.stage(prefix)}/tree"
        shutil.copytree(f"{prefix}/5.9.0", tree, symlinks=True)
        publish.complete(tree, prefix, {"library": "libjemalloc.so.2", "options": OPTIONS})
        publish.publish(prefix, tree, "5.10.0", publish.Undo())
        publish.switch(prefix, "5.10.0", publish.Undo())


def remove_one(prefix: str) -> None:
    """Remove 5.1.0."""
    remove(prefix, "5.1.0")


def remove_all(prefix: str) -> None:
    """Remove everything."""
    remove(prefix, None)


STEPS = ("open", "mkdir", "symlink", "replace", "rename", "unlink", "rmdir", "chmod", "fchmod", "fsync")


def killed(function: t.Callable[[str], None], prefix: str, step: int) -> bool:
    """Run a function in a process that is killed before its given change to the file system; return whether it was."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    calls = iter(range(1, 9999))

    def counted(real: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        def call(*arguments: t.Any, **options: t.Any) -> t.Any:
            if next(calls) == step:
                os._exit(9)
            return real(*arguments, **options)

        return call

    try:
        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        exchange = files.exchange
        files.exchange = counted(exchange)
        function(prefix)
    except BaseException:
        os._exit(1)
    os._exit(0)


@pytest.mark.parametrize("function", [install_and_switch, reinstall, remove_one, remove_all])
def test_a_killed_writer_leaves_the_old_state_or_the_new_one(
    tmp_path: pathlib.Path, installed: Install, function: t.Callable[[str], None]
) -> None:
    template = str(tmp_path / "template")
    for version in ("5.1.0", "5.9.0"):
        installed(template, version)
        publish.switch(template, version, publish.Undo())
    prefix = str(tmp_path / "store")
    for step in range(1, 200):
        shutil.copytree(template, prefix, symlinks=True)
        before = store.read(prefix)
        if not killed(function, prefix, step):
            break
        found = store.read(prefix)
        assert set(found.installations) - set(before.installations) <= {"5.10.0"}
        assert not any(installation.damage for installation in found.installations.values())
        if function is not remove_all:
            assert found.current in found.installations
        assert not found.foreign
        if found.exists:  # then the next run can work with it, and clears what was left
            function(prefix)
        if function is remove_all:
            assert not os.path.exists(prefix)
        else:
            assert not [path for path in pathlib.Path(prefix).rglob("*") if files.TEMPORARY_SUFFIX in path.name]
            shutil.rmtree(prefix)
    else:
        pytest.fail("it never came through")
    assert step > 5


def test_the_stable_path() -> None:
    assert store.library("/srv/x") == "/srv/x/current/lib/libjemalloc.so"
    assert store.library("/srv/x", "5.1.0") == "/srv/x/5.1.0/lib/libjemalloc.so"
