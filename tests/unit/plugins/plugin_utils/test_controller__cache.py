# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's cache: what is found for whom, by digest, within its limit, by several processes at once."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import random
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _cache as caching
from tests.unit import packed

S = "5" * 64


def need(**more: t.Any) -> caching.Need:
    """Return the need of a host, for which two sources are right."""
    return packed.need(**{"sources": (packed.SOURCE, "6" * 64), **more})


def digest(data: bytes) -> str:
    """Return the digest of a bundle."""
    return hashlib.sha256(data).hexdigest()


def find(cache: caching.Cache, *trusted: str, **more: t.Any) -> t.Optional[tuple[str, str]]:
    """Return the builder and the digest of the bundle that is found for a host."""
    found = cache.find(need(**more), trusted)
    return (found[1]["builder"], found[1]["sha256"]) if found else None


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> caching.Cache:
    """An empty cache."""
    return caching.Cache(str(tmp_path / "cache"), 1)


def test_need() -> None:
    assert str(need()) == "jemalloc 5.3.1 for x86_64-glibc"
    assert need().age == (2, 36)
    assert need(libc="musl", libc_version="").age == ()
    assert need().key == need(libc_version="2.41").key
    assert need().lock("web1") == need(libc_version="2.41").lock("web1") != need().lock("../web1")
    assert "/" not in need().lock("../web1")
    others: t.Tuple[t.Dict[str, t.Any], ...] = (
        *({"version": "5.3.0"}, {"architecture": "aarch64"}, {"options": {}}, {"libc": "musl"}, {"lg_page": 16}),
    )
    for more in others:
        assert need(**more).key != need().key


#: What a bundle is, what is missing on a host, and why the one does not fit the other.
FITS: list[tuple[dict[str, t.Any], dict[str, t.Any], str]] = [
    ({}, {}, ""),
    ({"platform": packed.platform(libc_lowest="2.36")}, {}, ""),
    ({"platform": packed.platform(libc_lowest="2.38")}, {}, "it needs glibc 2.38, web1 has 2.36"),
    ({"platform": packed.platform(libc_lowest="2.4")}, {}, ""),
    ({"release": "5.3.0"}, {}, "it holds jemalloc 5.3.0, not 5.3.1"),
    ({"source": {"sha256": "6" * 64}}, {}, ""),
    ({"source": {"sha256": "7" * 64}}, {}, "it was built from another source"),
    ({"options": {**packed.OPTIONS, "prof": True}}, {}, "it was built with other options"),
    ({}, {"architecture": "aarch64"}, "it is for x86_64 with glibc, web1 is aarch64 with glibc"),
    ({}, {"libc": "musl", "libc_version": ""}, "it is for x86_64 with glibc, web1 is x86_64 with musl"),
    ({}, {"lg_page": 16}, "it is for pages of 4096 bytes, web1 uses 65536"),
]


@pytest.mark.parametrize(("made", "lacking", "reason"), FITS)
def test_fits(cache: caching.Cache, made: dict[str, t.Any], lacking: dict[str, t.Any], reason: str) -> None:
    data = packed.bundle(**made)
    assert caching.fits(packed.manifest(**made), need(**lacking)) is (reason == "")
    cache.add(data, "web1")
    assert find(cache, "web1", **lacking) == (None if reason else ("web1", digest(data)))


WRONG: dict[str, list[t.Any]] = {
    "sha256": ["0", "../x", 1, None],
    "builder": ["\x1b[2J", None, "x" * 5000],
    "release": ["5", None],
    "source": [{}, {"sha256": "x"}, []],
    "platform": [{}, packed.platform(libc_lowest="new"), packed.platform(lg_page="12"), []],
    "options": [{}, {"cxx": 1}],
}


