# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's cache: sources and bundles by their digests, for all hosts, runs and controllers that share it.

An entry of the index says who made a bundle. A host takes the bundles of builders that it trusts, the oldest first.
"""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundle
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platforms
from ansible_collections.preload.jemalloc.plugins.module_utils import _shapes as shapes
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _private as private
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _words as words

#: The list of the bundles of a cache, each with its builder and its platform. A mirror has it as well.
INDEX = "index.json"

#: Where a bundle comes from: its builder is a host of the inventory, or the address of a mirror.
HOST, MIRROR = "host", "mirror"

#: Bundles that need no trust in any host, by their digests.
PINNED: t.FrozenSet[str] = frozenset()

Entry = t.Dict[str, t.Any]

#: Bytes of an index, enough for 5,000 bundles.
MOST_INDEX = 4 << 20

_ENTRY: t.Dict[str, shapes.Shape] = {
    "sha256": shapes.SHA256,
    "builder": shapes.printable(2048),
    "origin": shapes.text(f"{HOST}|{MIRROR}"),
    "added": shapes.printable(40),
    **bundle.DESCRIPTION,
}

_SOURCES, _BUNDLES, _LOCKS = "sources", "bundles", "locks"

_MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Need:
    """What a host lacks, as the module's return value missing says it."""

    version: str
    sources: t.Tuple[str, ...]
    options: t.Mapping[str, t.Any]
    here: platforms.Here

    @property
    def platform(self) -> str:
        """The architecture and C library that a build has to be for, without the version: x86_64-glibc."""
        return f"{self.here.architecture}-{self.here.libc}"

    @property
    def key(self) -> str:
        """A name for all hosts that the same build could be good for."""
        whole = [self.version, self.sources, sorted(self.options.items()), self.platform, self.here.lg_page]
        return hashlib.sha256(json.dumps(whole).encode("utf-8")).hexdigest()[:16]

    def lock(self, builder: str) -> str:
        """Return the name of the lock that a builder holds."""
        return f"{self.key}-{hashlib.sha256(builder.encode('utf-8')).hexdigest()[:16]}"

    @property
    def age(self) -> t.Tuple[int, ...]:
        """The version of the C library as numbers: a build runs with all later ones."""
        return catalogue.version_number(self.here.libc_version) if self.here.libc_version else ()

    def __str__(self) -> str:
        return f"jemalloc {self.version} for {self.platform}"


