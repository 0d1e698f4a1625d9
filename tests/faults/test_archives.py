# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives made by somebody who means harm: not a byte outside the staging directory, one sentence, nothing left."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import typing as t
from pathlib import Path

import pytest
from lab import recorded

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _sandbox as sandbox
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc as module

TOP = "jemalloc-9.9.9"
MEGABYTE = b"\0" * (1 << 20)

Harmful = t.Callable[[Path], None]


def member(name: str, content: bytes = b"", **attributes: t.Any) -> tuple[tarfile.TarInfo, bytes]:
    """Return a member of a tarball."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, content


def inside(name: str, content: bytes = b"", **attributes: t.Any) -> tuple[tarfile.TarInfo, bytes]:
    """Return a member below the top directory of a release."""
    return member(f"{TOP}/{name}", content, **attributes)


SRC = inside("src", type=tarfile.DIRTYPE, mode=0o755)


def tar(*members: tuple[tarfile.TarInfo, bytes], mode: t.Any = "w:gz", kind: int = tarfile.PAX_FORMAT) -> Harmful:
    """Return what writes a tarball of these members behind a directory that makes it look like a release."""

    def write(path: Path) -> None:
        with tarfile.open(path, mode, format=kind, encoding="utf-8", errors="surrogateescape") as archive:
            for info, content in (SRC, *members):
                archive.addfile(info, io.BytesIO(content))

    return write


def raw(content: bytes) -> Harmful:
    """Return what writes bytes."""

    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def header(**fields: bytes) -> bytes:
    """Return the header of a tarball's member with fields that tarfile itself would not write (POSIX ustar)."""
    offsets = {"name": (0, 100), "mode": (100, 8), "size": (124, 12), "mtime": (136, 12), "type": (156, 1)}
    block = bytearray(512)
    values = {"name": TOP.encode() + b"/x", "mode": b"0000644", "size": b"0", "mtime": b"0", "type": b"0", **fields}
    for field, value in values.items():
        start, length = offsets[field]
        block[start : start + length] = value[:length].ljust(length, b"\0")
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def whole() -> bytes:
    """Return a tarball that would do, but for what is done to it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as archive:
        for number in range(40):
            info, content = inside(f"src/{number}.c", struct.pack("<I", number * 2654435761 % 2**32) * 900)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def bomb(path: Path) -> None:
    """Write a gigabyte of zeros in a megabyte."""
    with gzip.open(path, "wb", compresslevel=1) as archive:
        archive.write(header(size=b"%011o" % (1 << 30)))
        for _megabyte in range(1 << 10):
            archive.write(MEGABYTE)


def crowd(path: Path) -> None:
    """Write 100 000 members."""
    with gzip.open(path, "wb", compresslevel=1) as archive:
        for number in range(100_000):
            archive.write(header(name=f"{TOP}/{number}".encode()))


HARMFUL: dict[str, Harmful] = {
    "absolute name": tar(member("/etc/preload-jemalloc-harm", b"x")),
    "two slashes": tar(member("//etc/preload-jemalloc-harm", b"x")),
    "parent": tar(member("../harm", b"x")),
    "parent inside": tar(inside("../../harm", b"x")),
    "parent far inside": tar(inside("a/b/../../../../harm", b"x")),
    "parent as directory": tar(inside("../harm", type=tarfile.DIRTYPE)),
    "symbolic link, then through it": tar(
        inside("x", type=tarfile.SYMTYPE, linkname="/etc"), inside("x/preload-jemalloc-harm", b"x")
    ),
    "symbolic link to the parent": tar(inside("x", type=tarfile.SYMTYPE, linkname="../..")),
    "symbolic link within": tar(inside("x", type=tarfile.SYMTYPE, linkname="src")),
    "hard link out": tar(inside("x", type=tarfile.LNKTYPE, linkname="/etc/passwd")),
    "hard link out by parents": tar(inside("x", type=tarfile.LNKTYPE, linkname="../../../../etc/passwd")),
    "character device": tar(inside("x", type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
    "block device": tar(inside("x", type=tarfile.BLKTYPE, devmajor=7)),
    "fifo": tar(inside("x", type=tarfile.FIFOTYPE)),
    "unknown type": tar(inside("x", type=b"Z")),
    "set-user-ID": tar(inside("x", b"x", mode=0o4755)),
    "set-group-ID": tar(inside("x", b"x", mode=0o2755)),
    "huge declared size": raw(gzip.compress(header(size=b"%011o" % (8 << 30)))),
    "huge declared size in base 256": raw(gzip.compress(header(size=b"\x80\0\0\0\x7f" + b"\xff" * 7))),
    "negative size": raw(gzip.compress(header(size=b"\xff" * 12))),
    "size that is no number": raw(gzip.compress(header(size=b"zz" * 6))),
    "huge long name": raw(gzip.compress(header(type=b"L", size=b"%011o" % (1 << 30)) + MEGABYTE)),
    "huge extended header": raw(gzip.compress(header(type=b"x", size=b"%011o" % (1 << 30)) + MEGABYTE)),
    "long name over the limit": raw(gzip.compress(header(type=b"L", size=b"%011o" % (200 << 20)) + MEGABYTE * 201, 1)),
    "extended header that is none": raw(
        gzip.compress(header(type=b"x", size=b"%011o" % 512) + b"99 path" + b"x" * 505)
    ),
    "sparse file": raw(gzip.compress(header(type=b"S", size=b"%011o" % 512) + b"\xff" * 1024)),
    "decompression bomb": bomb,
    "100 000 members": crowd,
    "empty": raw(b""),
    "empty gzip": raw(gzip.compress(b"")),
    "empty tarball": raw(gzip.compress(b"\0" * 10240)),
    "zip": raw(b"PK\3\4" + b"\0" * 100),
    "plain text": raw(b"#!/bin/sh\nrm -rf /\n"),
    "uncompressed": tar(inside("configure", b"x", mode=0o755), mode="w"),
    "gzip in gzip": raw(gzip.compress(gzip.compress(b"x" * 5000))),
    "bzip2's magic alone": raw(b"BZh9" + b"\xff" * 400),
    "xz's magic alone": raw(b"\xfd7zXZ\0" + b"\xff" * 400),
    "names twice": tar(inside("configure", b"1"), inside("configure", b"2")),
    "file where a directory is": tar(inside("src", b"x")),
    "directory where a file is": tar(inside("x", b"x"), inside("x/y", b"y")),
    "name too long": tar(inside("n" * 300, b"x")),
    "path too deep": tar(inside("d/" * 3000 + "x", b"x")),
    "names in no encoding": tar(inside("\udcff\udcfe", b"x"), inside("../../\udcff", b"x"), kind=tarfile.GNU_FORMAT),
    "control characters in names": tar(inside("../../\x1b[2J\nharm", b"x")),
    "NUL in a name": tar(inside("x", b"x", pax_headers={"path": f"{TOP}/a\0b"})),
    "two top directories": tar(member("other/src", b"x")),
    "no top directory": tar(member("configure", b"x")),
    "top directory is a file": tar(member(TOP, b"x")),
    "no configure": tar(inside("Makefile", b"x")),
    "configure is a directory": tar(inside("configure", type=tarfile.DIRTYPE, mode=0o755)),
    "configure that fails": tar(inside("configure", b"#!/bin/sh\nexit 7\n", mode=0o755)),
    **{f"truncated at {part}/20": raw(whole()[: len(whole()) * part // 20]) for part in range(20)},
}


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", HARMFUL)
def test_harmful_archive(
    tmp_path: Path,
    call: t.Callable[..., dict[str, t.Any]],
    snapshot: t.Callable[[Path], dict[str, t.Any]],
    name: str,
) -> None:
    path = tmp_path / "given.tar"
    HARMFUL[name](path)
    prefix = tmp_path / "opt" / "jemalloc"
    prefix.parent.mkdir()
    before = sorted(snapshot(tmp_path / "opt"))
    with recorded() as written:
        result = call(
            module,
            prefix=str(prefix),
            version="9.9.9",
            checksum=f"sha256:{files.sha256(str(path))}",
            origins=[str(path)],
            build_packages=False,
        )
    assert result["failed"]
    assert "Traceback" not in result["msg"]
    assert "\n" not in result["msg"]
    assert "\x1b" not in result["msg"]
    assert result["msg"].endswith(".")
    logs = tuple(f"{tmp_path}/{dot}preload-jemalloc-9.9.9-build.log" for dot in (".", ""))
    locks = sandbox.LOCK.partition("{")[0]
    assert {place for place in written if not place.startswith((f"{prefix}/", locks, *logs))} <= {str(prefix)}
    assert sorted(snapshot(tmp_path / "opt")) == before