def test_what_an_index_says_may_be_wrong(cache: caching.Cache) -> None:
    cache.add(packed.bundle(), "web1")
    entry = cache.entries()[0]
    assert caching.parse_index(json.dumps([{**entry, "of a later version": 1}, 1])) == [entry]
    old = {name: entry[name] for name in entry if name not in ("origin", "added")}
    assert caching.parse_index(json.dumps([old])) == [{**old, "origin": "host", "added": ""}]
    wrong = [{**entry, name: value} for name, values in WRONG.items() for value in values]
    assert caching.parse_index(json.dumps([*wrong, entry])) == [entry]
    assert caching.parse_index(json.dumps([{key: entry[key] for key in entry if key != name} for name in WRONG])) == []
    for text in ("", "{}", "null", "[", "[" * 100_000, "[" + "{}," * 500_000 + "{}]"):
        assert caching.parse_index(text) == []


@pytest.mark.parametrize(("made", "asked", "reason"), FITS)
def test_a_bundle_that_is_not_what_was_asked_for(
    cache: caching.Cache, made: dict[str, t.Any], asked: dict[str, t.Any], reason: str
) -> None:
    if not reason:
        cache.add(packed.bundle(**made), "web1", need(**asked))
        return
    with pytest.raises(JemallocError) as caught:
        cache.add(packed.bundle(**made), "web1", need(**asked))
    assert str(caught.value) == (
        f"cache: the bundle from web1 is refused: {reason}. No other host gets it. Remove jemalloc 5.3.1 from web1, "
        "and run it again."
    )
    assert cache.entries() == []
    assert os.listdir(os.path.join(cache.directory, "bundles")) == []


def test_what_is_no_bundle(cache: caching.Cache) -> None:
    with pytest.raises(JemallocError, match=r"^The bundle is refused: "):
        cache.add(b"bundle", "web1", need())
    assert cache.entries() == []


def test_an_entry_is_made_from_the_bytes(cache: caching.Cache) -> None:
    data = packed.bundle(by="web9", builder="web9")
    cache.add(data, "web1", need())
    entry = cache.entries()[0]
    assert entry.pop("added").endswith("Z")
    assert entry == {
        "sha256": digest(data),
        "builder": "web1",
        "origin": "host",
        "release": "5.3.1",
        "source": {"sha256": packed.SOURCE},
        "platform": packed.platform(),
        "options": packed.OPTIONS,
    }


def test_no_host_takes_a_bundle_of_one_that_it_does_not_trust(cache: caching.Cache) -> None:
    data = packed.bundle()
    cache.add(data, "web1")
    assert find(cache, "web2") is None
    assert find(cache, "web2", "web1") == ("web1", digest(data))
    assert cache.find(need(), (), {digest(data)})
    assert cache.find(need(), (), {"0" * 64}) is None


def test_a_new_entry_neither_displaces_nor_precedes_another_one(cache: caching.Cache) -> None:
    first, second = packed.bundle(b"first"), packed.bundle(b"second")
    for data, builder in ((first, "web2"), (second, "web1"), (first, "web1"), (first, "web2"), (second, "web2")):
        cache.add(data, builder, need())
    listed = [(entry["builder"], entry["sha256"]) for entry in cache.entries()]
    assert listed == [
        ("web2", digest(first)),
        ("web1", digest(second)),
        ("web1", digest(first)),
        ("web2", digest(second)),
    ]
    assert find(cache, "web1", "web2") == ("web2", digest(first))
    assert find(cache, "web1") == ("web1", digest(second))


def test_a_mirror_is_trusted_and_no_host_by_its_name(cache: caching.Cache) -> None:
    cache.add(packed.bundle(b"mirror"), "https://example.com", need(), caching.MIRROR)
    assert find(cache) == ("https://example.com", digest(packed.bundle(b"mirror")))
    assert [caching.made_by(entry) for entry in cache.entries()] == ["from the mirror https://example.com"]
    other = caching.Cache(f"{cache.directory}-2", 1)
    other.add(packed.bundle(), "https://example.com", need())
    assert find(other) is None
    assert [caching.made_by(entry) for entry in other.entries()] == ["built on https://example.com"]


def test_the_index_of_an_older_version(cache: caching.Cache) -> None:
    data = packed.bundle()
    cache.add(data, "web1")
    entry = {key: value for key, value in cache.entries()[0].items() if key not in ("origin", "added")}
    pathlib.Path(cache.directory, "index.json").write_text(json.dumps([entry]))
    assert cache.entries() == [{**entry, "origin": "host", "added": ""}]
    assert find(cache, "web1") == ("web1", digest(data))
    cache.add(data, "web1")
    assert len(cache.entries()) == 1


