# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release needs to build, which packages bring it, and what is said when it does not work."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _build as build
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _sandbox as sandbox
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.module_utils._host import with_errors

ENVIRONMENT = [
    "/usr/bin/env",
    "-i",
    "PATH=/usr/local/bin:/usr/bin:/bin",
    "LC_ALL=C",
    "GIT_DIR=/nonexistent",
    "HOME=/nonexistent",
]


class Commands:
    """Answers commands by the word in them, and remembers what was called."""

    def __init__(self, **answers: t.Any) -> None:
        self.answers = {name.replace("_", "-"): answer for name, answer in answers.items()}
        self.calls: t.List[t.Tuple[t.List[str], t.Optional[str], t.Optional[str]]] = []

    def __call__(
        self, arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
    ) -> t.Tuple[int, str]:
        """Answer a command."""
        self.calls.append((list(arguments), directory, data))
        for name, answer in self.answers.items():
            if name in arguments:
                found: t.Tuple[int, str] = answer.pop(0) if isinstance(answer, list) else answer
                return found
        return 0, ""


@pytest.fixture
def have(monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., None]:
    """Say which programs the host has."""

    def only(*names: str) -> None:
        monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name in names else None)

    return only


G0 = ["CFLAGS=-g0", "CXXFLAGS=-g0"]
BEFORE_5 = ["--disable-valgrind", "--enable-tls"]


@pytest.mark.parametrize(
    ("version", "machine", "options", "expected"),
    [
        (
            "3.6.0",
            "x86_64",
            build.Options(),
            ["je_cv_static_page_shift=12", "je_cv_tls_model=yes", *BEFORE_5],
        ),
        (
            "3.6.0",
            "aarch64",
            build.Options(),
            ["je_cv_static_page_shift=16", "je_cv_tls_model=yes", *BEFORE_5],
        ),
        ("4.0.0", "x86_64", build.Options(cxx=True), ["--with-lg-page=12", *BEFORE_5]),
        ("4.4.0", "x86_64", build.Options(), ["--with-lg-page=12", *BEFORE_5]),
        ("4.5.0", "x86_64", build.Options(), ["--with-lg-page=12", *BEFORE_5, *G0]),
        ("5.0.0", "x86_64", build.Options(), ["--with-lg-page=12", "--disable-cxx", *G0]),
        ("5.3.1", "aarch64", build.Options(prof=True), ["--with-lg-page=16", "--disable-cxx", *G0, "--enable-prof"]),
        ("5.3.1", "aarch64", build.Options(lg_page=12), ["--with-lg-page=12", "--disable-cxx", *G0]),
        ("5.10.0", "x86_64", build.Options(cxx=True), ["--with-lg-page=12", "EXTRA_CXXFLAGS=-include memory", *G0]),
    ],
)
def test_configure_arguments(version: str, machine: str, options: build.Options, expected: t.List[str]) -> None:
    release = catalogue.Release(version, "")
    found = build.configure_arguments(release, machine, options, "/opt/jemalloc/x")
    assert found == ["--prefix=/opt/jemalloc/x", *expected]


def test_options_as_a_receipt_holds_them() -> None:
    assert build.Options(prof=True, lg_page=14).as_dict() == {"cxx": False, "prof": True, "lg_page": 14}


@pytest.mark.parametrize(
    ("version", "options", "more"),
    [
        ("5.3.1", build.Options(), []),
        ("5.0.0", build.Options(cxx=True), ["g++"]),
        ("4.5.0", build.Options(cxx=True, prof=True), []),
    ],
)
def test_tools(version: str, options: build.Options, more: t.List[str]) -> None:
    assert build.tools(catalogue.RELEASES[version], options) == ["gcc", "make", "headers", *more]


@pytest.mark.parametrize(
    ("tools", "status", "needed", "expected"),
    [
        (["gcc", "make"], 0, ["gcc", "make", "headers"], []),
        (["gcc", "make"], 1, ["gcc", "make", "headers"], ["headers"]),
        (["make"], 0, ["gcc", "make", "headers"], ["gcc", "headers"]),
        ([], 0, ["gcc", "make", "headers", "autoconf"], ["gcc", "make", "autoconf", "headers"]),
        (["gcc"], 1, ["gcc"], []),
        ([], 0, [], []),
    ],
)
def test_missing_tools(
    have: t.Callable[..., None], tools: t.List[str], status: int, needed: t.List[str], expected: t.List[str]
) -> None:
    have(*tools)
    run = Commands(gcc=(status, ""))
    assert build.missing_tools(run, needed) == expected
    if run.calls:
        assert run.calls == [(["gcc", "-fsyntax-only", "-x", "c", "-"], None, "#include <stdlib.h>\n")]


