# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Graphs and pictures of a host: accepted only in the form that jeprof and dot write, drawn here within limits.

dot reads files that a graph names, and a browser runs scripts and opens addresses of a picture.
"""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

#: Bytes of a graph and of a picture; jeprof draws 80 functions in some 20 KiB, and dot's picture has three times that.
MOST_GRAPH, MOST_PICTURE = 1 << 20, 8 << 20

# Seconds, and bytes of memory, that a picture may take.
_TIME_LIMIT = 60
_MEMORY_LIMIT = 1 << 30

_TEXT = r'"(?:[^"\\\0-\x1f\x7f]|\\[^\0-\x1f\x7f])*"'
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"

# Every line that jeprof writes: no attribute names a file, an address or a font, and no label is HTML.
_GRAPH_LINE = re.compile(
    rf"digraph {_TEXT} \{{"
    r"|node \[width=0\.375,height=0\.25\];"
    rf"|Legend \[shape=box,fontsize=24,shape=plaintext,label={_TEXT}\];"
    rf"|N[0-9]+ \[label={_TEXT},shape=box,fontsize={_NUMBER}\];"
    rf'|N[0-9]+ -> N[0-9]+ \[label={_NUMBER}, weight=[0-9]+, style="setlinewidth\({_NUMBER}\)(?:,dashed)?"\];'
    r"|\}"
)

_ATTRIBUTES = (
    "class|cx|cy|d|fill|fill-opacity|font-family|font-size|font-style|font-weight|height|id|points|rx|ry|stroke"
    "|stroke-dasharray|stroke-opacity|stroke-width|text-anchor|transform|viewBox|width|x|xml:space|xmlns|xmlns:xlink|y"
)

# Every part of a picture that dot writes of such a graph.
_PICTURE_PART = re.compile(
    r'<\?xml version="1\.0" encoding="UTF-8" standalone="no"\?>'
    r'|<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1\.1//EN"\s+"http://www\.w3\.org/Graphics/SVG/1\.1/DTD/svg11\.dtd">'
    r"|<!--(?:(?!--)[^<>])*-->"
    r"|</?(?:svg|g|title|polygon|polyline|path|ellipse|text)"
    rf'(?:\s+(?:{_ATTRIBUTES})="(?![^"]*url\()[^"<>&]*")*\s*/?>'
    r"|&(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9a-fA-F]{1,6});"
    r"|[^<>&\0-\x08\x0b-\x1f]+",
    re.IGNORECASE,
)


def is_graph(data: bytes) -> bool:
    """Whether bytes are a graph as jeprof writes it."""
    if len(data) > MOST_GRAPH:
        return False
    lines = data.decode("utf-8", "replace").split("\n")
    return bool(lines.pop() == "" and lines) and all(map(_GRAPH_LINE.fullmatch, lines))


def is_picture(data: bytes) -> bool:
    """Whether bytes are a picture as dot draws it of such a graph."""
    return len(data) <= MOST_PICTURE and not _PICTURE_PART.sub("", data.decode("utf-8", "replace"))


def draw(graph: str, picture: str) -> None:
    """Draw the picture of a graph of a host; JemallocError says why there is none."""
    with open(graph, "rb") as stream:
        data = stream.read(MOST_GRAPH + 1)
    name = os.path.basename(graph)
    if not is_graph(data):
        raise JemallocError(f"{name} is not a graph that jeprof makes")
    # With SERVER_NAME dot opens no file that an attribute names.
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "SERVER_NAME": "localhost"}
    descriptor = os.open(picture, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        process = subprocess.Popen(
            ["dot", "-Tsvg"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=os.path.dirname(picture),
        )
    with contextlib.ExitStack() as undo:
        undo.callback(os.unlink, picture)
        errors = _limited(process, data, name)
        if process.returncode:
            said = " ".join(errors.decode("utf-8", "replace").split()) or "no word"
            raise JemallocError(f"dot fails with {name}: {said[:500]}")
        undo.pop_all()


def _limited(process: subprocess.Popen[bytes], data: bytes, name: str) -> bytes:
    """Give dot its graph within limits, which stand before it has read anything; return what it complained of."""
    limits = (
        (resource.RLIMIT_AS, _MEMORY_LIMIT),
        (resource.RLIMIT_CPU, _TIME_LIMIT),
        (resource.RLIMIT_FSIZE, MOST_PICTURE),
        (resource.RLIMIT_CORE, 0),
    )
    with process:
        try:
            for limit, most in limits:
                resource.prlimit(process.pid, limit, (most, most))
            _output, errors = process.communicate(data, timeout=_TIME_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            raise JemallocError(f"dot took more than {_TIME_LIMIT} s for {name}") from None
        except BaseException:
            process.kill()
            raise
    return errors
