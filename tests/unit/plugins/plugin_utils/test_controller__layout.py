# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text in columns: nothing that steers a terminal, and never wider than it may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _layout as layout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("as it is", "as it is"),
        ("\x1b[31mred\x1b[0m and \ufffd[1;32mgreen\ufffd[0m", "red and green"),
        ("\x1b]0;a title\x07shown", "shown"),
        ("\ufffd]0;a title\ufffdshown", "shown"),
        ("two\r\nlines\tand\x00more \ufffd", "two lines and more"),
        ("\u202eturned\u200b round", "turned round"),
        ("b\u00fcro", "b\u00fcro"),
        ("\x1b[2J", ""),
        ("\x1b\x1b[31m[31m", "[31m"),
    ],
)
def test_clean(text: str, expected: str) -> None:
    assert layout.clean(text) == expected


@given(st.text())
def test_what_is_clean_is_one_printable_line(text: str) -> None:
    found = layout.clean(text)
    assert found.isprintable()
    assert layout.clean(found) == found


@pytest.mark.parametrize(
    ("text", "expected"), [("abc", 3), ("\u65e5\u672c", 4), ("e\u0301", 1), ("", 0), ("\uff21", 2)]
)
def test_width(text: str, expected: int) -> None:
    assert layout.width(text) == expected
    assert layout.width(layout.pad(text, 9)) == 9


def test_cut() -> None:
    assert layout.cut("abcdefgh", 8) == "abcdefgh"
    assert layout.cut("abcdefghi", 8) == "abcde..."
    assert layout.cut("\u65e5\u672c\u8a9e\u65e5\u672c", 8) == "\u65e5\u672c..."
    assert layout.cut_middle("No route to host", 16) == "No route to host"
    assert layout.cut_middle("ssh: connect to host a: No route to host", 25) == "ssh: co...o route to host"


def test_wrap() -> None:
    assert layout.wrap("one two three", 7) == ["one two", "three"]
    assert layout.wrap("a /a/long/path b", 6) == ["a", "/a/lon", "g/path", "b"]
    assert layout.wrap("", 5) == []


@given(st.text(), st.integers(min_value=10, max_value=40))
def test_nothing_is_wider_than_it_may_be(text: str, columns: int) -> None:
    bare = layout.clean(text)
    for line in [layout.cut(bare, columns), layout.cut_middle(bare, columns), *layout.wrap(bare, columns)]:
        assert layout.width(line) <= columns
    assert "".join(layout.wrap(bare, columns)).replace(" ", "") == bare.replace(" ", "")
