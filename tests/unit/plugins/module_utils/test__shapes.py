# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes: what is of one, and where a value is wrong."""

from __future__ import annotations

import os
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _shapes as shapes

DIGEST = "0" * 64
BOTH = shapes.record({"a": shapes.number(0, 9), "b": shapes.optional(shapes.record({"c": shapes.BOOLEAN}))})


@pytest.mark.parametrize(
    ("value", "flaw"),
    [
        ({"a": 1, "b": None}, None),
        ({"a": 9, "b": {"c": True}}, None),
        ([], ""),
        ({"a": 1, "b": None, "\x1b": 1}, ""),
        ({"a": 10, "b": None}, ".a"),
        ({"a": True, "b": None}, ".a"),
        ({"a": 1}, ".b"),
        ({"a": 1, "b": 1}, ".b"),
        ({"a": 1, "b": {"c": 1}}, ".b.c"),
    ],
)
def test_record(value: t.Any, flaw: t.Optional[str]) -> None:
    assert BOTH(value) == flaw


@pytest.mark.parametrize(
    ("shape", "right", "wrong"),
    [
        (shapes.SHA256, [DIGEST], [DIGEST.upper().replace("0", "A"), DIGEST[1:], f"{DIGEST}\n", 0, None, [DIGEST]]),
        (shapes.VERSION, ["5.3.1", "5.3.1000"], ["5.3", "v5.3.1", "5.3.1\n", "5.3.10000", "5.3.\u0661", "../5.3.1"]),
        (shapes.ARCHITECTURE, ["x86_64", "armv7l", os.uname().machine], ["", "x" * 33, "X", "a-b", "..", "a\0"]),
        (
            shapes.LIBC_VERSION,
            ["", "2.36", "2.31.9000", platform.here().libc_version],
            ["2", "2.", ".2", "2.36 ", "1e9"],
        ),
        (shapes.LG_PAGE, [12, 16, platform.here().lg_page], [0, 19, -1, 12.0, "12", True]),
        (
            shapes.HOME,
            ["/opt/jemalloc/5.3.1", "/.a/..b"],
            ["", "/", "a", "/a/", "//a", "/..", "/a/./b", "/a b", "/a\n"],
        ),
        (shapes.INSIDE, ["lib/x.so.2", ".a"], ["", "/a", "a//b", "a/", "..", "a/../b", "./a", "a\\b", "a/" * 32 + "a"]),
        (shapes.printable(3), ["", "é b"], ["\n", "\x1b", "\x9b", "\u202e", "\ud800", "abcd", 1]),
        (shapes.list_of(shapes.BOOLEAN, 2), [[], [True, False]], [[1], [True] * 3, (True,), "", {}]),
        (shapes.mapping_of(shapes.VERSION, shapes.BOOLEAN, 1), [{}, {"5.3.1": True}], [{"x": True}, {"5.3.1": 1}, []]),
        (shapes.mapping_of(shapes.printable(1), shapes.BOOLEAN, 1), [{"a": True}], [{"a": True, "b": True}, {1: True}]),
    ],
)
def test_shape(shape: shapes.Shape, right: t.List[t.Any], wrong: t.List[t.Any]) -> None:
    assert [value for value in right if shape(value) is not None] == []
    assert [value for value in wrong if shape(value) is None] == []


@pytest.mark.parametrize("lg_page", [None, 12, 13, 14, 16])
def test_options(lg_page: t.Optional[int]) -> None:
    assert shapes.OPTIONS({"cxx": False, "prof": True, "lg_page": lg_page}) is None


@pytest.mark.parametrize("lg_page", [15, "12", True, 12.0, [12]])
def test_wrong_options(lg_page: t.Any) -> None:
    assert shapes.OPTIONS({"cxx": False, "prof": True, "lg_page": lg_page}) == ".lg_page"


def test_json() -> None:
    assert shapes.parse_json('{"a": [1, -2, 1.5, null]}') == {"a": [1, -2, 1.5, None]}


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"a":' * 100_000, "9" * 21, "NaN", "-Infinity", "[1]x"])
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 # its words are the parser's
        shapes.parse_json(text)
