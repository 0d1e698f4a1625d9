# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles without a build: right to the last field of their manifest, unless a test asks for another one."""

from __future__ import annotations

import base64
import hashlib
import json
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archive
from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundle
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform

LIBRARY = b"library"
OPTIONS: t.Dict[str, t.Any] = {"cxx": False, "prof": False, "lg_page": None}
MADE_FOR: t.Dict[str, t.Any] = {"architecture": "x86_64", "libc": "glibc", "libc_lowest": "2.34", "lg_page": 12}


def manifest(release: str = "5.3.1", **changes: t.Any) -> t.Dict[str, t.Any]:
    """Return the manifest of a bundle."""
    digest = hashlib.sha256(LIBRARY).hexdigest()
    return {
        "format": 1,
        "release": release,
        "library": "libjemalloc.so.2",
        "library_sha256": digest,
        "source": {"sha256": catalogue.RELEASES[release].sha256},
        "platform": MADE_FOR,
        "options": OPTIONS,
        "configure": ["--prefix=/opt/jemalloc"],
        "home": f"/opt/jemalloc/{release}",
        "files": {"lib/libjemalloc.so.2": digest},
        **changes,
    }


def packed(release: str = "5.3.1", **changes: t.Any) -> bytes:
    """Return the bytes of a bundle."""
    text = json.dumps(manifest(release, **changes)).encode("utf-8")
    top = f"jemalloc-{release}"
    return archive.pack({f"{top}/receipt.json": (text, False), f"{top}/lib/libjemalloc.so.2": (LIBRARY, False)})


def answer(release: str = "5.3.1", **changes: t.Any) -> t.Dict[str, t.Any]:
    """Return what the module jemalloc_bundle answers on a host that has such an installation."""
    data, whole = packed(release, **changes), manifest(release, **changes)
    return {
        "changed": False,
        "version": release,
        "platform": platform.name(whole),
        "receipt": bundle.portable(whole),
        "sha256": hashlib.sha256(data).hexdigest(),
        "content": base64.b64encode(data).decode("ascii"),
    }


def missing(release: str = "5.3.1", **changes: t.Any) -> t.Dict[str, t.Any]:
    """Return what the module jemalloc answers as missing."""
    known = catalogue.RELEASES[release]
    return {
        "version": release,
        "checksum": None,
        "sources": [known.sha256, *(packing.sha256 for packing in known.packings)],
        "options": OPTIONS,
        "architecture": "x86_64",
        "libc": "glibc",
        "libc_version": "2.36",
        "lg_page": 12,
        **changes,
    }
