# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory of the controller's cache: for its owner alone, and for several processes at once."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _cache as caching
from tests.unit import packed


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> caching.Cache:
    """An empty cache."""
    return caching.Cache(str(tmp_path / "cache"), 1)


def test_a_lock_is_waited_for(cache: caching.Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    other = contextlib.ExitStack()
    other.enter_context(cache.lock("index", "web1"))
    real = fcntl.flock

    def flock(stream: t.Any, operation: int) -> None:
        try:
            real(stream, operation)
        except BlockingIOError:
            other.close()
            raise

    monkeypatch.setattr(fcntl, "flock", flock)
    with cache.lock("index", "web2"):
        assert pathlib.Path(cache.directory, "locks", "index").read_text() == "web2"


def test_a_directory_that_cannot_be(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JemallocError, match=r"^cache: .*/file.*: Not a directory; name a path that the controller "):
        caching.Cache(str(tmp_path / "file" / "cache"), 1)


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077, 0o377])
def test_it_is_for_its_owner_alone(tmp_path: pathlib.Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        caching.Cache(str(tmp_path / "home" / "cache"), 1)
    finally:
        os.umask(before)
    made = [tmp_path / "home", *(tmp_path / "home").rglob("*")]
    assert {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777 for path in made} == dict.fromkeys(
        ["home", "home/cache", "home/cache/sources", "home/cache/bundles", "home/cache/locks"], 0o700
    )


@pytest.mark.parametrize("name", ["", "sources", "bundles", "locks"])
def test_a_directory_that_others_can_write_to_is_refused(cache: caching.Cache, name: str) -> None:
    os.chmod(os.path.join(cache.directory, name), 0o775)
    with pytest.raises(JemallocError, match=r"^cache: .* can be written by its group or by others, who could change "):
        caching.Cache(cache.directory, 1)


def test_a_lock_follows_no_link(cache: caching.Cache, tmp_path: pathlib.Path) -> None:
    (tmp_path / "victim").write_text("precious")
    os.symlink(tmp_path / "victim", os.path.join(cache.directory, "locks", "index"))
    with pytest.raises(JemallocError, match=r"^cache: .*/locks/index: Too many levels of symbolic links; name a path "):
        cache.add(packed.bundle(), "web1")
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_cache_that_can_only_be_read(cache: caching.Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed.bundle()
    cache.add(data, "web1")
    place = os.path.join(cache.directory, "bundles", hashlib.sha256(data).hexdigest())
    os.rmdir(os.path.join(cache.directory, "sources"))
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)

    def utime(_path: str) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", utime)
    found = caching.Cache(cache.directory, 1)
    assert (found.find(packed.need(), {"web1"}) or ("",))[0] == place
    assert not os.path.exists(os.path.join(cache.directory, "sources"))
    pathlib.Path(place).write_bytes(b"other")
    monkeypatch.setattr(os, "unlink", utime)
    assert found.find(packed.need(), {"web1"}) is None


def test_looking_makes_no_cache(tmp_path: pathlib.Path) -> None:
    cache = caching.Cache(str(tmp_path / "cache"), 1, make=False)
    assert (cache.listing(), list(tmp_path.iterdir())) == ([], [])


def add_many(directory: str, number: int) -> None:
    """Add bundles as one of several processes."""
    cache = caching.Cache(directory, 100)
    for each in range(5):
        cache.add(packed.bundle(release=f"5.{number}.{each}"), "web1")
        cache.add(packed.bundle(), "web1")


def test_several_at_once(tmp_path: pathlib.Path) -> None:
    workers = [multiprocessing.Process(target=add_many, args=(str(tmp_path), number)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 8
    cache = caching.Cache(str(tmp_path), 100)
    assert len(cache.entries()) == len({f"5.{number}.{each}" for number in range(8) for each in range(5)} | {"5.3.1"})
    assert sorted(os.listdir(str(tmp_path / "bundles"))) == sorted(entry["sha256"] for entry in cache.entries())
    json.loads((tmp_path / "index.json").read_text())


def hold(directory: str, locked: t.Any) -> None:
    """Hold a lock until killed."""
    with caching.Cache(directory, 1).lock("x", "web1"):
        locked.set()
        locked.wait(0)
        while True:
            os.sched_yield()


def test_a_lock_ends_with_its_process(tmp_path: pathlib.Path) -> None:
    locked = multiprocessing.Event()
    holder = multiprocessing.Process(target=hold, args=(str(tmp_path), locked))
    holder.start()
    locked.wait()
    said: list[str] = []

    def waiting(owner: str) -> None:
        said.append(owner)
        holder.kill()

    with caching.Cache(str(tmp_path), 1).lock("x", "web2", waiting):
        assert said == ["web1"]
        assert (tmp_path / "locks" / "x").read_text() == "web2"
    holder.join()
    with caching.Cache(str(tmp_path), 1).lock("x", "", waiting):
        assert said == ["web1"]


def test_waiting_for_a_lock(tmp_path: pathlib.Path) -> None:
    cache = caching.Cache(str(tmp_path), 1)
    said: list[str] = []
    assert not cache.wait("x", said.append)
    locked = multiprocessing.Event()
    holder = multiprocessing.Process(target=hold, args=(str(tmp_path), locked))
    holder.start()
    locked.wait()

    def waiting(owner: str) -> None:
        said.append(owner)
        holder.kill()

    assert cache.wait("x", waiting)
    assert said == ["web1"]
    holder.join()


@pytest.mark.parametrize("sha256", ["{planted}", "/dev/zero", "../planted", "", "x", 5, None, "a" * 63 + "\0"])
def test_only_a_digest_is_a_path(cache: caching.Cache, tmp_path: pathlib.Path, sha256: t.Any) -> None:
    planted = tmp_path / "planted"
    planted.write_text("planted")
    name = str(planted) if sha256 == "{planted}" else sha256
    refused = r"^cache: sources are named by their SHA-256 digests, and .* is none\.$"
    with pytest.raises(JemallocError, match=refused):
        cache.path("sources", name)
    with pytest.raises(JemallocError, match=refused):
        cache.add_source(str(planted), name)
    assert planted.read_text() == "planted"