def test_removing(cache: caching.Cache) -> None:
    first, second = packed.bundle(b"first"), packed.bundle(b"second")
    for data, builder in ((first, "web1"), (second, "web1"), (first, "web2")):
        cache.add(data, builder)
    os.unlink(os.path.join(cache.directory, "bundles", digest(second)))
    assert [(each["builder"], each["size"]) for each in cache.listing()] == [
        ("web1", len(first)),
        ("web1", 0),
        ("web2", len(first)),
    ]
    assert [each["builder"] for each in cache.listing("web2")] == ["web2"]
    cache.remove("web1")
    assert [each["builder"] for each in cache.entries()] == ["web2"]
    assert os.listdir(os.path.join(cache.directory, "bundles")) == [digest(first)]
    cache.remove("web2")
    assert (cache.entries(), os.listdir(os.path.join(cache.directory, "bundles"))) == ([], [])


def test_a_bundle_whose_bytes_are_not_right_is_none(cache: caching.Cache) -> None:
    data = packed.bundle()
    cache.add(data, "web1")
    path = pathlib.Path(cache.directory, "bundles", digest(data))
    path.write_bytes(b"other")
    assert find(cache, "web1") is None
    assert not path.exists()
    cache.add(data, "web2")
    assert find(cache, "web1", "web2") == ("web1", digest(data))


def test_sources(cache: caching.Cache, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"source")
    digest = hashlib.sha256(b"source").hexdigest()
    assert cache.source(need(sources=[S, digest])) is None
    path = cache.add_source(str(tmp_path / "file"), digest)
    assert cache.source(need(sources=[S, digest])) == (path, digest)
    assert cache.source(need()) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "{}", "[1]", '[{"sha256": "x", "builder": "a"}]', '[{"builder": "a"}]', "null", "[" * 100_000),
        json.dumps([{**packed.manifest(), "sha256": f"../{S}", "builder": "a"}]),
        json.dumps([{**packed.manifest(), "sha256": S, "builder": ["a"]}]),
        json.dumps([{**packed.manifest(), "sha256": S, "builder": "a", "options": []}]),
    ],
)
def test_an_index_that_is_none(cache: caching.Cache, text: str) -> None:
    pathlib.Path(cache.directory, "index.json").write_text(text)
    assert cache.entries() == []
    cache.add(packed.bundle(), "web1")
    assert len(cache.entries()) == 1


def test_what_another_process_writes_is_left(cache: caching.Cache) -> None:
    written = pathlib.Path(cache.directory, "bundles", ".part")
    written.write_bytes(bytes(2 << 20))
    os.utime(written, (0, 0))
    for number in range(3):
        cache.add(packed.bundle(random.Random(number).randbytes(600_000)), "web1")
    assert written.exists()
    assert len(list(written.parent.iterdir())) == 2


def test_the_limit(cache: caching.Cache, tmp_path: pathlib.Path) -> None:
    chance = random.Random(1)
    data = [packed.bundle(chance.randbytes(400_000), release=f"5.3.{number}") for number in range(4)]
    for number, each in enumerate(data[:3]):
        cache.add(each, "web1")
        os.utime(os.path.join(cache.directory, "bundles", digest(each)), (number, number))
    assert [entry["release"] for entry in cache.entries()] == ["5.3.1", "5.3.2"]
    assert find(cache, "web1")  # 5.3.1 is used now, so 5.3.2 goes first
    cache.add(data[3], "web1")
    assert [entry["release"] for entry in cache.entries()] == ["5.3.1", "5.3.3"]
    assert len(os.listdir(os.path.join(cache.directory, "bundles"))) == 2
    large = tmp_path / "large"
    large.write_bytes(b"x" * 2_000_000)
    assert os.path.exists(cache.add_source(str(large), hashlib.sha256(large.read_bytes()).hexdigest()))
    assert cache.entries() == []
