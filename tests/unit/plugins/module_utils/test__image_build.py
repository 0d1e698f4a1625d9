# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A library for an image is built in a container: what that is told to do, and what it may answer."""

from __future__ import annotations

import os
import pathlib
import subprocess
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archive
from ansible_collections.preload.jemalloc.plugins.module_utils import _build as build
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _image_build as image_build
from ansible_collections.preload.jemalloc.plugins.module_utils import _image_engine as engines
from ansible_collections.preload.jemalloc.plugins.module_utils import _install as install
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.module_utils._host import with_errors

GLIBC = platform.Here("x86_64", "glibc", "2.36", 12)
MUSL = platform.Here("x86_64", "musl", "", 12)
WITH_ERRORS = with_errors([])


class Builder:
    """An engine whose container is a directory of this machine: what is copied and built really is."""

    def __init__(
        self, directory: pathlib.Path, libc: str = "glibc", tools: str = "gcc make", manager: str = ""
    ) -> None:
        """Describe it."""
        self._root = directory / "container"
        self._libc = libc
        self._tools = [*tools.split(), *manager.split()]
        self.asked: t.List[t.List[str]] = []
        self.fails = ""

    def __call__(self, command: t.Sequence[str], _cwd: t.Any, data: t.Optional[str]) -> t.Tuple[int, str]:
        """Run a command of the engine."""
        self.asked.append(list(command[1:]))
        if command[1] == "cp":
            source, target = (self._path(each) for each in command[2:])
            done = subprocess.run(["cp", "-r", source, target], check=False)
            return done.returncode, ""
        return self._exec(list(command[2:])) if command[1] == "exec" else (0, "")

    def _path(self, name: str) -> str:
        _container, colon, inside = name.partition(":")
        return f"{self._root}{inside}" if colon else name

    def _exec(self, words: t.List[str]) -> t.Tuple[int, str]:
        words = words[words.index("n") + 1 :]
        words = words[len(WITH_ERRORS) :] if words[: len(WITH_ERRORS)] == WITH_ERRORS else words
        if words[0] == "getconf":
            return (0, "glibc 2.31") if self._libc == "glibc" else (1, "unknown variable")
        if words[0] == "/bin/sh":
            return (0, "") if words[-1] in self._tools else (127, "")
        if "./configure" in words:
            self._root.joinpath("prefix").write_text(words[words.index("./configure") + 1])
        if self.fails and self.fails in words:
            return 2, "x.c:1: error: no"
        if "make" in words:
            home = f"{self._root}/jemalloc-root{self._root.joinpath('prefix').read_text()[len('--prefix=') :]}"
            os.makedirs(f"{home}/lib")
            with open(f"{home}/lib/libjemalloc.so.2", "wb") as stream:
                stream.write(b"\0GLIBC_2.17\0\x009.9.9-0-g0\0")
        return 0, ""

    def commands(self, verb: str) -> t.List[t.List[str]]:
        """Return what followed such a command of the engine."""
        return [asked[1:] for asked in self.asked if asked[0] == verb]


class Host:
    """A host that has the source, and no archive."""

    def archive_roots(self) -> t.List[str]:
        """Return the pools of the distribution."""
        return []

    def fetch(self, candidate: t.Any, path: str) -> None:
        """Bring a candidate's bytes."""
        subprocess.run(["cp", candidate.location, path], check=True)


