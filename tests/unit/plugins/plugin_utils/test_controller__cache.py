# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's cache: what is found for whom, by digest, within its limit, by several processes at once."""

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

S = "5" * 64
OPTIONS = {"cxx": False, "prof": False, "lg_page": None}
MISSING: dict[str, t.Any] = {
    "version": "5.3.1",
    "checksum": None,
    "sources": [S, "6" * 64],
    "options": OPTIONS,
    "architecture": "x86_64",
    "libc": "glibc",
    "libc_version": "2.36",
    "lg_page": 12,
}


def need(**more: t.Any) -> caching.Need:
    """Return what a host lacks."""
    return caching.need_of({**MISSING, **more})


def receipt(lowest: str = "2.34", version: str = "5.3.1", **more: t.Any) -> dict[str, t.Any]:
    """Return what a receipt says of a build."""
    platform = {"architecture": "x86_64", "libc": "glibc", "libc_lowest": lowest, "lg_page": 12}
    return {"release": version, "source": {"sha256": S}, "platform": platform, "options": OPTIONS, **more}


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> caching.Cache:
    """An empty cache."""
    return caching.Cache(str(tmp_path / "cache"), 1)


def test_need() -> None:
    assert str(need()) == "jemalloc 5.3.1 for x86_64-glibc"
    assert need().age == (2, 36)
    assert need(libc="musl", libc_version="").age == ()
    assert need().key == need(libc_version="2.41").key
    others: t.Tuple[t.Dict[str, t.Any], ...] = (
        *({"version": "5.3.0"}, {"architecture": "aarch64"}, {"options": {}}, {"libc": "musl"}, {"lg_page": 16}),
    )
    for more in others:
        assert need(**more).key != need().key


@pytest.mark.parametrize(
    "missing", [{}, {"version": "5.3.1"}, {**MISSING, "lg_page": "x"}, {**MISSING, "sources": None}]
)
def test_what_is_no_need(missing: dict[str, t.Any]) -> None:
    with pytest.raises(JemallocError, match=r"^missing: this is not what the module jemalloc returned as missing; "):
        caching.need_of(missing)


#: What a bundle is, what a host lacks, whether it does.
FITS: list[tuple[dict[str, t.Any], dict[str, t.Any], bool]] = [
    ({}, {}, True),
    ({"lowest": "2.36"}, {}, True),
    ({"lowest": "2.38"}, {}, False),
    ({"lowest": "2.4"}, {}, True),
    ({"version": "5.3.0"}, {}, False),
    ({"source": {"sha256": "6" * 64}}, {}, True),
    ({"source": {"sha256": "7" * 64}}, {}, False),
    ({"options": {**OPTIONS, "prof": True}}, {}, False),
    ({}, {"architecture": "aarch64"}, False),
    ({}, {"libc": "musl", "libc_version": ""}, False),
    ({}, {"lg_page": 16}, False),
    ({"platform": {}}, {}, False),
    ({"source": None}, {}, False),
]


@pytest.mark.parametrize(("made", "lacking", "does"), FITS)
def test_fits(cache: caching.Cache, made: dict[str, t.Any], lacking: dict[str, t.Any], does: bool) -> None:
    assert caching.fits(receipt(**made), need(**lacking)) is does
    cache.add(b"bundle", receipt(**made), "web1")
    found = cache.find(need(**lacking))
    assert (found is not None) is does
    if found:
        assert pathlib.Path(found[0]).read_bytes() == b"bundle"
        assert (found[1]["builder"], found[1]["sha256"]) == ("web1", hashlib.sha256(b"bundle").hexdigest())


def test_a_bundle_whose_bytes_are_not_right_is_none(cache: caching.Cache) -> None:
    cache.add(b"bundle", receipt(), "web1")
    path = pathlib.Path(cache.directory, "bundles", hashlib.sha256(b"bundle").hexdigest())
    path.write_bytes(b"other")
    assert cache.find(need()) is None
    assert not path.exists()
    cache.add(b"bundle", receipt(), "web2")
    found = cache.find(need())
    assert found is not None
    assert found[1]["builder"] == "web2"
    assert len(cache.entries()) == 1


