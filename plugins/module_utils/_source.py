"""From an origin to an unpacked source: what to try, whether the bytes are right, and unpacking without trust."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import tarfile
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

#: The largest release so far is 0.9 MB packed and 7 MB unpacked in 660 members; these leave room for tenfold growth.
MAX_PACKED = 16 << 20
MAX_UNPACKED = 128 << 20
MAX_MEMBERS = 20_000


@dataclass(frozen=True)
class Candidate:
    """One place to try for a source: kind file, url or apt, and the digest its bytes must have."""

    kind: str
    location: str
    sha256: str
    commit: str = ""


@dataclass(frozen=True)
class Source:
    """A tarball whose bytes were verified, where it came from, and what was tried before it, each with its reason."""

    path: str
    sha256: str
    location: str
    commit: str
    failures: t.Tuple[str, ...]


#: Brings a candidate's bytes to a path, or raises JemallocError with the reason.
Fetch = t.Callable[[Candidate, str], None]


def candidates(
    release: catalogue.Release, origins: t.Sequence[str], archive_roots: t.Sequence[str]
) -> t.List[Candidate]:
    """Return the places to try, in order: the user's origins, upstream's asset, the host's distribution archive."""
    found = [_origin(origin, release) for origin in origins]
    found.append(Candidate("url", catalogue.UPSTREAM_URL.format(version=release.version), release.sha256))
    for packing in release.packings:
        for root in archive_roots:
            found.append(Candidate("apt", f"{root.rstrip('/')}/{packing.path}", packing.sha256, packing.commit))
    return found


def _origin(origin: str, release: catalogue.Release) -> Candidate:
    """Return what an origin of the user stands for: a file, a directory or the base of a mirror, or a template."""
    location = origin.replace("{version}", release.version)
    if location.startswith(("http://", "https://")):
        if location == origin and not location.endswith((".tar.bz2", ".tar.gz", ".tar.xz")):
            location = f"{location.rstrip('/')}/jemalloc-{release.version}.tar.bz2"
        return Candidate("url", location, release.sha256)
    path = location[len("file://") :] if location.startswith("file://") else location
    if not os.path.isabs(path):
        raise JemallocError(
            f"origins: {origin!r} is neither an absolute path on the host nor a file://, http:// or https:// URL."
        )
    if os.path.isdir(path):
        path = os.path.join(path, f"jemalloc-{release.version}.tar.bz2")
    return Candidate("file", path, release.sha256)


def parse_archive_roots(output: str) -> t.List[str]:
    """Return the pool directories of a distribution from lines of "URI COMPONENT" that apt printed.

    Security archives come last: they have no jemalloc, but asking them first would cost a round trip.
    """
    roots = {f"{uri.rstrip('/')}/pool/{component}" for uri, component in map(str.split, output.splitlines())}
    return sorted(roots, key=lambda root: ("security" in root, root))


def obtain(tried: t.Sequence[Candidate], directory: str, fetch: Fetch) -> Source:
    """Return the first candidate whose bytes have the pinned digest, fetched into directory."""
    failures: t.List[str] = []
    path = os.path.join(directory, "source.tar")
    for candidate in tried:
        files.remove_file(path)
        try:
            fetch(candidate, path)
            found = files.sha256(path)
            if found != candidate.sha256:
                raise JemallocError(f"SHA-256 is {found} where {candidate.sha256} was expected")
        except JemallocError as error:
            failures.append(f"{candidate.location}: {error}")
            continue
        return Source(path, found, candidate.location, candidate.commit, tuple(failures))
    raise JemallocError(
        f"No origin has the source of this release; tried {len(failures)}: {'; '.join(failures)}. "
        "Name a mirror or a local tarball in origins."
    )


def unpack(archive: str, directory: str) -> str:
    """Unpack a tarball below directory and return its one top directory.

    Only plain files and directories are taken, below one top directory, within the limits of this file: that is
    what every release consists of. The first other member ends it, before a byte of that member is written.
    """
    top = ""
    members = size = 0
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                members += 1
                size += max(member.size, 0)
                if members > MAX_MEMBERS or size > MAX_UNPACKED:
                    raise JemallocError(
                        f"it holds more than {MAX_MEMBERS} members or {MAX_UNPACKED >> 20} MiB, too much for a release"
                    )
                name = _safe_name(member)
                first = name.split("/")[0]
                top = top or first
                if first != top:
                    raise JemallocError(f"it has two top directories, {top!r} and {first!r}")
                _extract(tar, member, os.path.join(directory, name))
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise JemallocError(f"The source {archive} cannot be unpacked: {error}.") from error
    except JemallocError as error:
        raise JemallocError(f"The source {archive} is refused: {error}.") from error
    if not os.path.isdir(os.path.join(directory, top, "src")) or not top:
        raise JemallocError(f"The source {archive} is refused: it holds no jemalloc.")
    return os.path.join(directory, top)


def _safe_name(member: tarfile.TarInfo) -> str:
    """Return the normalised name of a member that may be unpacked."""
    name = os.path.normpath(member.name)
    if name.startswith("/") or name.split("/")[0] in ("..", ".") or "\0" in name:
        raise JemallocError(f"its member {member.name!r} leaves the top directory")
    if not member.isreg() and not member.isdir():
        raise JemallocError(f"its member {member.name!r} is neither a plain file nor a directory")
    if member.mode & 0o7000 and member.isreg():
        raise JemallocError(f"its member {member.name!r} has a set-user-ID, set-group-ID or sticky bit")
    return name


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    """Write one member; a name that is there already, as a file, is refused by O_EXCL."""
    if member.isdir():
        os.makedirs(path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    stream = tar.extractfile(member)
    if stream is None:
        raise JemallocError(f"its member {member.name!r} has no content")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o755 if member.mode & 0o100 else 0o644)
    with stream, os.fdopen(descriptor, "wb") as target:
        for block in iter(lambda: stream.read(1 << 20), b""):
            target.write(block)
    # make compares these times: without them it would want to regenerate what the tarball ships.
    os.utime(path, (member.mtime, member.mtime))