class Cache:
    """A directory of files that are named by their digests: sources/DIGEST, bundles/DIGEST, and the index of these.

    Whoever may write to it decides what runs on the hosts; so nobody but its owner may.
    """

    def __init__(self, directory: str, limit: int, make: bool = True) -> None:
        """Open the cache, and make it where it does not exist; limit is in MiB."""
        self.directory = os.path.abspath(os.path.expanduser(directory))
        self._limit = limit * _MEBIBYTE
        places = [self.directory, *(os.path.join(self.directory, name) for name in (_SOURCES, _BUNDLES, _LOCKS))]
        with words.about("cache", self.directory):
            if make and not (os.path.isdir(self.directory) and not os.access(self.directory, os.W_OK)):
                for place in places:
                    private.make(place)
            for place in filter(os.path.exists, places):
                private.check(place, "cache")

    @contextlib.contextmanager
    def lock(self, name: str, owner: str = "", waiting: t.Optional[t.Callable[[str], None]] = None) -> t.Iterator[None]:
        """Be the only one that does something while the block runs; waiting is called with the owner that is at it.

        The kernel gives the lock back when its process ends, however it does.
        """
        with self._opened(name) as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting:
                    waiting(stream.read())
                fcntl.flock(stream, fcntl.LOCK_EX)
            stream.truncate(0)
            stream.write(owner)
            stream.flush()
            yield

    def wait(self, name: str, waiting: t.Callable[[str], None]) -> bool:
        """Wait while another process has a lock, after a call of waiting with its owner; return whether one had it."""
        with self._opened(name) as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting(stream.read())
                fcntl.flock(stream, fcntl.LOCK_SH)
                return True
        return False

    @contextlib.contextmanager
    def _opened(self, name: str) -> t.Iterator[t.TextIO]:
        """Open the file of a lock."""
        path = os.path.join(self.directory, _LOCKS, name)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with words.about("cache", path):
            descriptor = os.open(path, flags, 0o600)
        with open(descriptor, "r+", encoding="utf-8") as stream:
            yield stream

    def path(self, kind: str, sha256: str) -> t.Optional[str]:
        """Return the path of a file (kind sources or bundles) that has its digest, None when there is none such."""
        path = self._place(kind, sha256)
        with contextlib.suppress(FileNotFoundError, PermissionError):  # root's own cache can be read only
            if files.sha256(path) == sha256:
                with contextlib.suppress(PermissionError):
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
        with open(path, "rb") as stream, words.about("cache", self.directory):
            files.write_file(place, stream.read(), 0o644)
        self._prune()
        return place

    def entries(self) -> t.List[Entry]:
        """Return the entries of the index, the oldest first."""
        return parse_index(files.read_text(os.path.join(self.directory, INDEX)) or "")

    def find(
        self, need: Need, trusted: t.Container[str], pinned: t.Container[str] = PINNED
    ) -> t.Optional[t.Tuple[str, Entry]]:
        """Return path and entry of the oldest bundle that fits and has a trusted builder or a pinned digest."""
        for entry in self.entries():
            if (entry["sha256"] in pinned or is_trusted(entry, trusted)) and fits(entry, need):
                path = self.path(_BUNDLES, entry["sha256"])
                if path:
                    return path, entry
        return None

    def add(self, data: bytes, builder: str, need: t.Optional[Need] = None, origin: str = HOST) -> None:
        """Take a bundle after all others; the manifest in its bytes has to be that of the need it was made for."""
        manifest = bundle.read_manifest(data)
        reason = mismatch(manifest, need, builder) if need else ""
        if need and reason:
            raise JemallocError(
                f"cache: the bundle from {builder} is refused: {reason}. No other host gets it. Remove jemalloc "
                f"{need.version} from {builder}, and run it again."
            )
        described = {key: manifest[key] for key in bundle.DESCRIPTION}
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "builder": builder, "origin": origin, **described}
        with self.lock("index"), words.about("cache", self.directory):
            files.write_file(self._place(_BUNDLES, entry["sha256"]), data, 0o644)
            known = self.entries()
            if not any(entry.items() <= each.items() for each in known):
                now = datetime.datetime.now(datetime.timezone.utc)
                self._write_index([*known, {**entry, "added": now.strftime("%Y-%m-%dT%H:%M:%SZ")}])
        self._prune()

    def listing(self, builder: str = "") -> t.List[Entry]:
        """Return the entries of a builder, or of all, each with the size of its bundle in bytes."""
        found = [entry for entry in self.entries() if builder in ("", entry["builder"])]
        return [{**entry, "size": self._size(entry["sha256"])} for entry in found]

    def remove(self, builder: str) -> None:
        """Remove the entries of a builder, and the bundles that no other builder has made."""
        with self.lock("index"), words.about("cache", self.directory):
            known = self.entries()
            kept = [entry for entry in known if entry["builder"] != builder]
            self._write_index(kept)
            for sha256 in {entry["sha256"] for entry in known} - {entry["sha256"] for entry in kept}:
                files.remove_file(self._place(_BUNDLES, sha256))

    def _size(self, sha256: str) -> int:
        """Return the bytes of a bundle, 0 where it is missing."""
        try:
            return os.stat(self._place(_BUNDLES, sha256)).st_size
        except FileNotFoundError:
            return 0

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


def parse_index(text: str) -> t.List[Entry]:
    """Return the entries of an index; anything else in it is left out, and such a build is made anew."""
    try:
        found = shapes.parse_json(text or "[]")
    except ValueError:
        return []
    listed = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    entries = [{"origin": HOST, "added": "", **each} for each in listed]
    known = [{name: entry[name] for name in _ENTRY if name in entry} for entry in entries]
    return [entry for entry in known if shapes.record(_ENTRY)(entry) is None]


def is_trusted(entry: Entry, trusted: t.Container[str]) -> bool:
    """Whether a builder is trusted; a mirror was, by TLS or by the digest of its index, when the bundle was taken."""
    return entry["origin"] == MIRROR or entry["builder"] in trusted


def made_by(entry: Entry) -> str:
    """Return who made a bundle."""
    return f"{'from the mirror' if entry['origin'] == MIRROR else 'built on'} {entry['builder']}"


def mismatch(manifest: t.Mapping[str, t.Any], need: Need, where: str = "the host") -> str:
    """Return why a bundle is not what is needed, empty when it is."""
    reason = bundle.misfit(manifest, catalogue.Release(need.version, ""), need.options, need.here, where)
    if not reason and manifest["source"]["sha256"] not in need.sources:
        return "it was built from another source"
    return reason


def fits(entry: Entry, need: Need) -> bool:
    """Whether a bundle of an index does."""
    return not mismatch(entry, need)
