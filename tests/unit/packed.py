# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles of builds that never were, with the manifest that a test asks for."""

from __future__ import annotations

import base64
import hashlib
import json
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archive
from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundles
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platforms
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _cache as caching

OPTIONS: dict[str, t.Any] = {"cxx": False, "prof": False, "lg_page": None}
SOURCE = catalogue.RELEASES["5.3.1"].sha256


def need(
    version: str = "5.3.1",
    sources: t.Sequence[str] = (SOURCE,),
    options: t.Optional[t.Mapping[str, t.Any]] = None,
    **here: t.Any,
) -> caching.Need:
    """Return the need of a host."""
    whole = {"architecture": "x86_64", "libc": "glibc", "libc_version": "2.36", "lg_page": 12, **here}
    return caching.Need(version, tuple(sources), OPTIONS if options is None else options, platforms.Here(**whole))


def platform(**more: t.Any) -> dict[str, t.Any]:
    """Return the platform of a build."""
    return {"architecture": "x86_64", "libc": "glibc", "libc_lowest": "2.34", "lg_page": 12, **more}


def manifest(library: bytes = b"library", **more: t.Any) -> dict[str, t.Any]:
    """Return the manifest of a bundle."""
    digest = hashlib.sha256(library).hexdigest()
    whole = {
        "format": 1,
        "release": "5.3.1",
        "library": "libjemalloc.so.2",
        "library_sha256": digest,
        "source": {"sha256": SOURCE},
        "platform": platform(),
        "options": OPTIONS,
        "configure": [],
        "files": {"lib/libjemalloc.so.2": digest},
        **more,
    }
    return {"home": f"/opt/jemalloc/{whole['release']}", **whole}


def bundle(library: bytes = b"library", **more: t.Any) -> bytes:
    """Return the bundle of a library, with these fields of its manifest."""
    made = manifest(library, **more)
    top = f"jemalloc-{made['release']}"
    return archive.pack(
        {
            f"{top}/receipt.json": (json.dumps(made).encode("ascii"), False),
            f"{top}/lib/libjemalloc.so.2": (library, False),
        }
    )


def answer(data: bytes) -> dict[str, t.Any]:
    """Return what the module jemalloc_bundle answers with a bundle."""
    made = bundles.read_manifest(data)
    return {
        "changed": False,
        "version": made["release"],
        "platform": platforms.name(made),
        "receipt": bundles.portable(made),
        "sha256": hashlib.sha256(data).hexdigest(),
        "content": base64.b64encode(data).decode("ascii"),
    }


def missing(**more: t.Any) -> dict[str, t.Any]:
    """Return what the module jemalloc answers as missing."""
    release = catalogue.RELEASES["5.3.1"]
    return {
        "version": release.version,
        "checksum": None,
        "sources": [release.sha256, *(packing.sha256 for packing in release.packings)],
        "options": OPTIONS,
        "architecture": "x86_64",
        "libc": "glibc",
        "libc_version": "2.36",
        "lg_page": 12,
        **more,
    }
