"""Archives: unpacking without trust, and packing so that the same tree always gives the same bytes."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import typing as t
import zlib

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, is_of_host

#: The largest release so far is 0.9 MB packed and 7 MB unpacked, in 660 members up to 5 deep; these leave room for
#: tenfold growth.
MAX_PACKED = 16 << 20
MAX_UNPACKED = 128 << 20
MAX_MEMBERS = 20_000
MAX_DEPTH = 32

# By the first bytes of a file, which do not lie as a name can.
_COMPRESSIONS: t.Dict[bytes, t.Callable[[t.BinaryIO], t.Any]] = {
    b"BZh": bz2.open,
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ\0": lzma.open,
}

_UNREADABLE = (tarfile.TarError, EOFError, OSError, ValueError, lzma.LZMAError, zlib.error)

_BLOCK = 1 << 20


class _Unpacked:
    """The bytes of a tarball without its compression, to be read once from the start; too many of them are an error.

    The limit counts every byte that comes out, the headers of a tarball included: tarfile reads those into memory.
    """

    def __init__(self, archive: t.BinaryIO) -> None:
        start = archive.read(6)
        archive.seek(0)
        opener = next((opener for magic, opener in _COMPRESSIONS.items() if start.startswith(magic)), None)
        if opener is None:
            raise JemallocError("it is not packed by bzip2, gzip or xz, so it is no tarball of a release")
        self._stream = opener(archive)
        self._left = MAX_UNPACKED

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        data = self._stream.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise JemallocError(f"it unpacks to more than {MAX_UNPACKED >> 20} MiB, too much for a release")
        return data

    def __enter__(self) -> _Unpacked:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stream.close()


def unpack(archive: str, directory: str, holds: str) -> str:
    """Unpack a tarball below directory and return its one top directory, which has to hold an entry of that name.

    Only plain files and directories are taken, below one top directory, within the limits of this file: that is
    what every release and every bundle consists of. The first other member ends it, before a byte of it is written.
    """
    top = ""
    members = 0
    try:
        with open(archive, "rb") as packed, _Unpacked(packed) as stream, _opened(stream) as tar:
            for member in tar:
                members += 1
                if members > MAX_MEMBERS:
                    raise JemallocError(f"it holds more than {MAX_MEMBERS} members, too much for a release")
                name = _safe_name(member)
                first = name.split("/")[0]
                top = top or first
                if first != top:
                    raise JemallocError(f"it has two top directories, {top!r} and {first!r}")
                _extract(tar, member, os.path.join(directory, name))
    except _UNREADABLE as error:
        if isinstance(error, OSError) and is_of_host(error):
            error.filename = error.filename or directory  # a write names no file
            raise
        raise JemallocError(f"The archive {archive} cannot be unpacked: {error}.") from error
    except JemallocError as error:
        raise JemallocError(f"The archive {archive} is refused: {error}.") from error
    if not top or not os.path.exists(os.path.join(directory, top, holds)):
        raise JemallocError(f"The archive {archive} is refused: it holds no {holds}.")
    return os.path.join(directory, top)


def _opened(stream: _Unpacked) -> tarfile.TarFile:
    return tarfile.open(fileobj=t.cast(t.IO[bytes], stream), mode="r|")


def read_file(packed: bytes, name: str, most: int) -> bytes:
    """Return one file below the top directory of an archive that pack() made; most is its largest size in bytes.

    Only the plain headers that pack() writes are accepted. tarfile would read longer ones into memory as a whole.
    """
    if len(packed) > MAX_PACKED:
        raise JemallocError(f"it is larger than {MAX_PACKED >> 20} MiB, too much for a release")
    try:
        with _Unpacked(io.BytesIO(packed)) as stream:
            for _member in range(MAX_MEMBERS):
                member = tarfile.TarInfo.frombuf(stream.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
                if member.type != tarfile.REGTYPE or member.size < 0:
                    raise JemallocError("it holds something else than plain files")
                if member.name.partition("/")[2] == name:
                    return _read(stream, member.size, most, name)
                padded = -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                while padded > 0:
                    padded -= len(stream.read(min(padded, _BLOCK))) or padded
    except _UNREADABLE as error:
        raise JemallocError(f"it cannot be unpacked, or holds no {name}") from error
    raise JemallocError(f"it holds more than {MAX_MEMBERS} members, too much for a release")


def _read(stream: _Unpacked, size: int, most: int, name: str) -> bytes:
    if size > most:
        raise JemallocError(f"its {name} is larger than {most >> 10} KiB")
    return stream.read(size)


def _safe_name(member: tarfile.TarInfo) -> str:
    """Return the normalised name of a member that may be unpacked."""
    name = os.path.normpath(member.name)
    if name.startswith("/") or name.split("/")[0] in ("..", ".") or "\0" in name:
        raise JemallocError(f"its member {member.name!r} leaves the top directory")
    if name.count("/") > MAX_DEPTH:
        raise JemallocError(f"its member {member.name[:40]!r}... is more than {MAX_DEPTH} directories deep")
    if not member.isreg() and not member.isdir():
        raise JemallocError(f"its member {member.name!r} is neither a plain file nor a directory")
    if member.mode & 0o7000 and member.isreg():
        raise JemallocError(f"its member {member.name!r} has a set-user-ID, set-group-ID or sticky bit")
    return name


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    """Write one member; a name that is there already, as a file, is refused by O_EXCL."""
    if member.isdir():
        os.makedirs(path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    stream = tar.extractfile(member)
    if stream is None:
        raise JemallocError(f"its member {member.name!r} has no content")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o755 if member.mode & 0o100 else 0o644)
    with stream, os.fdopen(descriptor, "wb") as target:
        for block in iter(lambda: stream.read(_BLOCK), b""):
            target.write(block)
    # make compares these times: without them it would want to regenerate what the tarball ships.
    os.utime(path, (member.mtime, member.mtime))


def pack(members: t.Mapping[str, t.Tuple[bytes, bool]]) -> bytes:
    """Return a .tar.gz of files (name: content, executable); nothing in it depends on who packs, when and where."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (content, executable) in sorted(members.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755 if executable else 0o644
            tar.addfile(member, io.BytesIO(content))
    # zlib itself, as what gzip's functions write into the header differs between Pythons; 31: a gzip header, 32 KiB
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    return compressor.compress(packed.getvalue()) + compressor.flush()
