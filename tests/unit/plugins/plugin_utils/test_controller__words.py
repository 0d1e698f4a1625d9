# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes, times and shares as people say them."""

from __future__ import annotations

import pytest

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _words as words


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 KiB"),
        (1024, "1 KiB"),
        (999 << 10, "999 KiB"),
        (1023 << 10, "1.00 MiB"),
        (812 << 20, "812 MiB"),
        (int(99.96 * 2**20), "100 MiB"),
        (12345678901, "11.5 GiB"),
        (5 << 40, "5.00 TiB"),
        (5000 << 40, "5000 TiB"),
        (-(3 << 20), "-3.00 MiB"),
    ],
)
def test_size(number: float, text: str) -> None:
    assert words.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (172800, "2 d"), (9e8, "10417 d")],
)
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_counts_and_shares() -> None:
    assert [words.count(number, "unit") for number in (0, 1, 1204)] == ["0 units", "1 unit", "1,204 units"]
    assert [words.count(number, "process") for number in (1, 2)] == ["1 process", "2 processes"]
    assert (words.percent(0.274), words.percent(-0.05)) == ("27 %", "5 %")
    assert str(words.Sentence("{} and {}", ("a", "{}"))) == "a and {}"