@pytest.mark.parametrize(
    ("tools", "expected"),
    [(["apt-get", "dnf"], "apt-get"), (["dnf"], "dnf"), (["zypper"], "zypper"), (["apk"], "apk"), ([], None)],
)
def test_package_manager(have: t.Callable[..., None], tools: t.List[str], expected: t.Optional[str]) -> None:
    have(*tools)
    assert build.package_manager() == expected


@pytest.mark.parametrize(
    ("manager", "headers", "compiler"),
    [
        ("apt-get", "libc6-dev", "g++"),
        ("dnf", "glibc-devel", "gcc-c++"),
        ("zypper", "glibc-devel", "gcc-c++"),
        ("apk", "musl-dev", "g++"),
        (None, "the C library's headers", "g++"),
    ],
)
def test_packages_for(manager: t.Optional[str], headers: str, compiler: str) -> None:
    assert build.packages_for(["gcc", "headers", "make", "g++"], manager) == ["gcc", headers, "make", compiler]
    assert build.packages_for([], manager) == []


APT = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends", "gcc", "make"]


@pytest.mark.parametrize(
    ("manager", "answers", "calls"),
    [
        ("apt-get", [(0, "")], [APT]),
        ("apt-get", [(100, "E: Unable to locate package gcc"), (0, "")], [APT, ["apt-get", "update"], APT]),
        ("dnf", [(0, "")], [["dnf", "install", "-y", "gcc", "make"]]),
        ("apk", [(0, "")], [["apk", "add", "gcc", "make"]]),
    ],
)
def test_install_packages(manager: str, answers: t.List[t.Tuple[int, str]], calls: t.List[t.List[str]]) -> None:
    run = Commands(update=(0, ""), gcc=list(answers))
    build.install_packages(run, ["gcc", "make"], manager)
    assert [arguments for arguments, _directory, _data in run.calls] == calls


@pytest.mark.parametrize(
    ("manager", "output", "last"),
    [
        ("apt-get", "Reading\n\nE: one\n  E: two.\n", "E: one / E: two"),
        ("dnf", "Error: all mirrors were tried", "Error: all mirrors were tried"),
        ("apk", "\n", "it printed nothing"),
    ],
)
def test_install_packages_that_cannot_be(manager: str, output: str, last: str) -> None:
    run = Commands(update=(0, ""), gcc=(1, output))
    with pytest.raises(JemallocError) as caught:
        build.install_packages(run, ["gcc", "make"], manager)
    assert str(caught.value) == (
        f"The packages that the build needs (gcc make) could not be installed by {manager}: {last}. Install them by "
        "hand, or give a host on which it works."
    )


RELEASE = catalogue.Release("5.9.0", "")


@contextlib.contextmanager
def sandboxed(run: build.Run, staging: str, work: str) -> t.Iterator[build.Run]:
    """Stand for the sandbox."""
    yield lambda arguments, directory, data: run(["in", staging, work, *arguments], directory, data)


@pytest.mark.parametrize(
    ("version_file", "commit", "expected"),
    [
        (None, "", f"5.9.0-0-g{'0' * 40}\n"),
        ("", "c" * 40, f"5.9.0-0-g{'c' * 40}\n"),
        ("5.9.0-1-gabc\n", "c" * 40, "5.9.0-1-gabc\n"),
    ],
)
@pytest.mark.parametrize("configure", [True, False])
def test_build(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    configure: bool,
    version_file: t.Optional[str],
    commit: str,
    expected: str,
) -> None:
    if configure:
        (tmp_path / "configure").write_text("")
    if version_file is not None:
        (tmp_path / "VERSION").write_text(version_file)
    run = Commands(make=(0, "made\n"))
    work = str(tmp_path)
    monkeypatch.setattr(sandbox, "sandboxed", sandboxed)
    assert build.build(run, work, work, RELEASE, commit, ["--x=y"]) == f"{work}/root"
    assert (tmp_path / "VERSION").read_text() == expected
    jobs = len(os.sched_getaffinity(0))
    steps = [
        *([] if configure else [["autoconf"]]),
        ["./configure", "--x=y"],
        ["make", f"-j{jobs}", f"DESTDIR={work}/root", "install_bin", "install_lib_shared"],
    ]
    front = ["in", str(tmp_path.parents[1]), work]
    inside = [*ENVIRONMENT, f"TMPDIR={work}/tmp"]
    assert run.calls == [([*front, *with_errors([*inside, *step])], work, None) for step in steps]


def test_build_that_fails(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "sandboxed", sandboxed)
    (tmp_path / "configure").write_text("")
    run = Commands(make=(2, "cc a.c\na.c: no\n\nmake: *** [a.o] Error 1\n"))
    with pytest.raises(build.BuildError) as caught:
        build.build(run, str(tmp_path), str(tmp_path), RELEASE, "", [])
    assert str(caught.value) == (
        "jemalloc 5.9.0 does not build here, make ended with 2: cc a.c / a.c: no / make: *** [a.o] Error 1"
    )
    assert caught.value.log.startswith("$ ./configure\n\n$ make -j")
    assert len(run.calls) == 2


