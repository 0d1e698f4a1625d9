# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who builds for whom: the host with the oldest C library, whatever the order in which they come."""

from __future__ import annotations

import itertools
import multiprocessing
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _cache as caching
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _fleet as fleet

HOSTS = {"a": "2.41", "b": "2.31", "c": "2.36", "d": "2.31"}


def need(libc_version: str = "2.36", version: str = "5.3.1") -> caching.Need:
    """Return what a host with that C library lacks."""
    here = {"architecture": "x86_64", "libc": "glibc", "libc_version": libc_version, "lg_page": 12}
    return caching.need_of({"version": version, "sources": [], "options": {}, **here})


@pytest.mark.parametrize("order", list(itertools.permutations(HOSTS)))
def test_the_oldest_builds(tmp_path: pathlib.Path, order: t.Sequence[str]) -> None:
    for host in order:
        fleet.volunteer(str(tmp_path), need(HOSTS[host]), host)
    builder = next(host for host in order if HOSTS[host] == "2.31")
    assert fleet.builder(str(tmp_path), need()) == builder
    others = [host for host in HOSTS if host != builder]
    assert fleet.waiting(str(tmp_path), need()) == f"{others[0]}..{others[-1]} (3 hosts)"
    assert fleet.position(str(tmp_path), need()) == (1, 1)


def test_2_9_is_older_than_2_31(tmp_path: pathlib.Path) -> None:
    for host, version in (("a", "2.31"), ("b", "2.9")):
        fleet.volunteer(str(tmp_path), need(version), host)
    assert fleet.builder(str(tmp_path), need()) == "b"
    assert fleet.waiting(str(tmp_path), need()) == "a"


def test_nobody(tmp_path: pathlib.Path) -> None:
    assert fleet.builder(str(tmp_path), need()) == ""
    assert fleet.waiting(str(tmp_path), need()) == ""
    assert fleet.position(str(tmp_path), need()) == (1, 1)


def test_several_builds(tmp_path: pathlib.Path) -> None:
    for host, version in (("a", "5.3.0"), ("b", "5.3.1"), ("c", "5.3.1"), ("d", "5.3.1"), ("b", "5.3.1")):
        fleet.volunteer(str(tmp_path), need(version=version), host)
    assert [fleet.builder(str(tmp_path), need(version=version)) for version in ("5.3.0", "5.3.1")] == ["a", "b"]
    assert [fleet.waiting(str(tmp_path), need(version=version)) for version in ("5.3.0", "5.3.1")] == ["", "c, d"]
    positions = [fleet.position(str(tmp_path), need(version=version)) for version in ("5.3.0", "5.3.1")]
    assert sorted(positions) == [(1, 2), (2, 2)]


def come(directory: str, number: int) -> None:
    """Volunteer as one of many processes."""
    fleet.volunteer(directory, need(f"2.{number + 20}"), f"web{number}")


def test_many_at_once(tmp_path: pathlib.Path) -> None:
    workers = [multiprocessing.Process(target=come, args=(str(tmp_path), number)) for number in range(20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert fleet.builder(str(tmp_path), need()) == "web0"
    assert fleet.waiting(str(tmp_path), need()) == "web1..web19 (19 hosts)"
