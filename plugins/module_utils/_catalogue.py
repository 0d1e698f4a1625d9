"""The known releases of jemalloc: version, date, and the digests of the archives that hold them."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

#: The newest release that this collection's own tests have built; what a user gets who names none.
DEFAULT_VERSION = "5.3.1"

#: Where upstream publishes a release; the digests of RELEASES are those of this asset.
UPSTREAM_URL = "https://github.com/jemalloc/jemalloc/releases/download/{version}/jemalloc-{version}.tar.bz2"

#: Where upstream's newest release is looked up: GitHub's REST API, "releases". Its answer names the assets' digests.
LATEST_URL = "https://api.github.com/repos/jemalloc/jemalloc/releases/latest"

_VERSION = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}")
_BEGINNING = re.compile(r"(?:jemalloc-)?v?([0-9]+(?:\.[0-9]+){0,2})(?:\.0)?")
_SHA256 = re.compile(r"sha256:([0-9a-fA-F]{64})")


@dataclass(frozen=True)
class Packing:
    """The same release in the pool of a Debian-like distribution: path below the pool, digest, upstream's commit.

    A packing with a commit is a snapshot of the tag: it has neither configure nor VERSION.
    """

    path: str
    sha256: str
    commit: str = ""


@dataclass(frozen=True)
class Release:
    """One upstream release; sha256 is that of upstream's .tar.bz2, or what the user gave."""

    version: str
    sha256: str
    tagged: str = ""
    packings: t.Tuple[Packing, ...] = ()

    @property
    def number(self) -> t.Tuple[int, ...]:
        """The version as numbers, for comparing."""
        return version_number(self.version)


def version_number(version: str) -> t.Tuple[int, ...]:
    """Return 5.10.0 as (5, 10, 0), so that it sorts after 5.9.0."""
    return tuple(int(part) for part in version.split("."))


# Every digest agrees in at least two independent public recipes (buildpack, spack, Homebrew, nixpkgs, MacPorts,
# conan, buildroot); 5.2.1 and 5.3.0 also in Debian's signed index of sources. Upstream signs no release.
# 4.0.1 and 4.0.3 are left out: no second source for their digests was found.
_RELEASES = (
    Release("3.6.0", "e16c2159dd3c81ca2dc3b5c9ef0d43e1f2f45b04548f42db12e7c12d7bdf84fe", "2014-03-31"),
    Release("4.0.0", "214dbc74c3669b34219b0c5a55cb96f07cb12f44c834ed9ee64d1185ee6c3ef2", "2015-08-17"),
    Release("4.0.2", "0d8a9c8a98adb6983e0ccb521d45d9db1656ef3e71d0b14fb333f2c8138f4611", "2015-09-21"),
    Release("4.0.4", "3fda8d8d7fcd041aa0bebbecd45c46b28873cf37bd36c56bf44961b36d0f42d0", "2015-10-24"),
    Release("4.1.0", "fad06d714f72adb4265783bc169c6d98eeb032d57ba02d87d1dcb4a2d933ec8e", "2016-02-28"),
    Release("4.1.1", "c8f13b72b3aced936337a864fbe614a43e968f4adf64314b2a39c6ce43c9adae", "2016-05-03"),
    Release("4.2.0", "b216ddaeb901697fe38bd30ea02d7505a4b60e8979092009f95cfda860d46acb", "2016-05-12"),
    Release("4.2.1", "5630650d5c1caab95d2f0898de4fe5ab8519dc680b04963b38bb425ef6a42d57", "2016-06-08"),
    Release("4.3.0", "2142d4093708b2f988f60ed5fd8d869447cd9f5354933e596400c0a69bfef5e0", "2016-11-04"),
    Release("4.3.1", "f7bb183ad8056941791e0f075b802e8ff10bd6e2d904e682f87c8f6a510c278b", "2016-11-07"),
    Release("4.4.0", "a7aea63e9718d2f1adf81d87e3df3cb1b58deb86fc77bad5d702c4c59687b033", "2016-12-03"),
    Release("4.5.0", "9409d85664b4f135b77518b0b118c549009dc10f6cba14557d170476611f6780", "2017-02-28"),
    Release("5.0.0", "9e4a9efba7dc4a7696f247c90c3fe89696de5f910f7deacf7e22ec521b1fa810", "2017-06-13"),
    Release("5.0.1", "4814781d395b0ef093b21a08e8e6e0bd3dab8762f9935bbfb71679b0dea7c3e9", "2017-07-01"),
    Release("5.1.0", "5396e61cc6103ac393136c309fae09e44d74743c86f90e266948c50f3dbb7268", "2018-05-08"),
    Release("5.2.0", "74be9f44a60d2a99398e706baa921e4efde82bf8fd16e5c0643c375c5851e3b4", "2019-04-02"),
    Release(
        "5.2.1",
        "34330e5ce276099e2e8950d9335db5a875689a4c6a56751ef3b1d8c537f887f6",
        "2019-08-05",
        (
            Packing(
                "j/jemalloc/jemalloc_5.2.1.orig.tar.bz2",
                "34330e5ce276099e2e8950d9335db5a875689a4c6a56751ef3b1d8c537f887f6",
            ),
        ),
    ),
    Release(
        "5.3.0",
        "2db82d1e7119df3e71b7640219b6dfe84789bc0537983c3b7ac4f7189aecfeaa",
        "2022-05-06",
        (
            Packing(
                "j/jemalloc/jemalloc_5.3.0.orig.tar.bz2",
                "2db82d1e7119df3e71b7640219b6dfe84789bc0537983c3b7ac4f7189aecfeaa",
            ),
        ),
    ),
    Release(
        "5.3.1",
        "3826bc80232f22ed5c4662f3034f799ca316e819103bdc7bb99018a421706f92",
        "2026-04-13",
        (
            Packing(
                "j/jemalloc/jemalloc_5.3.1.orig.tar.gz",
                "aac0e7afdbfb8abcbe7cab63597b63abacf22e8b701116a10a45b5ff50ac0c29",
                "81034ce1f1373e37dc865038e1bc8eeecf559ce8",
            ),
        ),
    ),
    Release("5.4.0", "200776fac271093e7c2f21edd6d62657ecd2be578d9328633f2a86bfa6ef4f1d", "2026-09"),
)

