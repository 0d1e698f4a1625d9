# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image is, by its files: links, loaders, C libraries and their versions, and what it can run."""

from __future__ import annotations

import io
import os
import pathlib
import re
import subprocess
import tarfile
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _elf as elf
from ansible_collections.preload.jemalloc.plugins.module_utils import _image_files as image_files
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.module_utils._image_engine import Image

Content = t.Union[bytes, str, None]


def files_of(members: t.Mapping[str, Content]) -> image_files.Files:
    """Return an image with files (bytes), links (texts; one that begins with = is a hard one), and directories."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                member.type = tarfile.LNKTYPE if content.startswith("=") else tarfile.SYMTYPE
                member.linkname = content.lstrip("=")
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    packed.seek(0)
    return image_files.Files(tarfile.open(fileobj=packed))


TREE: t.Dict[str, Content] = {
    "./usr": None,
    "./usr/bin": None,
    "./usr/bin/sh": b"shell",
    "bin": "usr/bin",
    "etc": None,
    "etc/absolute": "/bin/sh",
    "etc/up": "../../usr/./bin//sh",
    "etc/hard": "=usr/bin/sh",
    "etc/loop": "loop",
    "etc/nowhere": "/none",
}


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("/usr/bin/sh", "usr/bin/sh"),
        ("bin/sh", "usr/bin/sh"),
        ("/etc/absolute", "usr/bin/sh"),
        ("/etc/up", "usr/bin/sh"),
        ("/etc/hard", "etc/hard"),
        ("/etc/loop", ""),
        ("/etc/nowhere", ""),
        ("/bin/none", ""),
        ("/bin", "usr/bin"),
    ],
)
def test_resolve(path: str, leads: str) -> None:
    files = files_of(TREE)
    assert files.resolve(path) == leads
    assert files.read(path) == (b"shell" if leads.endswith(("sh", "hard")) else None)


def test_locate() -> None:
    files = files_of(TREE)
    assert files.locate("sh", ["/none", "/bin", "/usr/bin"]) == "/bin/sh"
    assert files.locate("/etc/absolute", []) == "/etc/absolute"
    assert files.locate("none", ["/bin"]) == ""
    assert files.matching(re.compile(r"usr/bin/s.")) == ["usr/bin/sh"]
    assert files.elf("/bin/sh") is None
    assert files.elf("/none") is None


@pytest.mark.parametrize("content", [b"", b"no tar"])
def test_export_that_is_none(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(JemallocError, match=r"^base: the files that were exported cannot be read: "):
        image_files.open_export(str(tmp_path / "x.tar"))


def test_export(tmp_path: pathlib.Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a"))
    with image_files.open_export(str(tmp_path / "x.tar")) as tar:
        assert image_files.Files(tar).read("/a") == b""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> t.Callable[[str], bytes]:
    """Return a program that asks for a loader."""
    directory = tmp_path_factory.mktemp("programs")
    (directory / "main.c").write_text("int main(void) { return 0; }")

    def make(loader: str) -> bytes:
        path = directory / f"program{loader.replace('/', '_')}"
        options = [f"-Wl,--dynamic-linker={loader}"] if loader else ["-static"]
        subprocess.run(["gcc", *options, "-o", str(path), str(directory / "main.c")], check=True)
        return path.read_bytes()

    return make


@pytest.fixture(scope="module")
def library(program: t.Callable[[str], bytes]) -> bytes:
    """The bytes of a C library that says it is 2.31."""
    return program("/x") + b"\0GNU C Library (Debian GLIBC 2.31-13) stable release version 2.31.\n"


GLIBC, MUSL = "/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"
AMD = Image("1", "amd64")


def directories(*paths: str) -> t.Dict[str, Content]:
    """Return the directories that lead to paths."""
    found: t.Dict[str, Content] = {}
    for path in paths:
        parts = path.strip("/").split("/")[:-1]
        found.update({"/".join(parts[: count + 1]): None for count in range(len(parts))})
    return found


@pytest.mark.parametrize("place", ["lib/x86_64-linux-gnu", "lib64", "usr/lib", "usr/lib64"])
def test_glibc(library: bytes, program: t.Callable[[str], bytes], place: str) -> None:
    path = f"{place}/libc.so.6"
    members = {
        **directories(path, GLIBC),
        "lib64/ld-linux-x86-64.so.2": program("/x"),
        path: library,
        # one that is not where a loader looks, and one that is no library
        **directories("srv/lib/libc.so.6", "usr/lib/aa/libc.so.6"),
        "srv/lib/libc.so.6": library.replace(b"2.31", b"2.99"),
        "usr/lib/aa/libc.so.6": b"/* GNU ld script */",
    }
    found = image_files.look(files_of(members), AMD, "a")
    assert found.here == platform.Here("x86_64", "glibc", "2.31", 12)
    assert found.loader == GLIBC
    assert found.elf.bits == 64


def test_glibc_of_which_there_is_only_the_loader(program: t.Callable[[str], bytes]) -> None:
    members = {**directories(GLIBC, "lib/libc.so.6"), GLIBC[1:]: program("/x"), "lib/libc.so.6": program("/y")}
    with pytest.raises(JemallocError) as caught:
        image_files.look(files_of(members), AMD, "a")
    assert str(caught.value) == (
        "base: a has the dynamic loader of glibc, but no libc.so.6 with a version below /lib, /lib64 or /usr; take an "
        "image that has the whole of it."
    )


def test_musl(program: t.Callable[[str], bytes]) -> None:
    found = image_files.look(files_of({**directories(MUSL), MUSL[1:]: program("/x")}), AMD, "a")
    assert (found.here, found.loader) == (platform.Here("x86_64", "musl", "", 12), MUSL)


def test_another_machine_has_another_loader_and_larger_pages(program: t.Callable[[str], bytes]) -> None:
    path = "lib/ld-musl-aarch64.so.1"
    members = {**directories(path, MUSL), path: program("/x"), MUSL[1:]: program("/x")}
    found = image_files.look(files_of(members), Image("1", "arm64"), "a")
    assert found.here == platform.Here("aarch64", "musl", "", 16)


@pytest.mark.parametrize(
    ("started", "shell", "family"),
    [
        ({"entrypoint": ("/app",)}, GLIBC, "musl"),
        ({"command": ("app",)}, GLIBC, "musl"),
        ({"command": ("nothing",)}, GLIBC, "glibc"),
        ({}, MUSL, "musl"),
        ({}, "", "glibc"),
        ({}, "/lib/other.so", "glibc"),
    ],
)
def test_both(
    program: t.Callable[[str], bytes], library: bytes, started: t.Dict[str, t.Any], shell: str, family: str
) -> None:
    members = {
        **directories(GLIBC, MUSL, "bin/sh"),
        "app": program(MUSL),
        GLIBC[1:]: program("/x"),
        MUSL[1:]: program("/x"),
        "lib/libc.so.6": library,
        "bin/sh": program(shell),
    }
    base = Image("1", "amd64", environment={"PATH": "/"}, **started)
    assert image_files.look(files_of(members), base, "a").here.libc == family


def test_nothing_but_static_programs(program: t.Callable[[str], bytes]) -> None:
    with pytest.raises(JemallocError) as caught:
        image_files.look(files_of({"app": program("")}), AMD, "a")
    assert str(caught.value) == (
        f"base: a has no dynamic loader for x86_64 ({GLIBC} or {MUSL}): what it runs is static, and nothing can be "
        "preloaded into that; take an image with a C library."
    )


def test_a_machine_that_is_not_known() -> None:
    with pytest.raises(JemallocError, match=r"^base: a is for sparc, which this collection does not know; it knows "):
        image_files.look(files_of({}), Image("1", "sparc"), "a")


def test_this_machine_is_known() -> None:
    machine = os.uname().machine
    assert machine in image_files._MACHINES.values()
    interpreter = elf.read(os.path.realpath("/bin/true")).interpreter
    assert interpreter in image_files._LOADERS[machine].values()
