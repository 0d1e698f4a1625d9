# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ELF files say of themselves, read from real ones."""

from __future__ import annotations

import contextlib
import pathlib
import struct
import subprocess
import sys
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.preload.jemalloc.plugins.module_utils import _elf as elf
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError


def test_a_program() -> None:
    found = elf.read("/bin/sh")
    assert found.bits == (64 if sys.maxsize > 2**32 else 32)
    assert "ld" in found.interpreter
    assert any(name.startswith("libc.") for name in found.needed)
    assert found.dynamic


def test_a_library(library: pathlib.Path) -> None:
    found = elf.read(str(library))
    assert (found.interpreter, found.dynamic) == ("", True)


def test_a_static_program(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.c").write_text("int main(void) { return 0; }")
    subprocess.run(["gcc", "-static", "-o", str(tmp_path / "a"), str(tmp_path / "a.c")], check=True)
    found = elf.read(str(tmp_path / "a"))
    assert (found.interpreter, found.needed, found.dynamic) == ("", (), False)


def test_of_32_bits_and_the_other_byte_order() -> None:
    interpreter = b"/lib/ld.so.1\0"
    header = b"\x7fELF\x01\x02\x01".ljust(16, b"\0") + struct.pack(
        ">HHIIIIIHHHHHH", 2, 20, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0
    )
    program = struct.pack(">IIIIIIII", 3, 84, 0, 0, len(interpreter), 0, 0, 0)
    assert elf.parse(header + program + interpreter) == elf.Elf(32, ">", 20, "/lib/ld.so.1")


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fEL"])
def test_what_is_none(data: bytes) -> None:
    with pytest.raises(JemallocError, match="it is not an ELF file"):
        elf.parse(data)


@given(st.data())
def test_damage_is_an_error_or_an_answer(data: st.DataObject) -> None:
    whole = bytearray(pathlib.Path("/bin/true").read_bytes()[:4096])
    for _change in range(data.draw(st.integers(0, 8))):
        whole[data.draw(st.integers(4, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(JemallocError):
        elf.parse(bytes(whole[: data.draw(st.integers(4, len(whole)))]))


def read_of(data: bytes) -> t.Callable[[int, int], bytes]:
    """Return what reads these bytes as a file is read."""
    return lambda position, size: data[position : position + size]


def test_constants_of_a_program(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.c").write_text('const char *volatile text = "a constant"; int main(void) { return !text; }')
    subprocess.run(["gcc", "-o", str(tmp_path / "a"), str(tmp_path / "a.c")], check=True)
    data = (tmp_path / "a").read_bytes()
    (start, size), *rest = elf.constants(read_of(data))
    assert b"a constant\0" in data[start : start + size]
    assert rest == []


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x01".ljust(64, b"\xff")])
def test_constants_of_what_has_no_sections(data: bytes) -> None:
    assert elf.constants(read_of(data)) == [(0, elf._MOST_BYTES)]


@given(st.data())
def test_constants_of_a_damaged_program(data: st.DataObject) -> None:
    whole = bytearray(pathlib.Path("/bin/true").read_bytes())
    for _change in range(data.draw(st.integers(0, 8))):
        whole[data.draw(st.integers(0, 63) | st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    for start, size in elf.constants(read_of(bytes(whole))):
        assert 0 <= start <= start + size <= elf._MOST_BYTES
