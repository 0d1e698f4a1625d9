"""What the files of scopes say: LD_PRELOAD with our library in front, and our part of files that others write too."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import re
import shlex
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _environment as environment
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

#: In a rendered template this stands for what LD_PRELOAD has to be; only the host knows what foreign entries to keep.
LD_PRELOAD = "@LD_PRELOAD@"

#: In the template of a drop-in this stands for its settings.
SETTINGS = "@SETTINGS@"

#: In the rendered login script this stands for the default of JEMALLOC_ENABLED.
ENABLED = "@ENABLED@"

#: Stands in every file of ours; one of the same name without it is somebody else's.
MARK = "preload.jemalloc"

# What the first line of our part of a shared file adds, so that taking it out gives back the very bytes from before.
_BEGIN = "# BEGIN preload.jemalloc"
_END = "# END preload.jemalloc"
_FILE_MADE = " (made this file)"
_NO_NEWLINE = " (after a line without its end)"

# Our part: the line that it is for makes it ours, whatever somebody wrote into it, and also where its end is gone.
_PART = re.compile(
    rf"^{_BEGIN}(|{re.escape(_FILE_MADE)}|{re.escape(_NO_NEWLINE)})\n(LD_PRELOAD=.*(?:\n|\Z)(?:MALLOC_CONF=.*(?:\n|\Z))?)"
    rf"((?s:.*?))(?:^{_END}$\n?|\Z)",
    re.MULTILINE,
)

# Our line in the list of the dynamic linker: it takes a colon for a blank, so that two at the end mark the line, and
# one more says that we made the file. No comment: with more than one in the file it takes later ones for names.
_LINE = re.compile(r"^[^\s:#]+/lib/libjemalloc\.so::(:?)(?:\n|\Z)", re.MULTILINE)

# Our library in the drop-in of a service, under any prefix.
_LIBRARY = re.compile(r"/(?:current|[0-9.]+)/lib/libjemalloc\.so(?=[:\s\"])")


def others(prefix: str, foreign: str) -> str:
    """Return a value of LD_PRELOAD without our entries."""
    return ":".join(entry for entry in environment.entries(foreign) if not entry.startswith(f"{prefix}/"))


def in_front(prefix: str, foreign: str, version: str = "current") -> str:
    """Return the value of LD_PRELOAD with our library in front of foreign entries; entries of ours are not repeated."""
    rest = others(prefix, foreign)
    own = store.library(prefix, version)
    return f"{own}:{rest}" if rest else own


def assignment(name: str, value: str) -> str:
    """Return a line of a unit file that sets a variable; % stays, as a foreign value may mean a specifier by it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'Environment="{name}={escaped}"'


def is_ours(text: str) -> bool:
    """Whether a file with this text is of this collection, or a part of it is."""
    return MARK in text or has_line(text)


def preloads(drop_in: t.Optional[str]) -> bool:
    """Whether a managed drop-in preloads the library; if not, it excludes its service."""
    return bool(_LIBRARY.search(drop_in or ""))


def has_line(text: t.Optional[str]) -> bool:
    """Whether the text of /etc/ld.so.preload has our line."""
    return bool(_LINE.search(text or ""))


def line(text: t.Optional[str]) -> t.Optional[str]:
    """Return our line in the text of /etc/ld.so.preload, None where there is none."""
    found = _LINE.search(text or "")
    return found.group(0) if found else None


def part(text: t.Optional[str]) -> t.Optional[str]:
    """Return our part of a shared file's text, without what others wrote into it; None where there is none."""
    found = _PART.search(text or "")
    return f"{_BEGIN}{found.group(1)}\n{found.group(2).rstrip()}\n{_END}\n" if found else None


def preloaded_without(text: t.Optional[str]) -> t.Optional[str]:
    """Return the text of /etc/ld.so.preload without our line: byte for byte what it was before."""
    line = _LINE.search(text or "")
    if not text or not line:
        return text
    rest = text[: line.start()] + text[line.end() :]
    return rest if rest or not line.group(1) else None


def preloaded_with(text: t.Optional[str], prefix: str) -> str:
    """Return the text of /etc/ld.so.preload with our line in front."""
    rest = preloaded_without(text)
    if sum("#" in line for line in (rest or "").split("\n")) > 1:
        raise JemallocError(
            "via: /etc/ld.so.preload has more than one comment, and glibc takes later ones for names of libraries when "
            "a line is added; leave one of them."
        )
    return f"{store.library(prefix)}::{':' if rest is None else ''}\n{rest or ''}"


def preloaded_restored(text: t.Optional[str], before: t.Optional[str]) -> t.Optional[str]:
    """Return the text of /etc/ld.so.preload with our line as it was before; the lines of others stay."""
    rest, earlier = preloaded_without(text), line(before)
    return f"{earlier.rstrip(':' + chr(10))}::{':' if rest is None else ''}\n{rest or ''}" if earlier else rest


def environment_without(text: t.Optional[str]) -> t.Optional[str]:
    """Return a shared file's text without our part: byte for byte what it was before."""
    part = _PART.search(text or "")
    if not text or not part:
        return text
    note, _ours, inside = part.groups()
    before, after = text[: part.start()], inside + text[part.end() :]
    if note == _NO_NEWLINE and not after:
        before = before[:-1]
    return None if note == _FILE_MADE and not before + after else before + after


def environment_with(text: t.Optional[str], part: str, prefix: str, conf: str = "") -> str:
    """Return a shared file's text with our part at its end, where it counts over an earlier LD_PRELOAD.

    conf is the MALLOC_CONF that goes with it.
    """
    rest = environment_without(text)
    note = _FILE_MADE if rest is None else ""
    rest = rest or ""
    if rest and not rest.endswith("\n"):
        rest, note = f"{rest}\n", _NO_NEWLINE
    foreign = environment.login_value(rest, "LD_PRELOAD")
    lines = [part.rstrip().replace(LD_PRELOAD, in_front(prefix, foreign)), *([f"MALLOC_CONF={conf}"] if conf else [])]
    return "\n".join([f"{rest}{_BEGIN}{note}", *lines, _END, ""])


def environment_restored(text: t.Optional[str], before: t.Optional[str]) -> t.Optional[str]:
    """Return a shared file's text with our part as it was before; the lines of others stay."""
    rest, earlier = environment_without(text), part(before)
    return environment_with(rest, "\n".join(earlier.split("\n")[1:-2]), "") if earlier else rest


def command_text(program: str, wrapper: str) -> str:
    """Return the script that stands in front of a program which is kept out, by the wrapper that keeps it out."""
    return (
        f"#!/bin/sh\n# Managed by the Ansible collection {MARK}; changes made here are lost.\n"
        f'exec {wrapper} {shlex.quote(program)} "$@"\n'
    )
