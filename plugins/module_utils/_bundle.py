"""Bundles: one build packed for many hosts. What is in one, whether it fits a host, and where it is then at home."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import dataclasses
import json
import os
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archive
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _shapes as shapes
from ansible_collections.preload.jemalloc.plugins.module_utils import _source as source
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

#: The list of digests that stands beside bundles, as sha256sum writes it.
SUMS = "SHA256SUMS"

# Characters of a manifest; those of releases have 3,000.
_MOST_MANIFEST = 1 << 18

# What a manifest says of the build itself: the same for every build from the same input. When, where from and into
# which store an installation came is no part of it, so that a bundle built twice has the same bytes.
_PORTABLE: t.Dict[str, shapes.Shape] = {
    "format": shapes.number(1, 1),
    "release": shapes.VERSION,
    "library": shapes.text(r"libjemalloc\.so(?:\.[0-9]{1,3})*"),
    "library_sha256": shapes.SHA256,
    "source": shapes.record({"sha256": shapes.SHA256}),
    "platform": shapes.record(
        {
            "architecture": shapes.ARCHITECTURE,
            "libc": shapes.LIBC,
            "libc_lowest": shapes.LIBC_VERSION,
            "lg_page": shapes.LG_PAGE,
        }
    ),
    "options": shapes.OPTIONS,
    "configure": shapes.list_of(shapes.printable(2000), 100),
    "home": shapes.HOME,
}
#: The part of them that tells which host a bundle is for.
DESCRIPTION = {name: _PORTABLE[name] for name in ("release", "source", "platform", "options")}

_MANIFEST = {**_PORTABLE, "files": shapes.mapping_of(shapes.INSIDE, shapes.SHA256, 1000)}


def file_name(version: str) -> str:
    """Return the name of a release's bundle."""
    return f"jemalloc-{version}.tar.gz"


