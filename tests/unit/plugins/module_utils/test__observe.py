# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on a host, read from a made-up /proc, and from real processes of this machine."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.preload.jemalloc.plugins.module_utils import _allocators as allocators
from ansible_collections.preload.jemalloc.plugins.module_utils import _cgroups as cgroups
from ansible_collections.preload.jemalloc.plugins.module_utils import _observe as observe
from tests.unit.conftest import Proc, maps_of

LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6"
CONTAINER = f"0::/system.slice/docker-{'1' * 64}.scope\n"


@pytest.fixture
def prefix(tmp_path: pathlib.Path, library: pathlib.Path) -> str:
    """A store with the library of 9.9.9."""
    path = tmp_path / "store" / "9.9.9" / "lib" / "libjemalloc.so.2"
    path.parent.mkdir(parents=True)
    shutil.copy(str(library), str(path))
    return str(tmp_path / "store")


def look(proc: Proc, prefix: str = "/opt/jemalloc", **more: t.Any) -> t.Dict[int, observe.Process]:
    """Return the processes of a made-up /proc of a host that started at 1000."""
    found = observe.processes(observe.Look(prefix, str(proc.top), booted=1000, **more))
    return {process.pid: observe.with_start(process, str(proc.top)) for process in found}


def test_a_process(proc: Proc, prefix: str) -> None:
    library = f"{prefix}/9.9.9/lib/libjemalloc.so.2"
    environment = {"MALLOC_CONF": "narenas:2", "LD_PRELOAD": "/x.so", "OLD_MALLOC_CONF": "no"}
    proc.add(7, library, LIBC, threads=5, started=60, environment=environment, secure=True)
    (proc.top / "notes").mkdir()
    assert look(proc, prefix) == {
        7: observe.Process(
            7,
            cgroups.Place("puma.service", "system"),
            "puma: 5.6 (x)",
            allocators.Allocator("jemalloc", "9.9.9", library),
            25 * os.sysconf("SC_PAGE_SIZE"),
            8192,
            5,
            1060,
            malloc_conf="narenas:2",
            preloads="/x.so",
            secure=True,
        )
    }


def test_what_is_left_out(proc: Proc) -> None:
    proc.add(1, LIBC)
    proc.add(2, flags=0x00200000 | 0x40, name="kthreadd")
    proc.add(3, maps="")  # one that is ending
    proc.add(4, LIBC)
    (proc.top / "4" / "stat").unlink()
    proc.add(5, LIBC)
    (proc.top / "5" / "maps").unlink()
    assert list(look(proc)) == [1]


def test_only_places_that_are_wanted(proc: Proc) -> None:
    proc.add(1, LIBC)
    proc.add(2, LIBC, unit="other.service")
    found = observe.processes(observe.Look("/p", str(proc.top)), lambda place: place.unit == "other.service")
    assert [process.pid for process in found] == [2]


def test_heaps_of_glibc_are_those_of_threads(proc: Proc) -> None:
    heap = "7f1230000000-7f1230421000 rw-p 00000000 00:00 0 \n7f1230421000-7f1234000000 ---p 00000000 00:00 0 \n"
    proc.add(1, maps=heap + maps_of(LIBC), threads=2)
    proc.add(2, maps=heap + maps_of(LIBC))
    proc.add(3, maps=heap + maps_of("/usr/lib/libtcmalloc.so.4", LIBC), threads=2)
    assert [process.heaps.number for process in look(proc).values()] == [1, 0, 0]


