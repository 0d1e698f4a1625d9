# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps in a directory that somebody else may fill with anything."""

from __future__ import annotations

import os
import pathlib

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _profile_dumps as dumps_util
from ansible_collections.preload.jemalloc.plugins.module_utils._profile_dumps import Content, Dump, Found

MAPS = "\nMAPPED_LIBRARIES:\n{low} 0 08:01 1   {program}\n7f00-7f01 r-xp 0 08:01 2   /lib/libc.so.6\n"


def dump(used: int, program: str = "/usr/bin/ruby") -> bytes:
    """Return a dump as jemalloc writes it."""
    maps = MAPS.format(low="5500-5501 r--p", program=program)
    return f"heap_v2/524288\n  t*: 10: {used} [0: 0]\n  t0: 10: {used} [0: 0]\n{maps}".encode()


def write(directory: pathlib.Path, pid: int, number: int, data: bytes) -> Dump:
    """Write a dump."""
    name = f"dump.{pid}.{number}.i{number}.heap"
    (directory / name).write_bytes(data)
    return Dump(pid, number, name, len(data))


def test_content() -> None:
    whole = dump(5)
    assert dumps_util.content(whole) == Content(whole, "/usr/bin/ruby", 5)
    old = b"heap profile: 3: 77 [ 0: 0] @ heap_v2/524288\n" + MAPS.format(low="4-5 r-xp", program="/a b").encode()
    assert dumps_util.content(old) == Content(old, "/a b", 77)
    without_total = dumps_util.content(whole.replace(b"t*", b"t1"))
    assert without_total
    assert without_total.used == 0
    for cut in (b"", whole[:-1], whole[:40], b"x\nMAPPED_LIBRARIES:\n", b"x\nMAPPED_LIBRARIES:\n1-2 r 0 0 0\n"):
        assert dumps_util.content(cut) is None


def test_only_regular_files_of_the_user_are_dumps(tmp_path: pathlib.Path) -> None:
    first, second = write(tmp_path, 7, 9, b"1"), write(tmp_path, 7, 10, b"22")
    names = ["dump.7.heap", "dump.7.1.x1.heap", "other.7.1.i1.heap", "dump.77777777777.1.i1.heap", "dump.7.1.i1.heap.x"]
    for name in names:
        (tmp_path / name).write_text("")
    os.symlink("dump.7.10.i10.heap", tmp_path / "dump.1.1.i1.heap")
    os.symlink("nowhere", tmp_path / "dump.1.2.i2.heap")
    os.mkfifo(tmp_path / "dump.1.3.i3.heap")
    (tmp_path / "dump.1.4.i4.heap").mkdir()
    (tmp_path / "twice").write_text("")
    os.link(tmp_path / "twice", tmp_path / "dump.1.5.u.heap")
    with dumps_util.Directory(str(tmp_path)) as directory:
        assert directory.scan() == [first, second]
        directory.uid += 1  # all belong to somebody else then
        assert directory.scan() == []


def test_the_directory_is_no_link_and_stays_the_same(tmp_path: pathlib.Path) -> None:
    (tmp_path / "real").mkdir()
    os.symlink("real", tmp_path / "link")
    with pytest.raises(OSError, match="link"):
        dumps_util.Directory(str(tmp_path / "link"))
    found = write(tmp_path / "real", 7, 1, b"1")
    with dumps_util.Directory(str(tmp_path / "real")) as directory:
        (tmp_path / "real").rename(tmp_path / "other")
        (tmp_path / "real").mkdir()
        assert directory.scan() == [found]
        directory.remove([found, found])
        assert os.listdir(tmp_path / "other") == []


def test_a_name_that_leads_elsewhere_by_now_is_not_read(tmp_path: pathlib.Path) -> None:
    data = dump(5)
    found = write(tmp_path, 7, 1, data)
    path = tmp_path / found.name
    with dumps_util.Directory(str(tmp_path)) as directory:
        assert directory.read(found, len(data)) == dumps_util.content(data)
        assert directory.read(found, len(data) - 1) is None
        path.rename(tmp_path / "other")
        assert directory.read(found, 999) is None
        os.symlink("other", path)
        assert directory.read(found, 999) is None
        path.unlink()
        os.mkfifo(path)
        assert directory.read(found, 999) is None
        path.unlink()
        os.link(tmp_path / "other", path)
        assert directory.read(found, 999) is None


def test_a_file_that_goes_while_it_is_looked_at(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = write(tmp_path, 7, 1, b"1")
    with dumps_util.Directory(str(tmp_path)) as directory:
        monkeypatch.setattr(os, "listdir", lambda _descriptor: [found.name, "dump.7.2.i2.heap"])
        assert directory.scan() == [found]


def test_surplus() -> None:
    def dumps(pid: int, *sizes: int) -> list[Dump]:
        return [Dump(pid, number, f"dump.{pid}.{number}.i.heap", size) for number, size in enumerate(sizes)]

    one, two = dumps(1, 10, 10, 10, 10, 10), dumps(2, 5, 5, 5, 5)
    assert dumps_util.surplus([*two, *one], 70) == ([], True)
    # the oldest ones of both, but for the first, and the last two
    assert dumps_util.surplus([*two, *one], 69) == ([one[1]], True)
    assert dumps_util.surplus([*two, *one], 59) == ([one[1], two[1]], True)
    assert dumps_util.surplus([*two, *one], 45) == ([one[1], two[1], one[2]], True)
    assert dumps_util.surplus([*two, *one], 44) == ([one[1], two[1], one[2]], False)
    assert dumps_util.surplus([], 0) == ([], True)


def test_ranked(tmp_path: pathlib.Path) -> None:
    cut = dump(999)[:-1]
    small = write(tmp_path, 1, 0, dump(1, "/small"))
    first, _middle, last = (write(tmp_path, 2, number, dump(number, "/large")) for number in (8, 9, 10))
    write(tmp_path, 2, 11, cut)
    write(tmp_path, 3, 0, cut)
    with dumps_util.Directory(str(tmp_path)) as directory:
        assert dumps_util.ranked(directory, 999) == [
            Found(2, "/large", 10, last, first),
            Found(1, "/small", 1, small, None),
        ]
        assert dumps_util.ranked(directory, 9) == []
