# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The builds in the controller's cache: listed, and those of a host removed, as check mode says before."""

from __future__ import annotations

import hashlib
import json
import pathlib
import random
import typing as t
from unittest import mock

import pytest

from ansible_collections.preload.jemalloc.plugins.action import jemalloc_cache as action
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _cache as caching
from tests.unit import packed

MIRROR = "https://example.com"
CHANCE = random.Random(1)
FIRST = packed.bundle(CHANCE.randbytes(99 << 10))
SECOND = packed.bundle(CHANCE.randbytes(99 << 10), options={**packed.OPTIONS, "prof": True})


def run(directory: pathlib.Path, check: bool = False, **given: t.Any) -> t.Dict[str, t.Any]:
    """Run the action."""
    task = mock.MagicMock(args={"cache": str(directory), **given}, async_val=0, check_mode=check)
    plugin = action.ActionModule(task, mock.MagicMock(), mock.MagicMock(), mock.MagicMock(), mock.MagicMock(), None)
    return dict(plugin.run(task_vars={}))


@pytest.fixture
def filled(tmp_path: pathlib.Path) -> pathlib.Path:
    """A cache with bundles of two hosts and of a mirror, one of them from an older version of this collection."""
    cache = caching.Cache(str(tmp_path / "cache"), 1)
    cache.add(FIRST, "web1")
    cache.add(SECOND, "web2")
    cache.add(FIRST, MIRROR, origin=caching.MIRROR)
    index = pathlib.Path(cache.directory, "index.json")
    entries = json.loads(index.read_text())
    entries[0]["added"] = ""
    for entry in entries[1:]:
        entry["added"] = "2026-11-28T18:30:00Z"
    index.write_text(json.dumps(entries))
    return pathlib.Path(cache.directory)


def line(data: bytes, platform: str, who: str) -> str:
    """Return the line of a bundle."""
    return f"jemalloc 5.3.1 for {platform}, {who}, 100 KiB, SHA-256 {hashlib.sha256(data).hexdigest()}"


LINES = [
    line(FIRST, "x86_64-glibc2.34", "built on web1"),
    line(SECOND, "x86_64-glibc2.34-prof", "built on web2 at 2026-11-28T18:30:00Z"),
    line(FIRST, "x86_64-glibc2.34", f"from the mirror {MIRROR} at 2026-11-28T18:30:00Z"),
]


def test_listing(filled: pathlib.Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in filled.rglob("*")}
    text = "".join(f"{each}\n" for each in LINES)
    for check in (True, False):
        result = run(filled, check)
        assert (result["changed"], result["lines"], result["diff"]) == (False, LINES, {"before": text, "after": text})
        assert result["msg"] == f"3 bundles in {filled}."
        assert result["entries"][1] == {
            "release": "5.3.1",
            "platform": "x86_64-glibc2.34-prof",
            "builder": "web2",
            "origin": "host",
            "added": "2026-11-28T18:30:00Z",
            "size": len(SECOND),
            "sha256": hashlib.sha256(SECOND).hexdigest(),
        }
    assert run(filled, builder="web2")["lines"] == LINES[1:2]
    assert run(filled, builder="web3")["msg"] == f"0 bundles of web3 in {filled}."
    assert {path: path.stat().st_mtime_ns for path in filled.rglob("*")} == before


@pytest.mark.parametrize(
    ("builder", "number", "files"), [("web1", 0, [FIRST, SECOND]), ("web2", 1, [FIRST]), (MIRROR, 2, [FIRST, SECOND])]
)
def test_removing(filled: pathlib.Path, builder: str, number: int, files: t.Sequence[bytes]) -> None:
    left = [each for each in LINES if each != LINES[number]]
    results = [run(filled, check, builder=builder, state="absent") for check in (True, True, False)]
    assert results[0] == results[1] == results[2]
    assert (results[0]["changed"], results[0]["lines"]) == (True, LINES[number : number + 1])
    assert results[0]["msg"] == f"1 bundle of {builder} removed from {filled}."
    assert results[0]["diff"]["after"] == "".join(f"{each}\n" for each in left)
    assert run(filled)["lines"] == left
    assert sorted(path.read_bytes() for path in (filled / "bundles").iterdir()) == sorted(files)
    again = run(filled, builder=builder, state="absent")
    assert (again["changed"], again["diff"]["before"]) == (False, again["diff"]["after"])


def test_a_file_that_is_missing(filled: pathlib.Path) -> None:
    (filled / "bundles" / hashlib.sha256(SECOND).hexdigest()).unlink()
    assert ", its file is missing, SHA-256 " in run(filled)["lines"][1]


def test_no_cache(tmp_path: pathlib.Path) -> None:
    wanted: t.List[t.Dict[str, t.Any]] = [{}, {"builder": "web1", "state": "absent"}]
    for given in wanted:
        result = run(tmp_path / "cache", **given)
        assert (result["changed"], result["entries"]) == (False, [])
    assert list(tmp_path.iterdir()) == []


def test_all_hosts_are_not_removed_at_once(filled: pathlib.Path) -> None:
    result = run(filled, state="absent")
    assert result["failed"]
    assert result["msg"] == "builder: state: absent removes the bundles of one host; name that host as builder."
    filled.chmod(0o777)
    assert "can be written by its group or by others" in run(filled)["msg"]
