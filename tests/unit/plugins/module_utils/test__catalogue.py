# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue: its own data, and which release is taken for what a user says."""

from __future__ import annotations

import re
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize("release", catalogue.RELEASES.values(), ids=str)
def test_every_release_is_well_formed(release: catalogue.Release) -> None:
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", release.version)
    assert re.fullmatch(r"20[0-9]{2}-[0-9]{2}(-[0-9]{2})?", release.tagged)
    for digest in (release.sha256, *(packing.sha256 for packing in release.packings)):
        assert re.fullmatch(r"[0-9a-f]{64}", digest)
    for packing in release.packings:
        assert packing.path.startswith(f"j/jemalloc/jemalloc_{release.version}.orig.tar.")
        assert re.fullmatch(r"([0-9a-f]{40})?", packing.commit)
        assert bool(packing.commit) == (packing.sha256 != release.sha256)


def test_releases_are_in_order_and_no_digest_stands_twice() -> None:
    releases = list(catalogue.RELEASES.values())
    assert [release.number for release in releases] == sorted({release.number for release in releases})
    assert [release.tagged for release in releases] == sorted(release.tagged for release in releases)
    assert len({release.sha256 for release in releases}) == len(releases)


def test_ten_comes_after_nine() -> None:
    assert catalogue.version_number("5.10.0") > catalogue.version_number("5.9.0")


def test_the_default_is_a_known_release() -> None:
    assert catalogue.find_release(None, None) == catalogue.RELEASES[catalogue.DEFAULT_VERSION]


def test_a_known_release() -> None:
    assert catalogue.find_release("5.1.0", None) is catalogue.RELEASES["5.1.0"]


@pytest.mark.parametrize("checksum", [f"sha256:{DIGEST}", f"sha256:{DIGEST.upper()}"])
@pytest.mark.parametrize("version", ["5.9.0", "5.3.1"])
def test_a_checksum_replaces_all_that_the_catalogue_says(version: str, checksum: str) -> None:
    assert catalogue.find_release(version, checksum) == catalogue.Release(version, DIGEST)


ERRORS: t.List[t.Tuple[t.Optional[str], t.Optional[str], str]] = [
    (
        "5.9.0",
        None,
        "version: jemalloc 5.9.0 is not a known release; did you mean 5.4.0? For another one give its checksum as well "
        "(sha256:...).",
    ),
    *(
        (wrong, checksum, f"version: {wrong!r} is not the number of a jemalloc release; write it as in 5.3.1.")
        for checksum in (None, f"sha256:{DIGEST}")
        for wrong in (
            "",
            "9",
            "5.1.0-rc1",
            "5.1.0/../..",
            "../etc",
            "\u0665.1.0",
            "12345.1.0",
        )
    ),
    *(
        ("5.1.0", wrong, f"checksum: {wrong!r} is not a SHA-256 digest; write it as sha256: and 64 hexadecimal digits.")
        for wrong in (
            "",
            DIGEST,
            f"md5:{DIGEST}",
            "sha256:",
            f"sha256:{DIGEST}0",
            f"sha256:{DIGEST}\n",
            "sha256:" + "g" * 64,
        )
    ),
]


NEAREST = {
    "5": "5.3.1",
    "5.1": "5.1.0",
    "5.2": "5.2.1",
    "5.4": "5.4.0",
    "3": "3.6.0",
    "v5.3.1": "5.3.1",
    "v5.1": "5.1.0",
    "jemalloc-5.1.0": "5.1.0",
    "5.1.0.0": "5.1.0",
    "5.1.0\n": "5.1.0",
    "6": "",
    "": "",
    "stable": "",
}


@pytest.mark.parametrize(
    ("unknown", "near"), [("5.3.9", "5.3.1"), ("5.10.0", "5.4.0"), ("4.0.1", "4.0.0"), ("2.2.5", "3.6.0")]
)
def test_the_nearest_release_of_a_number(unknown: str, near: str) -> None:
    assert catalogue.nearest(unknown) == near


@pytest.mark.parametrize(("wrong", "near"), NEAREST.items())
def test_the_nearest_release(wrong: str, near: str) -> None:
    assert catalogue.nearest(wrong) == near
    if near:
        complaint = f"{wrong!r} is not the number of a jemalloc release; did you mean {near}?"
        assert catalogue.wrong_number(wrong) == complaint


def test_the_newest_release_has_an_option_of_its_own() -> None:
    assert catalogue.wrong_number("Latest") == (
        "'Latest' is not the number of a jemalloc release; for the newest one of upstream leave it out and set latest: "
        "true."
    )
    assert catalogue.wrong_number("5.9.0") == ""


@pytest.mark.parametrize(("version", "checksum", "message"), ERRORS)
def test_errors(version: t.Optional[str], checksum: t.Optional[str], message: str) -> None:
    with pytest.raises(JemallocError) as caught:
        catalogue.find_release(version, checksum)
    assert str(caught.value) == message