def test_a_digest_that_is_not_right(cache: caching.Cache) -> None:
    with pytest.raises(JemallocError, match=r"^SHA-256 is [0-9a-f]{64} where 5{64} was expected$"):
        cache.add(b"bundle", receipt(), "web1", S)
    assert cache.entries() == []


def test_sources(cache: caching.Cache, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"source")
    digest = hashlib.sha256(b"source").hexdigest()
    assert cache.source(need(sources=[S, digest])) is None
    path = cache.add_source(str(tmp_path / "file"), digest)
    assert cache.source(need(sources=[S, digest])) == (path, digest)
    assert cache.source(need()) is None


@pytest.mark.parametrize(
    "text", ["", "{", "{}", "[1]", '[{"sha256": "x", "builder": "a"}]', '[{"builder": "a"}]', "null"]
)
def test_an_index_that_is_none(cache: caching.Cache, text: str) -> None:
    pathlib.Path(cache.directory, "index.json").write_text(text)
    assert cache.entries() == []
    cache.add(b"bundle", receipt(), "web1")
    assert len(cache.entries()) == 1


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


def test_what_another_process_writes_is_left(cache: caching.Cache) -> None:
    written = pathlib.Path(cache.directory, "bundles", ".part")
    written.write_bytes(bytes(2 << 20))
    os.utime(written, (0, 0))
    for number in range(3):
        cache.add(bytes([number]) * 600_000, receipt(), "web1")
    assert written.exists()
    assert len(list(written.parent.iterdir())) == 2


def test_the_limit(cache: caching.Cache, tmp_path: pathlib.Path) -> None:
    data = [bytes([number]) * 400_000 for number in range(4)]
    for number, each in enumerate(data[:3]):
        cache.add(each, receipt(version=f"5.3.{number}"), "web1")
        os.utime(os.path.join(cache.directory, "bundles", hashlib.sha256(each).hexdigest()), (number, number))
    assert [entry["release"] for entry in cache.entries()] == ["5.3.2", "5.3.1"]
    assert cache.find(need(version="5.3.1"))  # which is used now, so 5.3.2 goes first
    cache.add(data[3], receipt(version="5.3.3"), "web1")
    assert [entry["release"] for entry in cache.entries()] == ["5.3.3", "5.3.1"]
    assert len(os.listdir(os.path.join(cache.directory, "bundles"))) == 2
    large = tmp_path / "large"
    large.write_bytes(b"x" * 2_000_000)
    assert os.path.exists(cache.add_source(str(large), hashlib.sha256(large.read_bytes()).hexdigest()))
    assert cache.entries() == []


def test_a_directory_that_cannot_be(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JemallocError, match=r"^cache: .*/file.*: Not a directory; name a path that the controller "):
        caching.Cache(str(tmp_path / "file" / "cache"), 1)


def test_it_is_for_its_owner_alone(tmp_path: pathlib.Path) -> None:
    cache = caching.Cache(str(tmp_path / "cache"), 1)
    assert os.stat(os.path.join(cache.directory, "bundles")).st_mode & 0o777 == 0o700


def add_many(directory: str, number: int) -> None:
    """Add bundles as one of several processes."""
    cache = caching.Cache(directory, 100)
    for each in range(5):
        cache.add(f"{number}.{each}".encode(), receipt(version=f"5.{number}.{each}"), "web1")
        cache.add(b"the same", receipt(), "web1")


def test_several_at_once(tmp_path: pathlib.Path) -> None:
    workers = [multiprocessing.Process(target=add_many, args=(str(tmp_path), number)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 8
    cache = caching.Cache(str(tmp_path), 100)
    assert len(cache.entries()) == 41
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