def test_a_program_is_looked_at_once(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    proc.add(1, LIBC, program=b"<jemalloc>: ")
    for pid in (2, 3):
        proc.add(pid, LIBC)
        (proc.top / str(pid) / "exe").unlink()
    (proc.top / "2" / "exe").symlink_to(proc.top / "1" / "program")
    looked: t.List[str] = []
    built_in = allocators.built_in

    def look_and_tell(path: str) -> t.Any:
        looked.append(path)
        return built_in(path)

    monkeypatch.setattr(allocators, "built_in", look_and_tell)
    labels = [process.allocator.label for _pid, process in sorted(look(proc).items())]
    assert labels == ["jemalloc (built in)", "jemalloc (built in)", "glibc"]
    assert len(looked) == 1


def refuse(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let files of /proc with these names be somebody else's."""
    real = os.open

    def refusing(path: str, *arguments: t.Any, **more: t.Any) -> int:
        if os.path.basename(path) in names and os.path.dirname(path).endswith("/7"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", refusing)


def test_somebody_elses(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    proc.add(7, LIBC, threads=3, started=5)
    refuse(monkeypatch, "maps", "environ", "auxv")
    found = look(proc)[7]
    assert (found.allocator.label, found.place.unit) == ("unreadable", "puma.service")
    assert (found.threads, found.swap, found.started) == (3, 8192, 1005)


def test_hidden_altogether(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    proc.add(7, LIBC)
    refuse(monkeypatch, "stat", "cgroup", "maps")
    assert look(proc)[7].allocator.label == "unreadable"
    wanted = observe.processes(observe.Look("/p", str(proc.top)), lambda place: bool(place.unit))
    assert wanted == []


@pytest.mark.parametrize(
    ("cgroup", "namespace", "here", "deleted", "expected"),
    [
        ("", "mnt:[1]", True, False, "jemalloc 9.9.9"),
        ("", "mnt:[2]", True, False, "jemalloc 9.9.9"),  # PrivateTmp=, with the same files
        ("", "mnt:[2]", False, False, "jemalloc (other)"),  # a sandbox
        ("", "mnt:[2]", False, True, "jemalloc 9.9.9"),
        ("", "", False, False, "jemalloc 9.9.9"),
        (CONTAINER, "mnt:[2]", True, False, "jemalloc 9.9.9"),  # the store is mounted into it
        (CONTAINER, "mnt:[2]", False, False, "jemalloc (other)"),
        (CONTAINER, "mnt:[2]", False, True, "jemalloc (other)"),
    ],
)
def test_the_same_path_can_be_another_file(
    proc: Proc, prefix: str, cgroup: str, namespace: str, here: bool, deleted: bool, expected: str
) -> None:
    library = f"{prefix}/9.9.9/lib/libjemalloc.so.2"
    directory = proc.add(1, f"{library} (deleted)" if deleted else library, LIBC, cgroup=cgroup)
    if namespace:
        (directory / "ns").mkdir()
        (directory / "ns" / "mnt").symlink_to(namespace)
    (directory / "root").symlink_to("/" if here else proc.top)
    assert look(proc, prefix, namespace="mnt:[1]")[1].allocator.label == expected


def test_look_at(proc: Proc) -> None:
    (proc.top / "self" / "ns").mkdir(parents=True)
    (proc.top / "self" / "ns" / "mnt").symlink_to("mnt:[1]")
    (proc.top / "self" / "cgroup").write_text(CONTAINER)
    (proc.top / "meminfo").write_text("MemTotal: 9 kB\nSwapTotal:      5 kB\nSwapFree:       5 kB\n")
    found = observe.look_at("/p", str(proc.top))
    assert (found.own, found.namespace, found.swapped) == (("1" * 12,), "mnt:[1]", False)
    (proc.top / "meminfo").write_text("SwapTotal:      5 kB\nSwapFree:       4 kB\n")
    assert observe.look_at("/p", str(proc.top)).swapped
    assert observe.look_at("/p", str(proc.top / "missing")).swapped


def test_without_swap_its_size_is_not_asked_for(proc: Proc) -> None:
    proc.add(1, LIBC)
    assert [process.swap for process in look(proc, swapped=False).values()] == [0]


@pytest.mark.parametrize(
    ("layout", "entries", "expected"),
    [
        ("Q", (6, 4096, 23, 0, 0, 0), False),
        ("Q", (6, 4096, 23, 1, 0, 0), True),
        ("I", (23, 0, 6, 4096, 3, 0x8048034, 0, 0), False),
        ("I", (3, 0x8048034, 23, 1, 0, 0), True),
        ("Q", (6, 4096, 0, 0), False),
        ("Q", (), False),
        ("I", (1 << 20, 1, 1 << 21), False),
        ("I", (1 << 20, 1, 1 << 21, 1), False),
    ],
)
def test_is_secure(layout: str, entries: t.Sequence[int], expected: bool) -> None:
    assert observe.is_secure(struct.pack(f"{len(entries)}{layout}", *entries)) is expected


TEXTS = st.binary(max_size=200) | st.sampled_from(
    [
        b"1 (x) S " + b"9 " * 40,
        b"1 ()) S 1 1 1 0 -1 " + b"9" * 30,
        maps_of(LIBC).encode(),
        b"\nVmSwap:\t 7 kB\n",
        CONTAINER.encode(),
    ]
)


@given(st.fixed_dictionaries(dict.fromkeys(("stat", "cgroup", "maps", "status", "environ", "auxv"), TEXTS)))
def test_no_text_of_proc_makes_it_fail(texts: t.Dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as top:
        os.mkdir(f"{top}/1")
        for name, text in texts.items():
            pathlib.Path(top, "1", name).write_bytes(text)
        for process in observe.processes(observe.Look("/opt/jemalloc", top)):
            observe.with_start(process, top)


@contextlib.contextmanager
def running(*command: str, **more: t.Any) -> t.Iterator[int]:
    """Run a program while it is looked at, until it is past its start."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, **more) as process:  # type: ignore[call-overload]  # which of Popen's signatures it is depends on more
        try:
            assert process.stdout.read(2) == b"up"
            yield process.pid
        finally:
            process.kill()


PYTHON = (sys.executable, "-c", "print('up', flush=True); input()")


def real(pid: int, prefix: str) -> observe.Process:
    """Return a process of this machine."""
    found = {process.pid: process for process in observe.processes(observe.look_at(prefix))}
    return observe.with_start(found[pid], "/proc")


def test_this_process(prefix: str) -> None:
    found = real(os.getpid(), prefix)
    assert found.allocator.label in ("glibc", "musl")
    assert found.rss > 1 << 20
    assert found.threads >= 1
    assert abs(found.started - os.stat(f"/proc/{os.getpid()}").st_ctime) < 3600
    assert found.started <= time.time()
    assert not found.secure


def test_real_ones(prefix: str, tmp_path: pathlib.Path, library: pathlib.Path) -> None:
    ours = f"{prefix}/9.9.9/lib/libjemalloc.so.2"
    other, tcmalloc, mimalloc = (tmp_path / name for name in ("libjemalloc.so", "libtcmalloc.so.4", "libmimalloc.so.2"))
    for path in (other, tcmalloc, mimalloc):
        shutil.copy(str(library), str(path))
    for mapped, label in (
        (ours, "jemalloc 9.9.9"),
        (other, "jemalloc (other)"),
        (tcmalloc, "tcmalloc"),
        (mimalloc, "mimalloc"),
    ):
        environment = {**os.environ, "LD_PRELOAD": str(mapped), "MALLOC_CONF": "narenas:2"}
        with running(*PYTHON, env=environment) as pid:
            found = real(pid, prefix)
            assert (found.allocator.label, found.allocator.path) == (label, str(mapped))
            assert (found.malloc_conf, found.preloads) == ("narenas:2", str(mapped))


def sees_mapped_files() -> bool:
    """Whether this process may look at what is mapped, which takes a capability that root in a container lacks."""
    directory = "/proc/self/map_files"
    try:
        return bool(os.stat(f"{directory}/{os.listdir(directory)[0]}"))
    except OSError:
        return False


@pytest.mark.parametrize("place", ["9.9.9", ".staging/tmpx/9.9.9", ".staging/tmpx/tree"])
def test_real_ones_whose_library_is_gone(prefix: str, place: str) -> None:
    ours = f"{prefix}/9.9.9/lib/libjemalloc.so.2"
    with running(*PYTHON, env={**os.environ, "LD_PRELOAD": ours}) as pid:
        if place != "9.9.9":
            os.makedirs(os.path.dirname(f"{prefix}/{place}"))
            os.rename(f"{prefix}/9.9.9", f"{prefix}/{place}")
        shutil.rmtree(f"{prefix}/{place}")
        found = real(pid, prefix).allocator
    assert (found.kind, found.deleted) == ("jemalloc", True)
    known = not place.endswith("tree") or sees_mapped_files()  # else its name is gone as well
    assert found.label == ("jemalloc 9.9.9" if known else "jemalloc unknown")


C = '#include <unistd.h>\nconst char *volatile text = "%s";\nint main(void) { write(1, "up", 2); return pause(); }\n'


@pytest.mark.parametrize(("text", "label"), [("", "static"), ("<jemalloc>: ", "jemalloc (built in)")])
def test_real_static_ones(prefix: str, tmp_path: pathlib.Path, text: str, label: str) -> None:
    (tmp_path / "a.c").write_text(C % text)
    subprocess.run(["gcc", "-static", "-w", "-o", str(tmp_path / "a"), str(tmp_path / "a.c")], check=True)
    with running(str(tmp_path / "a")) as pid:
        assert real(pid, prefix).allocator.label == label


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a program that runs with the rights of root")
def test_a_real_one_in_secure_execution_mode(prefix: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.c").write_text(C % "")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        program = f"{directory}/a"
        subprocess.run(["gcc", "-w", "-o", program, str(tmp_path / "a.c")], check=True)
        os.chmod(program, 0o4755)
        with running(program, user=65534) as pid:
            found = real(pid, prefix)
    assert (found.allocator.label, found.secure) == ("glibc", True)


def test_an_environment_of_more_than_a_page(proc: Proc, prefix: str) -> None:
    proc.add(7, "/usr/bin/puma", environment={"LONG": "x" * 9000, "MALLOC_CONF": "narenas:2"})
    (found,) = observe.processes(observe.look_at(prefix, str(proc.top)))
    assert observe.with_start(found, str(proc.top)).malloc_conf == "narenas:2"


def test_the_release_of_a_library_that_is_gone_and_cannot_be_read(proc: Proc, prefix: str) -> None:
    look = observe.Look(prefix, str(proc.top))
    line = b"7f00000000-7f00001000 r-xp 00000000 08:01 5  /opt/x.so (deleted)\n"
    assert observe._mapped_release(look, 7, "/opt/x.so", line) == ""
    assert observe._mapped_release(look, 7, "/opt/y.so", line) == ""
