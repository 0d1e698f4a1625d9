"""Dumps made readable on the host that has the programs: what allocates most, and its stacks."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import tempfile
import typing as t
import zlib

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _preflight as preflight
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile as profile
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile_dumps as dumps_util
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

#: Runs a command and returns its exit status, its output, and what it complained of.
Outputs = t.Callable[[t.Sequence[str]], t.Tuple[int, str, str]]

#: Processes that are rendered, those with the most memory in use: workers are alike.
MOST_PROCESSES = 8

#: How many places that allocate are named.
MOST_SITES = 5

# Seconds for one call of the tool; to find the names in a large program takes many.
_TIME_LIMIT = 300

# Bytes of memory that one call may take: it holds the dump several times.
_MEMORY_LIMIT = "2G"

# Bytes that a file may take in the result of the module, which the controller keeps in memory.
_MOST_BYTES = 16 << 20

# Where the tool finds what it is given; systemd-tmpfiles(8) clears what a killed run left there.
_WAITING = "var/tmp"

# How the tool ends what it prints of the symbols; it then refuses to print the dump itself, which is no error for us.
_END_OF_SYMBOLS = "\n--- heap\n"

# The address of a symbol in its file, which the tool leaves at names that nm told it.
_ADDRESS = re.compile(r"<[0-9a-f]{8,16}>")

# A line of the text: MB, its part, the part of all so far, the same with what it calls, and the name.
_SITE = re.compile(r"^ *(-?[0-9]+\.[0-9]) +\S+% +\S+% +\S+ +\S+% (.+)$", re.MULTILINE)


class Rendered(t.NamedTuple):
    """What became of the dumps: files by their names, what allocates most in MB, and what was left out and why."""

    contents: t.Dict[str, str]
    top: t.List[t.Tuple[str, float]]
    left_out: t.List[str]


class Tool:
    """jemalloc's tool for dumps, run as the user of the service: it believes what a dump says of programs to look into.

    Nothing but that dump is handed to it, and it can change nothing.
    """

    def __init__(self, outputs: Outputs, path: str, directory: dumps_util.Directory) -> None:
        self._outputs = outputs
        self._path = path
        self._uid, self._gid = directory.uid, directory.gid

    def collapses(self) -> bool:
        """Whether the tool makes collapsed stacks, which those of old releases do not."""
        return "--collapsed" in (files.read_text(self._path) or "")

    def symbolised(self, program: str, last: bytes) -> str:
        """Return a dump together with the names of its functions, which the tool reads without the program."""
        with self._handed(last=last) as place:
            _status, output, errors = self._run(place, "--raw", program, f"{place}/last")
        symbols, found, _rest = output.partition(_END_OF_SYMBOLS)
        if not found:
            raise JemallocError(_said(errors))
        return f"{symbols}{found}{last.decode('utf-8', 'surrogateescape')}"

    def rendered(self, option: str, symbolised: str) -> str:
        """Return what the tool makes of a dump with names."""
        with self._handed(symbolised=symbolised.encode("utf-8", "surrogateescape")) as place:
            return self._done(place, option, f"{place}/symbolised")

    def growth(self, program: str, first: bytes, last: bytes) -> str:
        """Return what a process has more of in its last dump than in its first."""
        with self._handed(first=first, last=last) as place:
            return self._done(place, "--text", f"--base={place}/first", program, f"{place}/last")

    def drawn(self, graph: str) -> str:
        """Return a graph as SVG."""
        with self._handed(graph=graph.encode("utf-8", "surrogateescape")) as place:
            status, output, errors = self._outputs(self._command(place, "dot", "-Tsvg", f"{place}/graph"))
        if status:
            raise JemallocError(_said(errors))
        return output

    def _done(self, place: str, *arguments: str) -> str:
        """Return what the tool prints, when it ends well."""
        status, output, errors = self._run(place, *arguments)
        if status:
            raise JemallocError(_said(errors))
        return output

    def _run(self, place: str, *arguments: str) -> t.Tuple[int, str, str]:
        return self._outputs(self._command(place, self._path, *arguments))

    @contextlib.contextmanager
    def _handed(self, **contents: bytes) -> t.Iterator[str]:
        """Give files to the user of the service for as long as the block runs; the block gets their directory."""
        place = tempfile.mkdtemp(prefix=f"{profile.NAME}-", dir=os.path.join("/", _WAITING))
        try:
            for name, content in contents.items():
                files.write_new(os.path.join(place, name), content, 0o400, (self._uid, self._gid))
            os.chown(place, self._uid, self._gid)
            yield place
        finally:
            shutil.rmtree(place)

    def _command(self, place: str, *arguments: str) -> t.List[str]:
        """Return a command without rights, with a /tmp of its own: the tool uses names there that can be foreseen."""
        properties = (
            "PrivateTmp=yes",
            "ProtectSystem=strict",
            "PrivateNetwork=yes",
            "NoNewPrivileges=yes",
            "CapabilityBoundingSet=CAP_SETUID CAP_SETGID",
            f"BindReadOnlyPaths={place}",
            f"RuntimeMaxSec={_TIME_LIMIT}",
            f"MemoryMax={_MEMORY_LIMIT}",
            "Nice=19",
        )
        # not User=: the number of a DynamicUser= that has ended is nobody's
        user = ("setpriv", f"--reuid={self._uid}", f"--regid={self._gid}", "--clear-groups")
        environment = ("env", "-i", "LC_ALL=C", "HOME=/nonexistent", f"PATH={os.environ.get('PATH', os.defpath)}")
        options = [f"--property={each}" for each in properties]
        return [
            *("systemd-run", "--quiet", "--pipe", "--wait", "--collect", *options, "--"),
            *(*user, *environment, *arguments),
        ]


def _said(errors: str) -> str:
    """Return the last line of what a tool complained of, as part of a sentence."""
    lines = [line for line in errors.splitlines() if line.strip()]
    return preflight.words(lines[-1] if lines else "").rstrip(".")


def render(tool: Tool, directory: dumps_util.Directory, found: t.Sequence[dumps_util.Found], limit: int) -> Rendered:
    """Render the processes with the most in use; limit is the largest dump in bytes. The contents are packed."""
    contents: t.Dict[str, str] = {}
    texts = []
    left_out = []
    if len(found) > MOST_PROCESSES:
        left_out.append(f"Of {len(found)} processes the {MOST_PROCESSES} with the most memory in use are rendered.")
    if not tool.collapses():
        left_out.append("Collapsed stacks are left out, as the tool of this release makes none.")
    for each in found[:MOST_PROCESSES]:
        made, why = _process(tool, directory, each, limit)
        texts += [text for name, text in made.items() if name == f"{each.pid}.txt"]
        left_out += why
        for name, text in sorted(made.items()):
            packed = pack(text)
            if len(packed) > _MOST_BYTES:
                left_out.append(f"{name} is left out, as it takes {len(packed) >> 20} MiB even when it is packed.")
            else:
                contents[name] = packed
    return Rendered(contents, top(texts), left_out)


def pack(text: str) -> str:
    """Return a text compressed, as a result can have it."""
    return base64.b64encode(zlib.compress(text.encode("utf-8", "surrogateescape"))).decode("ascii")


def _process(
    tool: Tool, directory: dumps_util.Directory, found: dumps_util.Found, limit: int
) -> t.Tuple[t.Dict[str, str], t.List[str]]:
    """Return the files of one process by their names, and what is left out and why."""
    last = directory.read(found.last, limit)
    first = directory.read(found.first, limit) if found.first else None
    if not last:
        return {}, [f"The dump of process {found.pid} changed meanwhile."]
    made: t.Dict[str, str] = {}
    left_out = []

    def make(ending: str, what: str, how: t.Callable[[], str]) -> None:
        try:
            made[f"{found.pid}.{ending}"] = how()
        except JemallocError as error:
            left_out.append(f"{what} left out for process {found.pid}: {error}.")

    make("heap", "The dump with names is", lambda: tool.symbolised(last.program, last.data))
    whole = made.get(f"{found.pid}.heap")
    if whole is None:
        made[f"{found.pid}.raw.heap"] = last.data.decode("utf-8", "surrogateescape")
        return made, left_out
    make("txt", "The text is", lambda: tool.rendered("--text", whole))
    if tool.collapses():
        make("collapsed", "Collapsed stacks are", lambda: _ADDRESS.sub("", tool.rendered("--collapsed", whole)))
    make("dot", "The graph is", lambda: tool.rendered("--dot", whole))
    if first:
        make("growth.txt", "The growth is", lambda: tool.growth(last.program, first.data, last.data))
    graph = made.get(f"{found.pid}.dot")
    if graph and shutil.which("dot"):
        make("svg", "The picture is", lambda: tool.drawn(graph))
    return made, left_out


def printable(text: str) -> str:
    """Return a name as a result can have it: a program may have any bytes for names."""
    return text.encode("utf-8", "replace").decode("utf-8")


def top(texts: t.Iterable[str]) -> t.List[t.Tuple[str, float]]:
    """Return the functions that allocate most by themselves in all processes together, each with its MB."""
    sums: t.Dict[str, float] = {}
    for text in texts:
        for size, name in _SITE.findall(text):
            plain = printable(name)
            sums[plain] = round(sums.get(plain, 0) + float(size), 1)
    largest = sorted(sums.items(), key=lambda item: -item[1])
    return [(name, size) for name, size in largest[:MOST_SITES] if size > 0]
