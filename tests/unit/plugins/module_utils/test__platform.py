# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from a library's bytes and from the host."""

from __future__ import annotations

import os
import pathlib
import re
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform


@pytest.mark.parametrize(
    ("machine", "expected"),
    [("x86_64", 12), ("i686", 12), ("armv7l", 12), ("s390x", 12), ("riscv64", 12), ("aarch64", 16), ("ppc64le", 16)],
)
def test_lg_page(machine: str, expected: int) -> None:
    assert platform.lg_page(machine) == expected


@pytest.mark.parametrize(
    ("answer", "expected"), [("glibc 2.41", "glibc"), (None, "musl"), (ValueError(), "musl"), (OSError(), "musl")]
)
def test_libc(monkeypatch: pytest.MonkeyPatch, answer: t.Any, expected: str) -> None:
    def confstr(_name: str) -> t.Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(os, "confstr", confstr)
    assert platform.libc() == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ""),
        (b"jemalloc", ""),
        (b"\x005.3.1-0-g81034ce1f1373e37dc865038e1bc8eeecf559ce8\x00", "5.3.1"),
        (b"\x005.3.0-171-gabc", "5.3.0"),
        (b"x15.3.0-0-g0", "15.3.0"),
        (b"1.5.3.0-0-g0", ""),
        (b"5.3.0-0-gxyz", ""),
    ],
)
def test_library_version(data: bytes, expected: str) -> None:
    assert platform.library_version(data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ""),
        (b"\0GLIBC_PRIVATE\0", ""),
        (b"\0GLIBC_2.2.5\0GLIBC_2.14\0GLIBC_2.4\0", "2.14"),
        (b"\0GLIBC_2.9\0GLIBC_2.34\0GLIBCXX_3.4.30\0", "2.34"),
        (b"GLIBC_2.99 is only text", ""),
    ],
)
def test_lowest_glibc(data: bytes, expected: str) -> None:
    assert platform.lowest_glibc(data) == expected


@pytest.mark.parametrize(
    ("machine", "family", "page", "expected"),
    [("x86_64", "glibc", None, 12), ("aarch64", "musl", None, 16), ("aarch64", "glibc", 14, 14)],
)
def test_platform(library: pathlib.Path, machine: str, family: str, page: t.Optional[int], expected: int) -> None:
    found = platform.platform(library.read_bytes(), machine, family, page)
    assert re.fullmatch(r"(2\.[0-9.]+)?", found.pop("libc_lowest"))
    assert found == {"architecture": machine, "libc": family, "lg_page": expected}


@pytest.mark.parametrize(
    ("needed", "expected"),
    [
        (["libm.so.6", "libc.so.6"], "glibc"),
        (["libc.so"], "musl"),
        (["libgcc_s.so.1", "libc.musl-x86_64.so.1"], "musl"),
        (["libm.so.6"], ""),
        ([], ""),
    ],
)
def test_linked_libc(needed: t.List[str], expected: str) -> None:
    assert platform.linked_libc(needed) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\0GNU C Library (Debian GLIBC 2.36-9+deb12u13) stable release version 2.36.\n", "2.36"),
        (b"\0GNU C Library (GNU libc) development release version 2.42.9000.\n", "2.42"),
        (b"\0GNU C Library\0release version 2.1", ""),
        (b"", ""),
    ],
)
def test_glibc_version(data: bytes, expected: str) -> None:
    assert platform.glibc_version(data) == expected
