# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Profiles on the controller: what a host made of its dumps becomes files here, and a few lines say what they are."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import base64
import codecs
import os
import re
import shutil
import typing as t
import zlib

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _answers as answers
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _graphs as graphs

# A host may send anything: these are names of files that it makes, and parts of the path that they get here.
_NAME = re.compile(r"[0-9]{1,10}\.(?:collapsed|dot|growth\.txt|heap|raw\.heap|svg|txt)", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9:_.\\@-]+")

# Files of a profile: six of each of eight processes.
_MOST_FILES = 64

# Bytes that a file may take here, as it comes and unpacked, and all of them; a dump of that size has tens of thousands
# of stacks.
_MOST_PACKED = 16 << 20
_MOST_BYTES = 512 << 20
_MOST_TOGETHER = 2 << 30

# Bytes that are in memory at a time.
_BLOCK = 1 << 20


def place(directory: str, host: str, unit: str, began: str) -> str:
    """Return the directory of a profile; JemallocError: a name cannot be part of a path."""
    for part in (host, unit, began):
        if not _PART.fullmatch(part) or part.startswith("."):
            raise JemallocError(f"directory: {part!r} cannot be the name of a directory; give the host another name.")
    return os.path.join(directory, host, unit, began)


def keep(directory: str, contents: t.Any) -> t.Tuple[t.List[str], t.List[str]]:
    """Write packed files into a directory that only its owner can read; return their paths, and what is left out.

    JemallocError says what the host never makes; then nothing is written. OSError: they cannot be written.
    """
    if not isinstance(contents, dict) or len(contents) > _MOST_FILES:
        raise JemallocError("contents is no mapping of the files of a profile")
    left = _MOST_TOGETHER
    for name, content in contents.items():
        left -= sum(map(len, _unpacked(name, content, left)))
    kept = {name: content for name, content in sorted(contents.items()) if _is_harmless(name, content)}
    os.makedirs(directory, mode=0o700, exist_ok=True)
    os.chmod(directory, 0o700)
    for name, content in kept.items():
        _write(os.path.join(directory, name), _plain(name, _unpacked(name, content)))
    left_out = [f"{name} of the host is left out, as dot does not draw that." for name in contents if name not in kept]
    return [os.path.join(directory, name) for name in kept], left_out


def _unpacked(name: str, content: t.Any, most: int = _MOST_TOGETHER) -> t.Iterator[bytes]:
    """Yield the blocks of a file."""
    if not _NAME.fullmatch(name):
        raise JemallocError(f"{name[:80]!r} is no file of a profile")
    if not isinstance(content, str) or len(content) > _MOST_PACKED:
        raise JemallocError(f"{name} is no text of at most {_MOST_PACKED >> 20} MiB")
    size, most, reader = 0, min(most, _MOST_BYTES), zlib.decompressobj()
    try:
        block = reader.decompress(base64.b64decode(content, validate=True), _BLOCK)
        while block and size <= most:
            size += len(block)
            yield block
            block = reader.decompress(reader.unconsumed_tail, _BLOCK)
    except (ValueError, zlib.error) as error:
        raise JemallocError(f"{name} cannot be unpacked ({error})") from error
    if not reader.eof or size > most:
        raise JemallocError(f"{name} is cut off, or larger than {most >> 20} MiB")


def _is_harmless(name: str, content: str) -> bool:
    """Whether a browser can open a file; only pictures are for browsers."""
    if not name.endswith(".svg"):
        return True
    data = b""
    for block in _unpacked(name, content):
        data += block
        if len(data) > graphs.MOST_PICTURE:
            return False
    return graphs.is_picture(data)


def _plain(name: str, blocks: t.Iterator[bytes]) -> t.Iterator[bytes]:
    """Yield the blocks of a file without anything that steers a terminal; a dump is for jeprof, and stays as it is."""
    if name.endswith(".heap"):
        yield from blocks
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for block in blocks:
        yield answers.plain(decoder.decode(block)).encode("utf-8")
    yield answers.plain(decoder.decode(b"", final=True)).encode("utf-8")


def _write(path: str, blocks: t.Iterator[bytes]) -> None:
    """Replace a file by one with these blocks; atomic, durable."""
    temporary = files.temporary_name(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with files.about(path), os.fdopen(descriptor, "wb") as stream:
            for block in blocks:
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        files.remove_file(temporary)
        raise
    files.sync_directory(os.path.dirname(path))


def draw(paths: t.Sequence[str]) -> t.Tuple[t.List[str], str]:
    """Make pictures of the graphs among files where there are none; return their paths, and why there are not more."""
    pictures = {path: f"{path[: -len('.dot')]}.svg" for path in paths if path.endswith(".dot")}
    missing = {graph: picture for graph, picture in pictures.items() if picture not in paths}
    if missing and not shutil.which("dot"):
        return [], "Pictures are left out, as neither the host nor this machine has dot, of the package graphviz."
    drawn: t.List[str] = []
    for graph, picture in missing.items():
        try:
            graphs.draw(graph, picture)
        except JemallocError as error:
            return drawn, f"Pictures are left out, as {error}."
        drawn.append(picture)
    return drawn, ""


def summary(result: t.Mapping[str, t.Any]) -> t.List[str]:
    """Return the lines that say what a profile found and where it is."""
    count = len(result["processes"])
    lines = [
        f"{result['unit']} ran for {result['seconds']:g} s with profiling by jemalloc {result['version']}, and "
        f"{count} {'process' if count == 1 else 'processes'} left dumps. What was allocated and still in use then:"
    ]
    lines += [f"{site['mb']:10.1f} MB  {site['function']}" for site in result["top"]]
    lines += [] if result["top"] else ["nothing of more than 0.1 MB"]
    lines += [f"It ended early: {result['early']}."] if result["early"] else []
    lines += [*result["left_out"], f"The files are in {result['directory']}:"]
    return lines + [os.path.basename(path) for path in result["files"]]