RELEASES: t.Dict[str, Release] = {release.version: release for release in _RELEASES}


def check_number(version: str) -> str:
    """Return a version that has the form of a release's number."""
    wrong = wrong_number(version)
    if wrong:
        raise JemallocError(f"version: {wrong}")
    return version


def wrong_number(version: str) -> str:
    """Return why a version cannot be the number of a release, and what to write; nothing when it can."""
    if _VERSION.fullmatch(version):
        return ""
    what = f"{version[:40]!r} is not the number of a jemalloc release; "
    if version.strip().lower() in ("latest", "newest"):
        return f"{what}for the newest one of upstream leave it out and set latest: true."
    near = nearest(version)
    return what + (f"did you mean {near}?" if near else f"write it as in {DEFAULT_VERSION}.")


def nearest(version: str) -> str:
    """Return the known release that somebody may mean by v5.3.1, 5.1, 5 or 5.3.9; nothing when there is none."""
    if _VERSION.fullmatch(version):
        older = [each for each in RELEASES if version_number(each) <= version_number(version)]
        return older[-1] if older else next(iter(RELEASES))
    match = _BEGINNING.fullmatch(version.strip())
    beginning = match.group(1) if match else version
    found = [each for each in RELEASES if f"{each}.".startswith(f"{beginning}.")]
    return DEFAULT_VERSION if DEFAULT_VERSION in found else found[-1] if found else ""


def find_release(version: t.Optional[str], checksum: t.Optional[str]) -> Release:
    """Return the release to install.

    Without a version that is DEFAULT_VERSION. A checksum replaces the catalogue's digest and everything that
    hangs on it, and makes a release possible that the catalogue does not know.
    """
    wanted = check_number(DEFAULT_VERSION if version is None else version)
    if checksum is None:
        if wanted not in RELEASES:
            raise JemallocError(
                f"version: jemalloc {wanted} is not a known release; did you mean {nearest(wanted)}? For another one "
                "give its checksum as well (sha256:...)."
            )
        return RELEASES[wanted]
    return Release(wanted, digest(checksum, "checksum"))


def digest(checksum: str, parameter: str) -> str:
    """Return the hexadecimal digits of a parameter's sha256:..."""
    match = _SHA256.fullmatch(checksum)
    if not match:
        raise JemallocError(
            f"{parameter}: {checksum!r} is not a SHA-256 digest; write it as sha256: and 64 hexadecimal digits."
        )
    return match.group(1).lower()
