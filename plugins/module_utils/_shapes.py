"""Shapes of untrusted data: the type, the grammar and the bounds of every value, checked before a value is used."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import json
import re
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _arguments as arguments

#: Returns where a value is wrong, as the dotted path below the value, or None for a value of the shape.
#: A path holds names of ours only: it goes into messages, which text of a stranger must not reach.
Shape = t.Callable[[t.Any], t.Optional[str]]

# Digits of a number in JSON; Python before 3.11 takes quadratic time for longer ones.
_MOST_DIGITS = 20

# Values in a text of JSON; the smallest ones take 30 times as much memory as their characters.
_MOST_VALUES = 500_000


def leaf(check: t.Callable[[t.Any], bool]) -> Shape:
    """Return the shape of values that pass a check."""
    return lambda value: None if check(value) else ""


def text(pattern: str, longest: int = 200) -> Shape:
    """Return the shape of texts that match a pattern of ASCII characters as a whole."""
    compiled = re.compile(pattern, re.ASCII)
    return leaf(lambda value: isinstance(value, str) and len(value) <= longest and bool(compiled.fullmatch(value)))


def printable(longest: int) -> Shape:
    """Return the shape of texts without control characters."""
    return leaf(lambda value: isinstance(value, str) and len(value) <= longest and value.isprintable())


def number(least: int, most: int) -> Shape:
    """Return the shape of whole numbers in a range."""
    return leaf(lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most)


def quantity(most: float) -> Shape:
    """Return the shape of numbers from 0 on, which NaN is not."""
    return leaf(lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most)


def optional(shape: Shape) -> Shape:
    """Return the shape of values that may be missing."""
    return lambda value: None if value is None else shape(value)


def list_of(shape: Shape, most: int) -> Shape:
    """Return the shape of lists of at most so many values of a shape."""
    return leaf(
        lambda value: isinstance(value, list) and len(value) <= most and all(shape(each) is None for each in value)
    )


def mapping_of(name: Shape, shape: Shape, most: int) -> Shape:
    """Return the shape of mappings whose names the other side chooses."""
    return leaf(
        lambda value: (
            isinstance(value, dict)
            and len(value) <= most
            and all(name(key) is None and shape(each) is None for key, each in value.items())
        )
    )


def record(shapes: t.Mapping[str, Shape]) -> Shape:
    """Return the shape of mappings that have exactly these names."""

    def flaw(value: t.Any) -> t.Optional[str]:
        if not isinstance(value, dict) or set(value) - set(shapes):
            return ""
        for name, shape in shapes.items():
            path = shape(value[name]) if name in value else ""
            if path is not None:
                return f".{name}{path}"
        return None

    return flaw


BOOLEAN = leaf(lambda value: isinstance(value, bool))
SHA256 = text("[0-9a-f]{64}")
VERSION = text(r"[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}")
ARCHITECTURE = text("[a-z0-9_]{1,32}")
LIBC = text("glibc|musl")
#: The version of a C library; musl's is unknown, and so is that of an image without a C library's own file.
LIBC_VERSION = text(r"(?:[0-9]{1,4}(?:\.[0-9]{1,4}){1,3})?")
LG_PAGE = number(12, 18)
#: A plain absolute path without a part that is . or .. and without a slash at its end.
HOME = text(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._+@-]{1,255}){1,64}", 4096)
#: A plain relative path.
INSIDE = text(r"(?!/)(?:(?:^|/)(?!\.{1,2}(?:/|$))[A-Za-z0-9._+@-]{1,255}){1,32}", 4096)
OPTIONS = record(
    {
        "cxx": BOOLEAN,
        "prof": BOOLEAN,
        "lg_page": optional(leaf(lambda value: number(12, 16)(value) is None and value in _PAGES)),
    }
)
_PAGES: t.Sequence[int] = arguments.LIBRARY["options"]["options"]["lg_page"]["choices"]


def parse_json(data: str) -> t.Any:
    """Return what a JSON text of a stranger holds; ValueError: it is none, too deep, or has too much of anything."""
    if sum(map(data.count, "[{,")) > _MOST_VALUES:
        raise ValueError("it has too many values")
    try:
        return json.loads(data, parse_int=_whole, parse_constant=_whole)
    except RecursionError as error:
        raise ValueError("it is too deep") from error


def _whole(digits: str) -> int:
    """Return a number; NaN and Infinity, which JSON does not have, are none."""
    if len(digits) > _MOST_DIGITS:
        raise ValueError("a number has too many digits")
    return int(digits)
