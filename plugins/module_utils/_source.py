"""From origins to a source: what to try in which order, and whether the bytes are right."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass
from urllib.parse import urlsplit

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, shown


@dataclass(frozen=True)
class Candidate:
    """One place to try for a source: kind file, url or apt, and the digest its bytes must have.

    origin is where the bytes come from in the end, where the controller brought them to the place.
    """

    kind: str
    location: str
    sha256: str
    commit: str = ""
    origin: str = ""

    def __str__(self) -> str:
        return shown(self.origin or self.location)


@dataclass(frozen=True)
class Source:
    """A tarball whose bytes were verified, where it came from, and what was tried before it, each with its reason."""

    path: str
    sha256: str
    location: str
    commit: str
    failures: t.Tuple[str, ...]


# What to do when nothing was found.
_REMEDIES = {
    "source": "Name a mirror or a local tarball in origins.",
    "bundle": "Name another bundle, or build it here by method: source.",
}

#: Asks apt for its archives; parse_archive_roots() reads what it prints.
ARCHIVES = (
    *("apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI) $(COMPONENT)"),
    "Created-By: Packages",
)

#: Brings a candidate's bytes to a path, or raises JemallocError with the reason.
Fetch = t.Callable[[Candidate, str], None]


def candidates(
    release: catalogue.Release, origins: t.Sequence[str], archive_roots: t.Callable[[], t.Sequence[str]]
) -> t.Iterator[Candidate]:
    """Yield the places to try, in order: the user's origins, upstream's asset, the host's distribution archive.

    Only when it comes to the archive is the host asked where that is: apt takes its time.
    """
    yield from [_origin(origin, release) for origin in origins]
    yield Candidate("url", catalogue.UPSTREAM_URL.format(version=release.version), release.sha256)
    roots = archive_roots() if release.packings else ()
    for packing in release.packings:
        for root in roots:
            yield Candidate("apt", f"{root.rstrip('/')}/{packing.path}", packing.sha256, packing.commit)


def _origin(origin: str, release: catalogue.Release) -> Candidate:
    """Return what an origin of the user stands for."""
    return place(origin, "origins", release.version, f"jemalloc-{release.version}.tar.bz2", release.sha256)


def place(named: str, parameter: str, version: str, file_name: str, sha256: str) -> Candidate:
    """Return what a parameter's value stands for: a file or URL, a directory or a mirror that holds file_name."""
    location = named.replace("{version}", version)
    if "\0" in location or "\n" in location:
        raise JemallocError(f"{parameter}: {named!r} holds a line break or a NUL; name a path or a URL.")
    check_url(location, parameter)
    if location.startswith(("http://", "https://")):
        if location == named and not location.endswith((".tar.bz2", ".tar.gz", ".tar.xz")):
            location = f"{location.rstrip('/')}/{file_name}"
        return Candidate("url", location, sha256)
    path = location[len("file://") :] if location.startswith("file://") else location
    if not os.path.isabs(path):
        raise JemallocError(
            f"{parameter}: {named!r} is neither an absolute path on the host nor a file://, http:// or https:// URL."
        )
    return Candidate("file", os.path.join(path, file_name) if os.path.isdir(path) else path, sha256)


def check_url(location: str, parameter: str) -> None:
    """Refuse a URL that carries a password: it would end up in messages, receipts and logs."""
    try:
        password = location.startswith(("http://", "https://")) and "@" in urlsplit(location).netloc
    except ValueError as error:
        raise JemallocError(f"{parameter}: {location!r} is not a URL ({error}).") from error
    if password:
        raise JemallocError(
            f"{parameter}: a URL holds a user name or password, which would end up in logs; use a mirror that asks for "
            "none, or bring the file to the host."
        )


def parse_archive_roots(output: str) -> t.List[str]:
    """Return the pool directories of a distribution from lines of "URI COMPONENT" that apt printed.

    Security archives come last: they have no jemalloc, but asking them first would cost a round trip.
    """
    lines = [line.split() for line in output.splitlines()]
    roots = {f"{words[0].rstrip('/')}/pool/{words[1]}" for words in lines if len(words) == 2}
    return sorted(roots, key=lambda root: ("security" in root, root))


def obtain(tried: t.Iterable[Candidate], directory: str, fetch: Fetch, what: str = "source") -> Source:
    """Return the first candidate whose bytes have the pinned digest, fetched into directory."""
    failures: t.List[str] = []
    path = os.path.join(directory, f"{what}.tar")
    for candidate in tried:
        files.remove_file(path)
        try:
            fetch(candidate, path)
            found = files.sha256(path)
            if found != candidate.sha256:
                raise JemallocError(f"SHA-256 is {found} where {candidate.sha256} was expected")
        except JemallocError as error:
            failures.append(f"{candidate}: {error}")
            continue
        return Source(path, found, str(candidate), candidate.commit, tuple(failures))
    raise JemallocError(
        f"No origin has the {what} of this release; tried {len(failures)}: {'; '.join(failures)}. {_REMEDIES[what]}"
    )