@pytest.fixture
def make(
    tmp_path: pathlib.Path, tarball: t.Callable[[str], t.Tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> t.Callable[..., t.Tuple[str, t.Dict[str, t.Any]]]:
    """Build 9.9.9 in such a container."""
    (tmp_path / "container").mkdir()
    path, checksum = tarball("9.9.9")

    def run(
        builder: Builder, here: platform.Here, options: t.Optional[build.Options] = None, **more: t.Any
    ) -> t.Tuple[str, t.Dict[str, t.Any]]:
        release = catalogue.Release("9.9.9", checksum[len("sha256:") :])
        request = install.Request(
            "/opt/jemalloc", release, store.Wish("9.9.9"), options or build.Options(), [path], **more
        )
        engine = engines.Engine(builder, "podman")
        stage = image_build.Stage(engine, "n", "debian:11", engines.Image("id", "amd64"))
        work = tmp_path / "work"
        work.mkdir()
        return image_build.make(t.cast(t.Any, Host()), stage, request, here, str(work))

    return run


Make = t.Callable[..., t.Tuple[str, t.Dict[str, t.Any]]]


def test_glibc(tmp_path: pathlib.Path, make: Make, tarball: t.Callable[[str], t.Tuple[str, str]]) -> None:
    builder = Builder(tmp_path)
    tree, receipt = make(builder, GLIBC)
    assert os.listdir(f"{tree}/lib") == ["libjemalloc.so.2"]
    assert receipt["platform"] == {"architecture": "x86_64", "libc": "glibc", "libc_lowest": "2.17", "lg_page": 12}
    assert receipt["home"] == "/opt/jemalloc/9.9.9"
    assert (receipt["origin"], f"sha256:{receipt['source']['sha256']}") == tarball("9.9.9")
    assert receipt["configure"][:2] == ["--prefix=/opt/jemalloc/9.9.9", "--with-lg-page=12"]
    (started,) = builder.commands("run")
    assert started[-3:] == ["--entrypoint=sleep", "id", "7200"]
    assert "--network=none" not in started
    brought, taken = builder.commands("cp")
    assert (brought[1], taken[0]) == ("n:/jemalloc-source", "n:/jemalloc-root/opt/jemalloc/9.9.9")
    assert (builder.asked[0], builder.asked[-1]) == (["rm", "--force", "n"], ["rm", "--force", "n"])
    steps = [asked for asked in builder.commands("exec") if asked[2 : 2 + len(WITH_ERRORS)] == WITH_ERRORS]
    assert [step[0] for step in steps] == ["--workdir=/jemalloc-source"] * 3
    strip = [*("-name", "libjemalloc.so.*"), *("-exec", "strip", "--strip-unneeded", "{}", "+")]
    assert steps[2][-11:] == ["find", "/jemalloc-root/opt/jemalloc/9.9.9/lib", "-type", "f", *strip]


@pytest.mark.parametrize(
    ("libc", "tools", "compiler"),
    [("musl", "gcc make", []), ("glibc", "gcc make musl-gcc", ["CC=musl-gcc"])],
)
def test_musl(tmp_path: pathlib.Path, make: Make, libc: str, tools: str, compiler: t.List[str]) -> None:
    _tree, receipt = make(Builder(tmp_path, libc, tools), MUSL)
    assert receipt["platform"]["libc"] == "musl"
    assert [word for word in receipt["configure"] if word.startswith("CC=")] == compiler


def test_another_machine(tmp_path: pathlib.Path, make: Make) -> None:
    _tree, receipt = make(Builder(tmp_path), platform.Here("aarch64", "glibc", "2.36", 16))
    assert (receipt["platform"]["architecture"], receipt["platform"]["lg_page"]) == ("aarch64", 16)
    assert "--with-lg-page=16" in receipt["configure"]


def test_packages_are_installed(tmp_path: pathlib.Path, make: Make) -> None:
    builder = Builder(tmp_path, tools="make", manager="apt-get")
    make(builder, MUSL)
    installed = [asked for asked in builder.commands("exec") if "install" in asked]
    assert installed == [["n", *build.PACKAGE_MANAGERS["apt-get"], "musl-tools", "gcc"]]


@pytest.mark.parametrize(
    ("tools", "manager", "allowed", "lacking"),
    [
        ("make", "apt-get", False, "gcc, libc6-dev"),
        ("gcc", "", True, "make"),
    ],
)
def test_packages_are_not_to_be_had(
    tmp_path: pathlib.Path, make: Make, tools: str, manager: str, allowed: bool, lacking: str
) -> None:
    builder = Builder(tmp_path, tools=tools, manager=manager)
    with pytest.raises(JemallocError) as caught:
        make(builder, GLIBC, build_packages=allowed)
    assert str(caught.value) == (
        f"builder: jemalloc 9.9.9 cannot be built in debian:11, which lacks {lacking}; name one that has it, or allow "
        "its installation (build_packages: true)."
    )
    assert ("--network=none" in builder.commands("run")[0]) != allowed
    assert builder.asked[-1] == ["rm", "--force", "n"]


def test_builder_with_the_other_libc(tmp_path: pathlib.Path, make: Make) -> None:
    with pytest.raises(JemallocError) as caught:
        make(Builder(tmp_path, "musl"), GLIBC)
    assert str(caught.value) == (
        "builder: debian:11 has musl, and the image needs a library for glibc; name a builder with that."
    )


def test_no_cxx_by_the_wrapper_of_musl(tmp_path: pathlib.Path, make: Make) -> None:
    with pytest.raises(JemallocError) as caught:
        make(Builder(tmp_path), MUSL, build.Options(cxx=True))
    assert str(caught.value) == (
        "options: cxx is not to be had for musl from debian:11, whose C++ library is for glibc; name a builder with "
        "musl, or leave cxx out."
    )


def test_a_build_that_fails(tmp_path: pathlib.Path, make: Make) -> None:
    builder = Builder(tmp_path)
    builder.fails = "make"
    with pytest.raises(JemallocError) as caught:
        make(builder, GLIBC)
    log = install.log_path(install.LOGS[0], "9.9.9")
    assert str(caught.value) == (
        f"jemalloc 9.9.9 does not build here, make ended with 2: x.c:1: error: no (in debian:11); all that it printed "
        f"is in {log}."
    )
    assert "x.c:1: error: no" in pathlib.Path(log).read_text()


def test_a_source_without_configure(tmp_path: pathlib.Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    unpack = archive.unpack

    def snapshot(path: str, directory: str, holds: str) -> str:
        top = unpack(path, directory, holds)
        os.unlink(f"{top}/configure")
        return top

    monkeypatch.setattr(archive, "unpack", snapshot)
    builder = Builder(tmp_path, manager="apk")
    make(builder, GLIBC)
    assert ["n", "apk", "add", "autoconf"] in builder.commands("exec")
    assert ["autoconf"] in [asked[-1:] for asked in builder.commands("exec")]


def test_data_and_directory_of_a_command(tmp_path: pathlib.Path) -> None:
    builder = Builder(tmp_path)
    stage = image_build.Stage(engines.Engine(builder, "docker"), "n", "b", engines.Image("id", "amd64"))
    stage.run(["gcc", "-"], "/x", "int x;")
    assert builder.asked == [["exec", "--interactive", "--workdir=/x", "n", "gcc", "-"]]
