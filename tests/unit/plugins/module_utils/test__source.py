# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Origins and digests."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _source as source
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

RELEASE = catalogue.Release("5.9.0", "a" * 64, packings=(catalogue.Packing("j/jemalloc/x.tar.gz", "b" * 64, "c" * 40),))
UPSTREAM = source.Candidate(
    "url", "https://github.com/jemalloc/jemalloc/releases/download/5.9.0/jemalloc-5.9.0.tar.bz2", "a" * 64
)


@pytest.mark.parametrize(
    ("origin", "kind", "location"),
    [
        ("/srv/jemalloc.tar.gz", "file", "/srv/jemalloc.tar.gz"),
        ("/srv/jemalloc-{version}.tar.bz2", "file", "/srv/jemalloc-5.9.0.tar.bz2"),
        ("file:///srv/x.tar", "file", "/srv/x.tar"),
        ("https://mirror.example.com", "url", "https://mirror.example.com/jemalloc-5.9.0.tar.bz2"),
        ("http://mirror.example.com/pub/", "url", "http://mirror.example.com/pub/jemalloc-5.9.0.tar.bz2"),
        ("https://mirror.example.com/a.tar.xz", "url", "https://mirror.example.com/a.tar.xz"),
        ("https://m.example.com/{version}/j-{version}.tgz", "url", "https://m.example.com/5.9.0/j-5.9.0.tgz"),
    ],
)
def test_an_origin_comes_first(origin: str, kind: str, location: str) -> None:
    assert list(source.candidates(RELEASE, [origin], list)) == [source.Candidate(kind, location, "a" * 64), UPSTREAM]


def test_an_origin_that_is_a_directory(tmp_path: pathlib.Path) -> None:
    for origin in (str(tmp_path), f"file://{tmp_path}", f"{tmp_path}/"):
        found = next(source.candidates(RELEASE, [origin], list))
        assert found == source.Candidate("file", f"{tmp_path}/jemalloc-5.9.0.tar.bz2", "a" * 64)


@pytest.mark.parametrize("origin", ["jemalloc.tar.bz2", "", "ftp://x/y", "file://host/x", "~/x", "HTTPS://x"])
def test_an_origin_that_is_none(origin: str) -> None:
    with pytest.raises(JemallocError) as caught:
        list(source.candidates(RELEASE, [origin], list))
    assert str(caught.value) == (
        f"origins: {origin!r} is neither an absolute path on the host nor a file://, http:// or https:// URL."
    )


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        ("https://user:secret@example.com/", "a URL holds a user name or password, which would end up in logs; "),
        ("http://[::1/", "'http://[::1/' is not a URL ("),
        ("/srv/a\nb", "'/srv/a\\nb' holds a line break or a NUL; name a path or a URL."),
        ("https://example.com/\0", "'https://example.com/\\x00' holds a line break or a NUL; name a path or a URL."),
    ],
)
def test_an_origin_that_is_refused(origin: str, message: str) -> None:
    with pytest.raises(JemallocError) as caught:
        list(source.candidates(RELEASE, [origin], list))
    assert str(caught.value).startswith(f"origins: {message}")
    assert "secret" not in str(caught.value)


def test_the_archive_of_the_distribution_comes_last() -> None:
    roots = ["http://deb.example.com/pool/main/", "http://other/pool/main"]
    assert list(source.candidates(RELEASE, [], lambda: roots)) == [
        UPSTREAM,
        source.Candidate("apt", "http://deb.example.com/pool/main/j/jemalloc/x.tar.gz", "b" * 64, "c" * 40),
        source.Candidate("apt", "http://other/pool/main/j/jemalloc/x.tar.gz", "b" * 64, "c" * 40),
    ]


def test_parse_archive_roots() -> None:
    output = (
        "http://mirror.example.org/security/ main\nhttp://mirror.example.org/debian/ main\n"
        "http://mirror.example.org/debian main\nhttp://mirror.example.org/debian/ contrib\n"
    )
    assert source.parse_archive_roots(output) == [
        "http://mirror.example.org/debian/pool/contrib",
        "http://mirror.example.org/debian/pool/main",
        "http://mirror.example.org/security/pool/main",
    ]
    assert source.parse_archive_roots("") == source.parse_archive_roots("one\nof more words\n\n") == []


def test_a_password_is_used_but_not_shown(tmp_path: pathlib.Path) -> None:
    (upstream, *archive) = source.candidates(RELEASE, [], lambda: ["http://svc:s3cret@deb.example.com/pool/main"])
    assert archive[0].location.startswith("http://svc:s3cret@deb.example.com/")
    assert str(archive[0]) == "http://deb.example.com/pool/main/j/jemalloc/x.tar.gz"

    def fetch(candidate: source.Candidate, path: str) -> None:
        if candidate == upstream:
            raise JemallocError("http://svc:s3cret@proxy:3128 does not answer")
        pathlib.Path(path).write_bytes(b"x")

    with pytest.raises(JemallocError) as caught:
        source.obtain([upstream, *archive], str(tmp_path), fetch)
    assert "http://proxy:3128 does not answer" in str(caught.value)
    assert "http://deb.example.com/pool/main/j/jemalloc/x.tar.gz: SHA-256 is" in str(caught.value)
    archive[0] = dataclasses.replace(archive[0], sha256=hashlib.sha256(b"x").hexdigest())
    found = source.obtain([upstream, *archive], str(tmp_path), fetch)
    assert "s3cret" not in f"{found}"


class Fetch:
    """Brings bytes, or the reason why there are none."""

    def __init__(self, answers: t.Mapping[str, t.Union[bytes, str]]) -> None:
        self.answers = answers
        self.calls: t.List[str] = []

    def __call__(self, candidate: source.Candidate, path: str) -> None:
        """Answer for a candidate."""
        self.calls.append(candidate.location)
        assert not os.path.exists(path)
        answer = self.answers[candidate.location]
        if isinstance(answer, str):
            pathlib.Path(path).write_text("half of it")
            raise JemallocError(answer)
        pathlib.Path(path).write_bytes(answer)


GOOD = hashlib.sha256(b"good").hexdigest()
BAD = hashlib.sha256(b"bad").hexdigest()


def test_obtain_takes_the_first_with_the_right_bytes(tmp_path: pathlib.Path) -> None:
    tried = [source.Candidate("url", name, GOOD, name) for name in ("one", "two", "three", "four")]
    fetch = Fetch({"one": "the server answers 404 Not Found", "two": b"bad", "three": b"good", "four": b"good"})
    found = source.obtain(tried, str(tmp_path), fetch)
    assert fetch.calls == ["one", "two", "three"]
    assert found == source.Source(
        str(tmp_path / "source.tar"),
        GOOD,
        "three",
        "three",
        ("one: the server answers 404 Not Found", f"two: SHA-256 is {BAD} where {GOOD} was expected"),
    )
    assert (tmp_path / "source.tar").read_bytes() == b"good"


def test_obtain_finds_nothing(tmp_path: pathlib.Path) -> None:
    tried = [source.Candidate("url", name, GOOD) for name in ("one", "two")]
    with pytest.raises(JemallocError) as caught:
        source.obtain(tried, str(tmp_path), Fetch({"one": b"bad", "two": "no route to host"}))
    assert str(caught.value) == (
        f"No origin has the source of this release; tried 2: one: SHA-256 is {BAD} where {GOOD} was expected; "
        "two: no route to host. Name a mirror or a local tarball in origins."
    )
