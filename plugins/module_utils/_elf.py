"""What an ELF file says of itself: for which machine it is, which loader it asks for, which libraries it needs."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import struct
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

# elf(5)
_MAGIC = b"\x7fELF"
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5
_CONSTANTS = b".rodata"

# A file that says it has more of these than any real one is damaged.
_MOST_ENTRIES = 4096

# No program has more constants, nor more names of sections.
_MOST_BYTES = 1 << 28
_MOST_NAMES = 1 << 20


@dataclass(frozen=True)
class Elf:
    """Bits (32 or 64), byte order, machine number, the loader (empty: none is needed), and the libraries needed."""

    bits: int
    order: str
    machine: int
    interpreter: str = ""
    needed: t.Tuple[str, ...] = ()
    dynamic: bool = False


def is_elf(data: bytes) -> bool:
    """Whether this is the start of an ELF file."""
    return data[: len(_MAGIC)] == _MAGIC


def read(path: str) -> Elf:
    """Return what the ELF file of this path says of itself."""
    with open(path, "rb") as stream:
        return parse(stream.read())


def parse(data: bytes) -> Elf:
    """Return what an ELF file says of itself; a damaged or cut one is an error."""
    if not is_elf(data):
        raise JemallocError("it is not an ELF file")
    try:
        return _parse(data)
    except (struct.error, IndexError, KeyError, ValueError) as error:
        raise JemallocError("its ELF headers are damaged or cut off") from error


def _parse(data: bytes) -> Elf:
    bits, order = {1: 32, 2: 64}[data[4]], {1: "<", 2: ">"}[data[5]]
    machine = struct.unpack_from(f"{order}H", data, 18)[0]
    offset = struct.unpack_from(f"{order}Q" if bits == 64 else f"{order}I", data, 32 if bits == 64 else 28)[0]
    sections = struct.unpack_from(f"{order}Q" if bits == 64 else f"{order}I", data, 40 if bits == 64 else 32)[0]
    section_size, section_count = struct.unpack_from(f"{order}HH", data, 58 if bits == 64 else 46)
    # They stand at the end: whatever was cut off, this shows it.
    if sections + section_size * section_count > len(data):
        raise ValueError("the section headers end behind the end of the file")
    size, count = struct.unpack_from(f"{order}HH", data, 54 if bits == 64 else 42)
    interpreter, loads, dynamic = "", [], None
    for index in range(count):
        # p_type, p_offset, p_vaddr, p_filesz; the order of the fields differs between the classes
        layout, fields = ("IIQQQQ", (0, 2, 3, 5)) if bits == 64 else ("IIIII", (0, 1, 2, 4))
        header = struct.unpack_from(f"{order}{layout}", data, offset + index * size)
        kind, start, address, length = (header[field] for field in fields)
        if kind in (_PT_LOAD, _PT_DYNAMIC, _PT_INTERP) and start + length > len(data):
            raise ValueError("a segment ends behind the end of the file")
        if kind == _PT_LOAD:
            loads.append((address, start, length))
        elif kind == _PT_INTERP:
            interpreter = data[start : start + length].split(b"\0")[0].decode("ascii")
        elif kind == _PT_DYNAMIC:
            dynamic = start, length
    needed = _needed(data, bits, order, loads, *dynamic) if dynamic else ()
    return Elf(bits, order, machine, interpreter, needed, dynamic is not None)


def _needed(
    data: bytes, bits: int, order: str, loads: t.Sequence[t.Tuple[int, int, int]], start: int, length: int
) -> t.Tuple[str, ...]:
    """Return the DT_NEEDED entries of the dynamic section that is at start."""
    layout = f"{order}{'QQ' if bits == 64 else 'II'}"
    entries: t.List[t.Tuple[int, int]] = []
    for position in range(start, start + length, struct.calcsize(layout)):
        tag, value = struct.unpack_from(layout, data, position)
        if tag == _DT_NULL or len(entries) > _MOST_ENTRIES:
            break
        entries.append((tag, value))
    address = next((value for tag, value in entries if tag == _DT_STRTAB), None)
    names = [value for tag, value in entries if tag == _DT_NEEDED]
    if address is None or not names:
        return ()
    strings = next(at + address - base for base, at, size in loads if base <= address < base + size)
    ends = {name: data.find(b"\0", strings + name) for name in names}
    if -1 in ends.values():
        raise ValueError("a name has no end")
    return tuple(data[strings + name : end].decode("ascii") for name, end in ends.items())


def constants(read_at: t.Callable[[int, int], bytes]) -> t.List[t.Tuple[int, int]]:
    """Return where a file has its constants, as offsets and sizes; read_at(offset, size) gives its bytes.

    Of a file that has no such sections, or is damaged, that is all of it, up to the end that reading shows.
    """
    try:
        found = _constants(read_at)
    except (struct.error, IndexError, KeyError, OSError, OverflowError):
        found = []
    fits = [(start, size) for start, size in found if start + size <= _MOST_BYTES]
    return fits or [(0, _MOST_BYTES)]


def _constants(read_at: t.Callable[[int, int], bytes]) -> t.List[t.Tuple[int, int]]:
    header = read_at(0, 64)
    if not is_elf(header):
        return []
    bits, order = {1: 32, 2: 64}[header[4]], {1: "<", 2: ">"}[header[5]]
    table = struct.unpack_from(f"{order}Q" if bits == 64 else f"{order}I", header, 40 if bits == 64 else 32)[0]
    size, count, names_at = struct.unpack_from(f"{order}HHH", header, 58 if bits == 64 else 46)
    if size > len(header):
        return []
    # sh_name, sh_offset, sh_size; the width of what stands between them differs between the classes
    layout = f"{order}IIQQQQ" if bits == 64 else f"{order}IIIIII"
    headers = read_at(table, size * count)
    sections = [struct.unpack_from(layout, headers, index * size) for index in range(count)]
    start, length = sections[names_at][4:6]
    names = read_at(start, min(length, _MOST_NAMES))
    return [section[4:6] for section in sections if names.startswith(_CONSTANTS, section[0])]
