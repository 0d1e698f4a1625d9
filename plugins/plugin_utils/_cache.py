# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's cache: sources and bundles by their digests, for all hosts, runs and controllers that share it."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundle
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _shapes as shapes
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _words as words

#: What lists the bundles of a cache, each with what its receipt says of the build. A mirror has it as well.
INDEX = "index.json"

_SOURCES, _BUNDLES, _LOCKS = "sources", "bundles", "locks"

_MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Need:
    """What a host lacks, as the module's return value missing says it."""

    version: str
    sources: t.Tuple[str, ...]
    options: t.Mapping[str, t.Any]
    here: platform.Here

    @property
    def platform(self) -> str:
        """The architecture and C library that a build has to be for, without the version: x86_64-glibc."""
        return f"{self.here.architecture}-{self.here.libc}"

    @property
    def key(self) -> str:
        """A name for all hosts that the same build could be good for."""
        whole = [self.version, self.sources, sorted(self.options.items()), self.platform, self.here.lg_page]
        return hashlib.sha256(json.dumps(whole).encode("utf-8")).hexdigest()[:16]

    @property
    def age(self) -> t.Tuple[int, ...]:
        """The version of the C library as numbers: what the oldest one builds runs on all."""
        return catalogue.version_number(self.here.libc_version) if self.here.libc_version else ()

    def __str__(self) -> str:
        return f"jemalloc {self.version} for {self.platform}"


def need_of(missing: t.Mapping[str, t.Any]) -> Need:
    """Return the need that a module reported."""
    try:
        here = platform.Here(
            str(missing["architecture"]),
            str(missing["libc"]),
            str(missing["libc_version"]),
            int(missing["lg_page"]),
        )
        version, sources = catalogue.check_number(missing["version"]), tuple(missing["sources"])
        return Need(version, sources, dict(missing["options"]), here)
    except (KeyError, TypeError, ValueError) as error:
        raise JemallocError(
            "missing: this is not what the module jemalloc returned as missing; leave it out, or hand that on as it is."
        ) from error