END = "make: *** [Makefile:3: a] Error 1"
COLLECT = "collect2: error: ld returned 1 exit status"
WAITING = "make: *** Waiting for unfinished jobs...."


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        (["a.c:1:1: error: no", "cc -c b.c", END], "a.c:1:1: error: no"),
        (["a.c:1:1: error: no", END, WAITING, "cc -c b.c"], "a.c:1:1: error: no"),
        (["make[1]: *** [b] Error 1", "a.c:1:1: error: no", "cc -c b.c", END, WAITING], "a.c:1:1: error: no"),
        (["/tmp/a.s: Fatal error: cannot write", "cc -c b.c", END], "/tmp/a.s: Fatal error: cannot write"),
        (["/usr/bin/ld: warning: odd", "/usr/bin/ld: disk is full", COLLECT, END], "/usr/bin/ld: disk is full"),
        (["ld.gold: disk is full", COLLECT, END], "ld.gold: disk is full"),
        (["a.c:1: error: a", "a.c:2: error: b", "a.c:3: error: c", END], "a.c:1: error: a / a.c:2: error: b"),
        (["cc -o a a.o", "it was killed", COLLECT, END], f"it was killed / {COLLECT}"),
    ],
)
def test_the_reason_is_said(printed: t.List[str], said: str) -> None:
    assert str(build.BuildError("No", ["", "\n".join(printed)])) == f"No: {said} / {END}"


def test_collect(tmp_path: pathlib.Path) -> None:
    built = tmp_path / "built"
    (built / "lib").mkdir(parents=True)
    (built / "lib" / "a.so.2").write_text("a")
    (built / "lib" / "a.so").symlink_to("a.so.2")
    (built / "lib" / "out").symlink_to("/etc/passwd")
    os.mkfifo(str(built / "lib" / "fifo"))
    build.collect(str(built), str(tmp_path / "tree"))
    assert sorted(os.listdir(str(tmp_path / "tree" / "lib"))) == ["a.so", "a.so.2"]
    assert os.readlink(str(tmp_path / "tree" / "lib" / "a.so")) == "a.so.2"


def stage(tmp_path: pathlib.Path, version: str = "5.9.0") -> pathlib.Path:
    """Make the tree that a build leaves."""
    for name in ("lib", "bin"):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "lib" / "libjemalloc.so.2").write_bytes(f"\0{version}-0-g0123abc\0".encode("ascii"))
    (tmp_path / "lib" / "libjemalloc.so").symlink_to("libjemalloc.so.2")
    (tmp_path / "lib" / "libjemalloc.so.1").symlink_to("libjemalloc.so.2")
    return tmp_path


@pytest.mark.parametrize("wrapper", [True, False])
@pytest.mark.parametrize("strip", [True, False])
def test_finish(tmp_path: pathlib.Path, have: t.Callable[..., None], strip: bool, wrapper: bool) -> None:
    tree = stage(tmp_path)
    for name in ("jemalloc-config", *(["jemalloc.sh"] if wrapper else [])):
        (tree / "bin" / name).write_text("upstream's")
    have(*(["strip"] if strip else []))
    run = Commands()
    assert build.finish(run, str(tree), RELEASE) == "libjemalloc.so.2"
    expected = [(["strip", "--strip-unneeded", f"{tree}/lib/libjemalloc.so.2"], None, None)] if strip else []
    assert run.calls == expected
    assert os.listdir(str(tree / "bin")) == ["jemalloc-config"]


def refusal(tree: pathlib.Path, run: t.Optional[Commands] = None) -> str:
    """Return the message of a build that is not taken."""
    with pytest.raises(JemallocError) as caught:
        build.finish(run or Commands(), str(tree), RELEASE)
    return str(caught.value)


def test_finish_wants_one_library(tmp_path: pathlib.Path) -> None:
    expected = "The build left {} libraries in {}/lib where one was expected."
    assert refusal(tmp_path) == expected.format(0, tmp_path)
    tree = stage(tmp_path)
    (tree / "lib" / "libjemalloc.so.3").write_text("")
    assert refusal(tree) == expected.format(2, tmp_path)


@pytest.mark.parametrize(("version", "said"), [("5.8.0", "5.8.0"), ("", "of no version"), ("0.0.0", "0.0.0")])
def test_finish_wants_the_release(tmp_path: pathlib.Path, have: t.Callable[..., None], version: str, said: str) -> None:
    have()
    assert refusal(stage(tmp_path, version)) == f"The library that was built is jemalloc {said}, not 5.9.0."


def test_finish_when_strip_fails(tmp_path: pathlib.Path, have: t.Callable[..., None]) -> None:
    have("strip")
    message = refusal(stage(tmp_path), Commands(strip=(1, "strip: a\nstrip: file format not recognized\n")))
    assert message == "The library could not be stripped: strip: file format not recognized."
