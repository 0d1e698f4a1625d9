# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store of measurements: what comes back, two runs at once, pruning, its mode, and files that are none."""

from __future__ import annotations

import contextlib
import multiprocessing
import pathlib
import sqlite3
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _measurements as measurements
from ansible_collections.preload.jemalloc.plugins.plugin_utils._measurements import Point, Unit

PUMA = Unit("web1", "system", "", "puma.service")


def point(time: int, allocator: str = "glibc", **more: t.Any) -> Point:
    """Return a measurement."""
    values = {"uptime": 60, "processes": 1, "threads": 2, "rss": 300, "pss": 200, "swap": 10, **more}
    return Point(time=time, allocator=allocator, **values)


def add(path: pathlib.Path, *points: Point, unit: Unit = PUMA, check: bool = False) -> int:
    """Add measurements, each in a run of its own."""
    added = 0
    for one in points:
        with measurements.opened(str(path), check) as database:
            added += measurements.add(database, {unit: one})
    return added


def known(path: pathlib.Path, *hosts: str) -> measurements.Histories:
    """Return what is there."""
    with measurements.opened(str(path)) as database:
        return measurements.histories(database, hosts or ["web1"])


def test_it_comes_back(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "cache" / "measurements.sqlite"
    assert add(path, point(2), point(1), point(2)) == 2
    other = Unit("web2", "none", "", "")
    add(path, point(3, pss=None), unit=other)
    assert known(path) == {PUMA: [point(1), point(2)]}
    assert known(path, "web1", "web2", "web1") == {PUMA: [point(1), point(2)], other: [point(3, pss=None)]}
    assert known(path, "web3") == {}


def test_only_the_owner_reads_it(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "cache" / "measurements.sqlite"
    add(path, point(1))
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    path.chmod(0o644)
    add(path, point(2))
    assert path.stat().st_mode & 0o777 == 0o600


def test_check_mode_leaves_no_trace(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a?b#c%20" / "measurements.sqlite"
    assert add(path, point(1), check=True) == 1
    assert not path.parent.exists()
    add(path, point(1))
    before = path.read_bytes()
    with measurements.opened(str(path), check=True) as database:
        assert measurements.add(database, {PUMA: point(2)}) == 1
        assert measurements.histories(database, ["web1"]) == {PUMA: [point(1), point(2)]}
    assert path.read_bytes() == before


def test_a_run_that_fails_adds_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "measurements.sqlite"
    add(path, point(1))
    run = measurements.opened(str(path))
    measurements.add(run.__enter__(), {PUMA: point(2)})
    assert run.__exit__(KeyError, KeyError(), None) is False
    assert known(path) == {PUMA: [point(1)]}


def test_the_newest_of_each_allocator_stay(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "measurements.sqlite"
    gone = Unit("web1", "system", "", "gone.service")
    add(path, point(1), unit=gone)
    add(path, *(point(time) for time in range(2, 6)), *(point(time, "jemalloc 5.3.1") for time in range(6, 20)))
    with measurements.opened(str(path)) as database:
        measurements.prune(database, 3, 2)
    assert [one.time for one in known(path)[PUMA]] == [4, 5, 18, 19]
    assert list(known(path)) == [PUMA]


def _many(path: pathlib.Path, number: int) -> None:
    for time in range(20):
        add(path, point(time, rss=number), unit=Unit(f"web{number}", "system", "", "puma.service"))


def test_several_runs_at_once(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "measurements.sqlite"
    runs = [multiprocessing.get_context("fork").Process(target=_many, args=(path, number)) for number in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0] * 4
    found = known(path, *(f"web{number}" for number in range(4)))
    assert [len(points) for points in found.values()] == [20] * 4


def test_no_file_of_measurements(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "measurements.sqlite"
    path.write_text("This is a letter, and far longer than the header of a file of SQLite would be." * 9)
    path.chmod(0o600)
    for check in (True, False):
        with pytest.raises(JemallocError) as caught:
            add(path, point(1), check=check)
        assert str(caught.value) == (
            f"database: {path} is no file of measurements (file is not a database); move it away or name another one."
        )


def test_a_newer_release_wrote_it(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "measurements.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(JemallocError) as caught:
        add(path, point(1))
    assert str(caught.value) == (
        f"database: {path} was written by a newer release of preload.jemalloc; upgrade it here, or name another file."
    )


def test_it_cannot_be_used(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JemallocError) as caught:
        add(tmp_path / "file" / "measurements.sqlite", point(1))
    assert str(caught.value).startswith(f"database: {tmp_path}/file")
    path = tmp_path / "measurements.sqlite"
    add(path, point(1))
    monkeypatch.setattr(measurements, "PATIENCE", 0)
    with measurements.opened(str(path)), pytest.raises(JemallocError) as caught:
        add(path, point(2))
    assert str(caught.value) == f"database: {path} cannot be used (database is locked)."


@pytest.mark.parametrize(
    ("allocator", "enabled"),
    [
        ("jemalloc 5.3.1", True),
        ("jemalloc 5.3.1 + static + unreadable", True),
        ("jemalloc 5.3.1 + jemalloc 5.3.0", True),
        ("glibc", False),
        ("glibc + static", False),
        ("tcmalloc + glibc", False),
        ("glibc + jemalloc 5.3.1", None),
        ("jemalloc (other)", None),
        ("jemalloc (built in)", None),
        ("static", None),
        ("", None),
    ],
)
def test_enabled(allocator: str, enabled: t.Optional[bool]) -> None:
    assert point(1, allocator).enabled is enabled


def test_memory() -> None:
    assert point(1).memory() == 210
    assert point(1).memory(proportional=False) == 310
    assert point(1, pss=None).memory() == 310