class Cache:
    """A directory of files that are named by their digests: sources/DIGEST, bundles/DIGEST, and the index of these.

    Whoever may write to it decides what runs on the hosts; so it is for its owner alone unless somebody opens it.
    """

    def __init__(self, directory: str, limit: int) -> None:
        """Open the cache; limit is in MiB."""
        self.directory = os.path.abspath(os.path.expanduser(directory))
        self._limit = limit * _MEBIBYTE
        try:
            for name in (_SOURCES, _BUNDLES, _LOCKS):
                os.makedirs(os.path.join(self.directory, name), mode=0o700, exist_ok=True)
        except OSError as error:
            raise JemallocError(words.of_controller(error, "cache", self.directory)) from error

    @contextlib.contextmanager
    def lock(self, name: str, owner: str = "", waiting: t.Optional[t.Callable[[str], None]] = None) -> t.Iterator[None]:
        """Be the only one that does something while the block runs; waiting is called with the owner that is at it.

        The kernel gives the lock back when its process ends, however it does.
        """
        path = os.path.join(self.directory, _LOCKS, name)
        with open(path, "a+", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting:
                    waiting(files.read_text(path) or "")
                fcntl.flock(stream, fcntl.LOCK_EX)
            stream.truncate(0)
            stream.write(owner)
            stream.flush()
            yield

    def path(self, kind: str, sha256: str) -> t.Optional[str]:
        """Return the path of a file (kind sources or bundles) that has its digest, None when there is none such."""
        path = self._place(kind, sha256)
        with contextlib.suppress(FileNotFoundError):
            if files.sha256(path) == sha256:
                with contextlib.suppress(PermissionError):  # somebody else's cache, which can be read only
                    os.utime(path)
                return path
            files.remove_file(path)  # a disk that failed; it is made anew
        return None

    def source(self, need: Need) -> t.Optional[t.Tuple[str, str]]:
        """Return the path and the digest of a source that does."""
        found = ((self.path(_SOURCES, sha256), sha256) for sha256 in need.sources)
        return next(((path, sha256) for path, sha256 in found if path), None)

    def add_source(self, path: str, sha256: str) -> str:
        """Take a verified file; return its path in the cache."""
        place = self._place(_SOURCES, sha256)
        with open(path, "rb") as stream:
            files.write_file(place, stream.read(), 0o644)
        self._prune()
        return place

    def entries(self) -> t.List[t.Dict[str, t.Any]]:
        """Return what the index lists."""
        return parse_index(files.read_text(os.path.join(self.directory, INDEX)) or "")

    def find(self, need: Need) -> t.Optional[t.Tuple[str, t.Dict[str, t.Any]]]:
        """Return the path of a bundle that does, and its entry."""
        for entry in self.entries():
            if fits(entry, need):
                path = self.path(_BUNDLES, entry["sha256"])
                if path:
                    return path, entry
        return None

    def add(self, data: bytes, receipt: t.Mapping[str, t.Any], builder: str, sha256: t.Optional[str] = None) -> None:
        """Take a bundle that a host made; a digest, where one is given, is what its bytes must have."""
        found = hashlib.sha256(data).hexdigest()
        if sha256 not in (None, found):
            raise JemallocError(f"SHA-256 is {found} where {sha256} was expected")
        entry = {
            "sha256": found,
            "builder": builder,
            **{key: receipt[key] for key in ("release", "source", "platform", "options")},
        }
        with self.lock("index"):
            files.write_file(self._place(_BUNDLES, entry["sha256"]), data, 0o644)
            others = [each for each in self.entries() if each["sha256"] != entry["sha256"]]
            self._write_index([entry, *others])
        self._prune()

    def _place(self, kind: str, sha256: str) -> str:
        """Return where a file belongs; only a digest ever becomes a part of a path."""
        if shapes.SHA256(sha256) is not None:
            raise JemallocError(f"cache: {kind} are named by their SHA-256 digests, and {str(sha256)[:80]!r} is none.")
        return os.path.join(self.directory, kind, sha256)

    def _write_index(self, entries: t.Sequence[t.Mapping[str, t.Any]]) -> None:
        text = json.dumps(list(entries), indent=2, sort_keys=True)
        files.write_file(os.path.join(self.directory, INDEX), f"{text}\n".encode())

    def _prune(self) -> None:
        """Remove what was not used for the longest time, until the rest is within the limit."""
        with self.lock("index"):
            found = []
            for kind in (_SOURCES, _BUNDLES):
                for each in os.scandir(os.path.join(self.directory, kind)):
                    if not each.name.startswith("."):  # another process is writing it
                        found.append((each.stat().st_mtime, each.stat().st_size, each.path))
            total = sum(size for _time, size, _path in found)
            for _time, size, path in sorted(found)[:-1]:  # the newest one is what this run came for
                if total <= self._limit:
                    break
                files.remove_file(path)
                total -= size
            there = set(os.listdir(os.path.join(self.directory, _BUNDLES)))
            listed = self.entries()
            kept = [entry for entry in listed if entry["sha256"] in there]
            if kept != listed:
                self._write_index(kept)


def parse_index(text: str) -> t.List[t.Dict[str, t.Any]]:
    """Return the entries of an index; what is no index counts as an empty one: then a build is made anew."""
    try:
        entries = json.loads(text or "[]")
        return [
            entry
            for entry in entries
            if len(bytes.fromhex(entry["sha256"])) == hashlib.sha256().digest_size and entry["builder"] is not None
        ]
    except (ValueError, TypeError, KeyError):
        return []


def fits(entry: t.Mapping[str, t.Any], need: Need) -> bool:
    """Whether a bundle of an index does."""
    release = catalogue.Release(need.version, "")
    try:
        return not bundle.misfit(entry, release, need.options, need.here) and entry["source"]["sha256"] in need.sources
    except (KeyError, TypeError, ValueError):
        return False
