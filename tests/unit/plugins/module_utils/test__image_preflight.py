# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is run in an image before it gets its name, and what counts as a failure."""

from __future__ import annotations

import pathlib
import subprocess
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _elf as elf
from ansible_collections.preload.jemalloc.plugins.module_utils import _image_engine as engines
from ansible_collections.preload.jemalloc.plugins.module_utils import _image_files as image_files
from ansible_collections.preload.jemalloc.plugins.module_utils import _image_preflight as preflight
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.module_utils._host import with_errors

PATH = "/opt/jemalloc/5.3.1/lib/libjemalloc.so.2"
WITH_ERRORS = with_errors([])
BASE = engines.Image("1", "amd64", environment={"PATH": "/bin"})


def found_of(family: str, machine: int = 62) -> image_files.Found:
    return image_files.Found(platform.Here("x86_64", family, "", 12), "/lib/ld.so", elf.Elf(64, "<", machine))


@pytest.mark.parametrize(
    ("needed", "found", "reason"),
    [
        ("libc.so.6", found_of("glibc"), ""),
        ("libc.so.6", found_of("musl"), "it is linked to glibc, and the image has musl"),
        ("libc.so", found_of("glibc"), "it is linked to musl, and the image has glibc"),
        ("libc.so", found_of("musl"), ""),
        ("", found_of("musl"), ""),
        ("libc.so.6", found_of("glibc", 183), "it is for another machine (64 bits, e_machine 62)"),
    ],
)
def test_unfit(tmp_path: pathlib.Path, needed: str, found: image_files.Found, reason: str) -> None:
    empty = ["gcc", "-shared", "-nostdlib", "-x", "c", "/dev/null"]
    libc, path = tmp_path / "libc", tmp_path / "library"
    subprocess.run([*empty, f"-Wl,-soname,{needed}", "-o", str(libc)], check=True)
    linked = ["-Wl,--no-as-needed", "-x", "none", str(libc)] if needed else []
    subprocess.run([*empty, "-o", str(path), *linked], check=True)
    assert preflight.unfit(path.read_bytes(), found) == reason


def test_unfit_when_it_is_no_library() -> None:
    assert preflight.unfit(b"", found_of("musl")) == "it is not an ELF file"


class Files:
    """An image that has programs: each with its loader, empty for a static one."""

    def __init__(self, **programs: str) -> None:
        """Take them."""
        self._programs = programs

    def locate(self, name: str, path: t.Sequence[str]) -> str:
        """Return where a program is."""
        return f"{path[0]}/{name}" if name in self._programs else ""

    def elf(self, path: str) -> elf.Elf:
        """Return what a program says of itself."""
        return elf.Elf(64, "<", 62, self._programs[path.rpartition("/")[2]])


LIST = f"/lib/ld.so --list {PATH}"
SHELL = "/bin/sh -c for word in a b c; do echo $word; done"
WRAPPED = "/usr/local/bin/jemalloc.sh /bin/cat /proc/self/maps"


@pytest.mark.parametrize(
    ("programs", "preloaded", "expected"),
    [
        ({}, True, [LIST]),
        (
            {"true": "/l", "sh": "/l", "cat": "/l"},
            True,
            [LIST, "/bin/true", SHELL, "/bin/cat /proc/self/maps", WRAPPED],
        ),
        ({"true": "/l", "sh": "/l", "cat": "/l"}, False, [LIST, "/bin/true", SHELL, WRAPPED]),
        ({"sh": "", "cat": "/l"}, False, [LIST, WRAPPED]),
        ({"cat": "/l"}, True, [LIST, "/bin/cat /proc/self/maps"]),
        ({"sh": "", "cat": "", "true": "", "busybox": ""}, True, [LIST]),
        ({"busybox": "/l"}, True, [LIST, "/bin/busybox cat /proc/self/maps"]),
        ({"sh": "/l"}, True, [LIST, SHELL, f"/bin/sh -c {preflight._READ_MAPS}", None]),
    ],
)
def test_trials(programs: t.Dict[str, str], preloaded: bool, expected: t.List[t.Optional[str]]) -> None:
    planned = preflight.trials(t.cast(t.Any, Files(**programs)), BASE, found_of("glibc"), PATH, preloaded)
    assert len(planned) == len(expected)
    for trial, words in zip(planned, expected):
        if words:
            assert " ".join([trial.entrypoint, *trial.arguments]) == words
        assert trial.shows == ("/proc/self/maps" in " ".join(trial.arguments))


