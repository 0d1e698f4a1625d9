# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Profiles on the controller: what a host made of its dumps becomes files here, and a few lines say what they are."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import typing as t
import zlib

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

# A host may send anything: these are names of files that it makes, and parts of the path that they get here.
_NAME = re.compile(r"[0-9]{1,10}\.(?:collapsed|dot|growth\.txt|heap|raw\.heap|svg|txt)", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9:_.\\@-]+")

# Bytes that a file may take here; a dump of that size has tens of thousands of stacks.
_MOST_BYTES = 512 << 20

# Seconds that a picture may take.
_TIME_LIMIT = 60


def place(directory: str, host: str, unit: str, began: str) -> str:
    """Return the directory of a profile; JemallocError: a name cannot be part of a path."""
    for part in (host, unit, began):
        if not _PART.fullmatch(part) or part.startswith("."):
            raise JemallocError(f"directory: {part!r} cannot be the name of a directory; give the host another name.")
    return os.path.join(directory, host, unit, began)


def keep(directory: str, contents: t.Mapping[str, str]) -> t.List[str]:
    """Write packed files into a directory that only its owner can read; return their paths.

    JemallocError: the host sent what it never makes. OSError: they cannot be written.
    """
    unpacked = {name: _unpacked(name, content) for name, content in sorted(contents.items())}
    os.makedirs(directory, mode=0o700, exist_ok=True)
    os.chmod(directory, 0o700)
    for name, data in unpacked.items():
        files.write_file(os.path.join(directory, name), data, 0o600)
    return [os.path.join(directory, name) for name in unpacked]


def _unpacked(name: str, content: str) -> bytes:
    if not _NAME.fullmatch(name):
        raise JemallocError(f"The host sent a file {name!r}, which is none of a profile.")
    try:
        reader = zlib.decompressobj()
        data = reader.decompress(base64.b64decode(content, validate=True), _MOST_BYTES)
    except (ValueError, zlib.error) as error:
        raise JemallocError(f"The host sent a file {name} that cannot be unpacked ({error}).") from error
    if not reader.eof:
        raise JemallocError(f"The host sent a file {name} that is cut off, or larger than {_MOST_BYTES >> 20} MiB.")
    return data


def draw(paths: t.Sequence[str]) -> t.Tuple[t.List[str], str]:
    """Make pictures of the graphs among files where there are none; return their paths, and why there are not more."""
    graphs = {path: f"{path[: -len('.dot')]}.svg" for path in paths if path.endswith(".dot")}
    lacking = {graph: picture for graph, picture in graphs.items() if picture not in paths}
    if not lacking:
        return [], ""
    if not shutil.which("dot"):
        return [], "Pictures are left out, as neither the host nor this machine has dot, of the package graphviz."
    drawn: t.List[str] = []
    for graph, picture in lacking.items():
        command = ["dot", "-Tsvg", "-o", picture, graph]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIME_LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            return drawn, f"Pictures are left out, as dot took more than {_TIME_LIMIT} s for {os.path.basename(graph)}."
        if done.returncode:
            said = " ".join(done.stderr.decode("utf-8", "replace").split()) or "no word"
            return drawn, f"Pictures are left out, as dot fails with {os.path.basename(graph)}: {said}."
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
