# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page: what is embedded cannot leave its element, curves stay true, and a large fleet stays small."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _page as paging
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _report as reporting
from ansible_collections.preload.jemalloc.plugins.plugin_utils._measurements import Point, Unit

DAY = 86400


def row(history: t.Sequence[Point], name: str = "puma.service") -> reporting.Row:
    """Return a unit with that history."""
    unit = Unit("web1", "system", "", name)
    empty = Point(DAY, 1, 1, 1, 1, None, 0, "glibc")
    return reporting.Row(unit, history[-1] if history else empty, "", "", (), "", history=history)


def point(day: float, memory: int = 1 << 20, uptime: int = DAY, allocator: str = "glibc") -> Point:
    """Return a measurement."""
    return Point(int(day * DAY), uptime, 1, 1, memory, None, 0, allocator)


def decoded(text: str, at: int) -> float:
    """Return the share that two characters stand for, as data.js does it."""
    high, low = (paging._DIGITS.index(character) for character in text[at : at + 2])
    return (high * 64 + low) / 4095


HOSTILE = "</script><script>alert(1)</script><!--\u2028&"


def test_nothing_leaves_its_element() -> None:
    host = reporting.Host(HOSTILE, unread=HOSTILE, time=1, rows=(row([point(1)], HOSTILE),))
    page = paging.page([host])
    assert "alert(1)" in page
    assert len(re.findall("<script", page)) == len(re.findall("</script>", page)) == 3
    found = re.search('<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    assert HOSTILE in json.loads(found[1])["words"]


def test_the_policy_lets_in_what_is_there_and_nothing_else() -> None:
    page = paging.page([])
    found = re.search('Content-Security-Policy" content="([^"]*)"', page)
    assert found
    policy = dict(part.split(" ", 1) for part in html.unescape(found[1]).split("; "))
    assert policy.pop("default-src") == policy["base-uri"] == policy["form-action"] == "'none'"
    for tag in ("script", "style"):
        texts = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") for text in texts]
        assert policy[f"{tag}-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page)
    assert "no host was read" in page


def test_curves() -> None:
    history = [
        point(1, 100 << 20, uptime=DAY),
        point(2, 200 << 20, uptime=2 * DAY),
        point(4, 50 << 20, uptime=3600, allocator="jemalloc 5.3.1"),
    ]
    other = [point(3)]
    data = paging.data([reporting.Host("web1", time=4 * DAY, rows=(row(history), row(other, "b"), row([], "c")))])
    assert data["hosts"]["times"] == [[-3 * DAY, DAY, DAY, DAY]]
    units = data["units"]
    assert units["most"] == [200 << 10, 1 << 10, 1]
    assert [decoded(units["curve"][0], at) for at in (0, 2, 6)] == pytest.approx([0.5, 1, 0.25], abs=1 / 4095)
    assert units["curve"][0][4:6] == "  "
    assert (units["curve"][1][4:6], units["curve"][2]) == ("__", " " * 8)
    ages = units["ages"][0]
    assert (len(ages), ages[2], units["ages"][2]) == (5, ".", "")
    for at, uptime in ((0, DAY), (3, 3600)):
        assert math.expm1(decoded(ages, at) * math.log1p(paging.LONGEST)) == pytest.approx(uptime, rel=0.005)
    words = data["words"]
    assert units["labels"][0] == [0, words.index("glibc"), 3, words.index("jemalloc 5.3.1")]
    assert units["labels"][1:] == [words.index("glibc"), []]
    sides = {words[number]: side for number, side in data["sides"].items()}
    assert sides == {"glibc": False, "jemalloc 5.3.1": True}


def test_of_many_measurements_some_are_drawn() -> None:
    history = [point(day, allocator="glibc" if day < 70 else "jemalloc 5.3.1") for day in range(100)]
    chosen = paging.moments([row(history), row([point(500)])], 12)
    assert len(chosen) <= 12
    assert {0, 69 * DAY, 70 * DAY, 500 * DAY} <= set(chosen)
    assert paging.moments([row(history)], 100) == [one.time for one in history]
    flutters = [point(day, allocator="glibc" if day % 2 else "jemalloc 5.3.1") for day in range(100)]
    assert len(paging.moments([row(flutters)], 12)) <= 12
