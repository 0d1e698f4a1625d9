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


INTERPRETER, STRINGS, CONSTANTS = b"/lib/ld.so.1\0", b"\0liba.so\0libb.so.2\0", b"a constant\0"
NAMES = b"\0.rodata\0.shstrtab\0"
BASE = 0x10000  # where the file is loaded, so that addresses are no offsets


def made(bits: int, order: str, machine: int = 22, behind: t.Tuple[t.Tuple[int, int], ...] = ()) -> bytes:
    """Return a program of a class and a byte order: with an interpreter, two needed libraries and constants.

    behind are entries of its dynamic section after the one that ends it.
    """
    word, header, segment = ("Q", 64, 56) if bits == 64 else ("I", 52, 32)
    at = {"interpreter": header + 3 * segment}
    at["strings"] = at["interpreter"] + len(INTERPRETER)
    at["dynamic"] = at["strings"] + len(STRINGS)
    entries = ((1, 1), (1, 9), (5, BASE + at["strings"]), (0, 0), *behind)  # DT_NEEDED twice, DT_STRTAB, DT_NULL
    dynamic = b"".join(struct.pack(f"{order}{2 * word}", *entry) for entry in entries)
    at["constants"] = at["dynamic"] + len(dynamic)
    at["names"] = at["constants"] + len(CONSTANTS)
    at["sections"] = at["names"] + len(NAMES)

    def program(kind: int, start: int, size: int) -> bytes:
        place = (start, BASE + start, 0, size, size)
        if bits == 64:
            return struct.pack(f"{order}IIQQQQQQ", kind, 0, *place, 0)
        return struct.pack(f"{order}IIIIIIII", kind, *place, 0, 0)

    def section(name: int, start: int, size: int) -> bytes:
        return struct.pack(f"{order}II{4 * word}II{2 * word}", name, 1, 0, 0, start, size, 0, 0, 0, 0)

    sections = [section(0, 0, 0), section(1, at["constants"], len(CONSTANTS)), section(9, at["names"], len(NAMES))]
    counts = (header, segment, 3, len(sections[0]), len(sections), 2)
    places = struct.pack(f"{order}HHI{3 * word}I6H", 2, machine, 1, 0, header, at["sections"], 0, *counts)
    segments = (3, at["interpreter"], len(INTERPRETER)), (1, 0, at["sections"]), (2, at["dynamic"], len(dynamic))
    start = b"\x7fELF" + bytes([bits // 32, {"<": 1, ">": 2}[order], 1]).ljust(12, b"\0") + places
    body = INTERPRETER + STRINGS + dynamic + CONSTANTS + NAMES
    return start + b"".join(program(*each) for each in segments) + body + b"".join(sections)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_class_and_byte_order(bits: int, order: str) -> None:
    data = made(bits, order)
    assert elf.parse(data) == elf.Elf(bits, order, 22, "/lib/ld.so.1", ("liba.so", "libb.so.2"), True)
    ((start, size),) = elf.constants(read_of(data))
    assert data[start : start + size] == CONSTANTS


def test_what_stands_behind_the_end_of_the_dynamic_section_counts_for_nothing() -> None:
    # linkers leave room there, and tools that edit programs leave what was there before
    assert elf.parse(made(64, "<", behind=((1, 9), (1, 4), (5, 0)))).needed == ("liba.so", "libb.so.2")


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("cut", [1, 100, 200])
def test_what_is_cut_off_is_seen(bits: int, cut: int) -> None:
    with pytest.raises(JemallocError, match="its ELF headers are damaged or cut off"):
        elf.parse(made(bits, ">")[:-cut])


def changed(position: int, value: int) -> bytes:
    """Return a program of 64 bits with another number at a place."""
    data = bytearray(made(64, "<"))
    struct.pack_into("<Q", data, position, value)
    return bytes(data)


@pytest.mark.parametrize("position", [96, 152, 208])  # p_filesz of each segment
def test_a_segment_that_ends_behind_the_file(position: int) -> None:
    with pytest.raises(JemallocError, match="its ELF headers are damaged or cut off"):
        elf.parse(changed(position, 1 << 20))


def test_a_dynamic_section_without_its_last_entry() -> None:
    assert elf.parse(changed(208, 48)).needed == ("liba.so", "libb.so.2")


def test_a_name_without_an_end() -> None:
    dynamic = 64 + 3 * 56 + len(INTERPRETER) + len(STRINGS)
    with pytest.raises(JemallocError, match="its ELF headers are damaged or cut off"):
        elf.parse(changed(dynamic + 8, 1 << 20))


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