class Podman:
    """An engine whose containers answer one after the other."""

    def __init__(self, *answers: t.Tuple[int, str]) -> None:
        """Take the answers."""
        self._answers = list(answers)
        self.asked: t.List[t.List[str]] = []

    def __call__(self, command: t.Sequence[str], _cwd: t.Any, _data: t.Any) -> t.Tuple[int, str]:
        """Run a command."""
        assert ("run" in command) == (list(command[: len(WITH_ERRORS)]) == WITH_ERRORS)
        self.asked.append([word for word in command if word not in WITH_ERRORS])
        return self._answers.pop(0) if "run" in command else (0, "")


LOADER, TRUE, CAT = (
    preflight.Trial("/lib/ld.so", ("--list", PATH)),
    preflight.Trial("/bin/true"),
    preflight.Trial("/bin/cat", ("/proc/self/maps",), True),
)
RECIPE = {"base": "debian:12", "release": "5.3.1", "prefix": "/opt/jemalloc", "ld_preload": "", "malloc_conf": ""}
MAPPED = (0, f"7f-8f r-xp 0 0:0 1 {PATH}\n")


def run(podman: Podman, *trials: preflight.Trial, **recipe: str) -> bool:
    engine = engines.Engine(podman, "podman")
    return preflight.run(engine, "n", "i", trials, {**RECIPE, **recipe}, PATH)


def test_run() -> None:
    podman = Podman((0, "\tlinux-vdso.so.1\n"), (0, ""), MAPPED)
    conf = "narenas:2,stats_print:true"
    assert run(podman, LOADER, TRUE, CAT, malloc_conf=conf)
    front = ["timeout", "-k", "5", "60", "podman", "run", "--rm", "--name=n", "--network=none", "--read-only"]
    quiet = "--env=MALLOC_CONF=narenas:2,stats_print:false"
    assert podman.asked == [
        ["podman", "rm", "--force", "n"],
        [*front, "--entrypoint=/lib/ld.so", quiet, "i", "--list", PATH],
        [*front, "--entrypoint=/bin/true", quiet, "--env=LD_PRELOAD=/opt/jemalloc/current/lib/libjemalloc.so", "i"],
        [*front, "--entrypoint=/bin/cat", quiet, "i", "/proc/self/maps"],
    ]


@pytest.mark.parametrize(
    "entry", ["/opt/x.so' from LD_PRELOAD", "/opt/jemalloc/current/lib/libjemalloc.so' from /etc/ld.so.preload"]
)
def test_run_where_other_entries_are_stale(entry: str) -> None:
    gone = f"ERROR: ld.so: object '{entry} cannot be preloaded (cannot open shared object file): ignored.\n"
    assert run(Podman((0, gone), (0, gone), (0, gone + MAPPED[1])), LOADER, TRUE, CAT)


def test_run_where_the_image_has_the_variable() -> None:
    podman = Podman((0, ""), (0, ""))
    assert not run(podman, LOADER, TRUE, ld_preload="/x")
    assert [word for asked in podman.asked for word in asked if word.startswith("--env")] == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((139, "Segmentation fault"), "exit status 139: Segmentation fault"),
        ((124, ""), "it took too long"),
        (
            (0, f"ERROR: ld.so: object '{PATH}' from LD_PRELOAD cannot be preloaded: ignored.\n"),
            f"ERROR: ld.so: object '{PATH}' from LD_PRELOAD cannot be preloaded: ignored.",
        ),
        (
            (1, "x\nError relocating /opt/a: foo: symbol not found\n"),
            "Error relocating /opt/a: foo: symbol not found",
        ),
        ((0, "<jemalloc>: Invalid conf pair: a:b\n"), "<jemalloc>: Invalid conf pair: a:b"),
        ((0, "7f-8f r-xp 0 0:0 1 /lib/libc.so\n"), f"its /proc/self/maps does not have {PATH}"),
    ],
)
def test_run_that_fails(answer: t.Tuple[int, str], reason: str) -> None:
    podman = Podman((0, ""), answer)
    with pytest.raises(JemallocError) as caught:
        run(podman, LOADER, CAT, TRUE)
    assert str(caught.value) == (
        f"The library is not fit for debian:12: /bin/cat /proc/self/maps fails in it with jemalloc 5.3.1 ({reason}); "
        "no image has got the name."
    )
    assert (["podman", "rm", "--force", "n"] in podman.asked[1:]) == (answer[0] != 0)


@pytest.mark.parametrize("status", [125, 126])
def test_run_where_no_container_starts(status: int) -> None:
    with pytest.raises(JemallocError) as caught:
        run(Podman((status, "Error: exec format error\n")), LOADER)
    assert str(caught.value) == (
        f"debian:12 with jemalloc cannot be tried, as podman cannot run /lib/ld.so --list {PATH} in a container of it "
        "(Error: exec format error); no image has got the name."
    )


def test_library_path() -> None:
    receipt = {"release": "5.3.1", "library": "libjemalloc.so.2"}
    assert preflight.library_path("/opt/jemalloc", receipt) == PATH