def portable(receipt: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """Return what a receipt says of the build itself."""
    return {key: receipt[key] for key in _PORTABLE}


def pack(directory: str, receipt: t.Mapping[str, t.Any]) -> bytes:
    """Return the bundle of an installation with this receipt; links and wrapper are made where it is unpacked."""
    whole = portable(receipt)
    whole["files"] = {name: value for name, value in receipt["files"].items() if not value.startswith("->")}
    members = {store.RECEIPT: (_json(whole), False)}
    for name in whole["files"]:
        path = os.path.join(directory, name)
        with open(path, "rb") as stream:
            members[name] = stream.read(), os.access(path, os.X_OK)
    top = f"jemalloc-{receipt['release']}"
    return archive.pack({f"{top}/{name}": member for name, member in members.items()})


def _json(value: t.Mapping[str, t.Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode("utf-8")


def parse_manifest(text: str) -> t.Dict[str, t.Any]:
    """Return a bundle's manifest, checked to the last field; JemallocError says which field is wrong.

    Further names at the top are dropped, so that a later version of this collection can add them.
    """
    if len(text) > _MOST_MANIFEST:
        raise JemallocError(f"its {store.RECEIPT} is larger than {_MOST_MANIFEST >> 10} KiB")
    try:
        whole = shapes.parse_json(text)
    except ValueError as error:
        raise JemallocError(f"its {store.RECEIPT} is no JSON") from error
    found = {key: whole[key] for key in _MANIFEST if key in whole} if isinstance(whole, dict) else {}
    flaw = shapes.record(_MANIFEST)(found)
    if flaw is None and found["files"].get(f"lib/{found['library']}") != found["library_sha256"]:
        flaw = ".library_sha256"
    if flaw is None and os.path.basename(found["home"]) != found["release"]:
        flaw = ".home"
    if flaw is not None:
        raise JemallocError(f"its {store.RECEIPT} is no manifest of this collection: {flaw[1:]} is wrong or missing")
    return found


def read_manifest(data: bytes) -> t.Dict[str, t.Any]:
    """Return the manifest in the bytes of a bundle, without unpacking it; JemallocError says why there is none."""
    try:
        text = archive.read_file(data, store.RECEIPT, _MOST_MANIFEST).decode("utf-8")
        return parse_manifest(text)
    except UnicodeDecodeError as error:
        raise JemallocError(f"The bundle is refused: its {store.RECEIPT} is not in UTF-8.") from error
    except JemallocError as error:
        raise JemallocError(f"The bundle is refused: {error}.") from error


def unpack(path: str, directory: str) -> t.Tuple[str, t.Dict[str, t.Any]]:
    """Unpack a bundle below directory; return its tree, without the manifest in it, and that manifest."""
    tree = archive.unpack(path, directory, store.RECEIPT)
    place = os.path.join(tree, store.RECEIPT)
    try:
        if not os.path.isfile(place) or os.path.getsize(place) > _MOST_MANIFEST:
            raise JemallocError(f"its {store.RECEIPT} is no file of at most {_MOST_MANIFEST >> 10} KiB")
        manifest = parse_manifest(files.read_text(place) or "")
        files.remove_file(place)
        if store.fingerprint(tree) != manifest["files"]:
            raise JemallocError(f"it does not hold what its {store.RECEIPT} lists")
    except JemallocError as error:
        raise JemallocError(f"The archive {path} is refused: {error}.") from error
    return tree, manifest


def misfit(
    receipt: t.Mapping[str, t.Any],
    release: catalogue.Release,
    options: t.Mapping[str, t.Any],
    here: platform.Here,
    where: str = "this host",
) -> str:
    """Return why a bundle does not do on this host, or where it is said to be, empty when it does."""
    made_for = receipt["platform"]
    lowest = made_for["libc_lowest"]
    if receipt["release"] != release.version:
        return f"it holds jemalloc {receipt['release']}, not {release.version}"
    if (made_for["architecture"], made_for["libc"]) != (here.architecture, here.libc):
        return (
            f"it is for {made_for['architecture']} with {made_for['libc']}, "
            f"{where} is {here.architecture} with {here.libc}"
        )
    if lowest and catalogue.version_number(lowest) > catalogue.version_number(here.libc_version or "0"):
        return f"it needs {made_for['libc']} {lowest}, {where} has {here.libc_version}"
    if made_for["lg_page"] < here.lg_page:
        return f"it is for pages of {1 << made_for['lg_page']} bytes, {where} uses {1 << here.lg_page}"
    if receipt["options"] != options:
        return "it was built with other options"
    return ""


def settle(tree: str, receipt: t.Mapping[str, t.Any], home: str) -> None:
    """Let the scripts of an unpacked bundle name the directory that it is going to stand in."""
    for name in receipt["files"]:
        if name.startswith("bin/"):
            path = os.path.join(tree, name)
            with open(path, "rb") as stream:
                data = stream.read()
            with open(path, "wb") as stream:
                stream.write(data.replace(os.fsencode(receipt["home"]), os.fsencode(home)))


def find(named: str, version: str, checksum: t.Optional[str]) -> source.Candidate:
    """Return the place of a release's bundle, and its digest: the one given, or of the list beside a local file."""
    given = catalogue.digest(checksum, "bundle_checksum") if checksum else ""
    place = source.place(named, "bundle", version, file_name(version), given)
    if given:
        return place
    sums = os.path.join(os.path.dirname(place.location), SUMS)
    digest = ""
    if place.kind == "file":
        digest = listed_digest(files.read_text(sums) or "", os.path.basename(place.location))
    if not digest:
        raise JemallocError(
            f"bundle: nothing says what the digest of {place.location} has to be; give bundle_checksum: sha256:..."
            + (f", or list it in {sums}." if place.kind == "file" else ".")
        )
    return dataclasses.replace(place, sha256=digest)


def listed_digest(sums: str, name: str) -> str:
    """Return what a list of digests says of a file, or nothing."""
    for line in sums.splitlines():
        digest, _space, listed = line.partition(" ")
        if listed.lstrip(" *") == name:
            return digest.lower()
    return ""
