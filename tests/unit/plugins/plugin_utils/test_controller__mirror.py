# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of a cache on a real web server: what is taken from it, and what it must not do."""

from __future__ import annotations

import hashlib
import json
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _cache as caching
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _mirror as mirror
from tests.unit import packed

S = "5" * 64
HERE = {"architecture": "x86_64", "libc": "glibc", "libc_version": "2.36", "lg_page": 12}
NEED = caching.need_of({"version": "5.3.1", "sources": [packed.SOURCE], "options": packed.OPTIONS, **HERE})


@pytest.fixture
def mirrored(server: t.Any, tmp_path: pathlib.Path) -> str:
    """Put a cache with one bundle on the server; return the checksum of its index."""
    cache = caching.Cache(str(tmp_path / "original"), 1)
    cache.add(packed.bundle(), "web1")
    for path in pathlib.Path(cache.directory).rglob("*"):
        if path.is_file():
            server.files[f"/{path.relative_to(cache.directory)}"] = path.read_bytes()
    return f"sha256:{hashlib.sha256(server.files['/index.json']).hexdigest()}"


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> caching.Cache:
    """The controller's own cache, which is empty."""
    return caching.Cache(str(tmp_path / "cache"), 1)


def find(server: t.Any, checksum: t.Optional[str], cache: caching.Cache) -> None:
    """Look into the mirror."""
    mirror.find(server.address, checksum, NEED, cache, lambda _come, _total: None)


@pytest.mark.parametrize("given", [True, False])
def test_a_bundle_is_taken(server: t.Any, mirrored: str, cache: caching.Cache, given: bool) -> None:
    find(server, mirrored if given else None, cache)
    found = cache.find(NEED, ())
    assert found is not None
    assert pathlib.Path(found[0]).read_bytes() == packed.bundle()
    assert (found[1]["builder"], found[1]["origin"]) == (server.address, "mirror")


def test_nothing_that_does(server: t.Any, mirrored: str, cache: caching.Cache) -> None:
    index = json.loads(server.files["/index.json"])
    index[0]["release"] = "5.3.0"
    server.files["/index.json"] = json.dumps(index).encode()
    find(server, None, cache)
    assert cache.entries() == []
    assert server.asked == ["/index.json"]


@pytest.mark.parametrize(
    ("name", "value"), [("builder", "web1\x1b[2J"), ("sha256", "../../x"), ("platform", {"libc_lowest": "new"})]
)
def test_an_entry_that_is_none(server: t.Any, mirrored: str, cache: caching.Cache, name: str, value: t.Any) -> None:
    index = json.loads(server.files["/index.json"])
    index[0][name] = value
    server.files["/index.json"] = json.dumps(index).encode()
    find(server, None, cache)
    assert cache.entries() == []
    assert server.asked == ["/index.json"]


def test_an_index_that_is_too_large(server: t.Any, mirrored: str, cache: caching.Cache) -> None:
    server.files["/index.json"] += b" " * caching.MOST_INDEX
    with pytest.raises(JemallocError, match=r"^cache_mirror: .*: it is larger than 4 MiB, too much for a release\.$"):
        find(server, None, cache)


def test_what_is_not_what_it_says(server: t.Any, mirrored: str, cache: caching.Cache) -> None:
    with pytest.raises(JemallocError) as caught:
        find(server, f"sha256:{S}", cache)
    digest = hashlib.sha256(server.files["/index.json"]).hexdigest()
    assert str(caught.value) == f"cache_mirror: {server.address}: SHA-256 is {digest} where {S} was expected."
    for name in [name for name in server.files if name.startswith("/bundles/")]:
        server.files[name] = b"forged"
    with pytest.raises(JemallocError, match=r"^cache_mirror: .*: its bundle [0-9a-f]{64} has another SHA-256\.$"):
        find(server, mirrored, cache)
    server.files.clear()
    with pytest.raises(JemallocError, match=r"^cache_mirror: .*: the server answers 404 Not Found\.$"):
        find(server, mirrored, cache)
    assert cache.entries() == []


def test_an_index_that_says_something_else_than_the_bundle(server: t.Any, mirrored: str, cache: caching.Cache) -> None:
    data = packed.bundle(release="5.3.0")
    index = json.loads(server.files["/index.json"])
    index[0]["sha256"] = hashlib.sha256(data).hexdigest()
    server.files["/index.json"] = json.dumps(index).encode()
    server.files[f"/bundles/{index[0]['sha256']}"] = data
    with pytest.raises(JemallocError, match=r"^cache_mirror: .* is refused: it holds jemalloc 5\.3\.0, not 5\.3\.1\."):
        find(server, None, cache)
    assert cache.entries() == []


def test_check() -> None:
    assert mirror.check("https://example.com/cache/", None) == "https://example.com/cache"
    assert mirror.check("http://example.com", f"sha256:{S}") == "http://example.com"
    for url, words in (
        ("http://example.com", "anybody on the way could change what http://example.com answers"),
        ("/srv/cache", "is neither an http:// nor an https:// address"),
        ("https://me:secret@example.com", "a URL holds a user name or password"),
    ):
        with pytest.raises(JemallocError, match=r"^cache_mirror: ") as caught:
            mirror.check(url, None)
        assert words in str(caught.value)
        assert "secret" not in str(caught.value)
