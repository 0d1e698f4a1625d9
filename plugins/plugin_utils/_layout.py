# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text for a terminal: without control characters, and measured, cut, padded and wrapped in columns."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import re
import typing as t
import unicodedata

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"

# What sets colors, moves the cursor or names a window, also where its first character was replaced already.
_SEQUENCE = re.compile(rf"[\x1b{_UNKNOWN}](?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b{_UNKNOWN}]*[\x07{_UNKNOWN}])")

_MORE = "..."


def clean(text: str) -> str:
    """Return a text in one line, without sequences and characters that steer a terminal."""
    bare = _SEQUENCE.sub("", text)
    return " ".join("".join(each if each.isprintable() and each != _UNKNOWN else " " for each in bare).split())


def width(text: str) -> int:
    """Return the number of columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def pad(text: str, columns: int) -> str:
    """Return a text with blanks up to a number of columns."""
    return text + " " * (columns - width(text))


def cut(text: str, columns: int) -> str:
    """Return a text in at most that many columns; three dots stand for the rest."""
    return text if width(text) <= columns else _first(text, columns - len(_MORE)) + _MORE


def cut_middle(text: str, columns: int) -> str:
    """Return a text in at most that many columns, with its end: an error names its cause there."""
    if width(text) <= columns:
        return text
    front = (columns - len(_MORE)) // 3
    return _first(text, front) + _MORE + _first(text[::-1], columns - len(_MORE) - front)[::-1]


def _first(text: str, columns: int) -> str:
    """Return as many characters as fit."""
    taken = 0
    for number, character in enumerate(text):
        taken += _width(character)
        if taken > columns:
            return text[:number]
    return text


def wrap(text: str, columns: int) -> t.List[str]:
    """Return the lines of a text, broken at blanks; a word that is longer than a line is broken as well."""
    lines = [""]
    for word in text.split():
        if lines[-1] and width(lines[-1]) + 1 + width(word) <= columns:
            lines[-1] += f" {word}"
            continue
        rest = word
        while rest:
            part = _first(rest, columns)
            lines.append(part)
            rest = rest[len(part) :]
    return [line for line in lines if line]
