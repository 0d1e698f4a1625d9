# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of a cache on a web server, which is read for what the controller's own cache lacks."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import hashlib
import os
import tempfile
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archive
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _source as source
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _cache as caching
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _download as downloading


def check(url: str, checksum: t.Optional[str]) -> str:
    """Return the address of a mirror without its last slash; what a bundle holds runs as root, so it must be trusted.

    That is by TLS, or by the digest of the mirror's index.
    """
    source.check_url(url, "cache_mirror")
    if not url.startswith(("http://", "https://")):
        raise JemallocError(f"cache_mirror: {url!r} is neither an http:// nor an https:// address.")
    if url.startswith("http://") and not checksum:
        raise JemallocError(
            f"cache_mirror: anybody on the way could change what {url} answers; use https://, or give the digest of "
            f"its {caching.INDEX} as cache_mirror_checksum."
        )
    return url.rstrip("/")


def find(
    url: str, checksum: t.Optional[str], need: caching.Need, cache: caching.Cache, progress: downloading.Progress
) -> None:
    """Bring a bundle that does from a mirror into the cache, if the mirror has one."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "file")
        try:
            downloading.download(f"{url}/{caching.INDEX}", path, caching.MOST_INDEX, progress)
            expected = catalogue.digest(checksum, "cache_mirror_checksum") if checksum else None
            if expected not in (None, files.sha256(path)):
                raise JemallocError(f"SHA-256 is {files.sha256(path)} where {expected} was expected")
            for entry in caching.parse_index(files.read_text(path) or ""):
                if caching.fits(entry, need):
                    downloading.download(f"{url}/bundles/{entry['sha256']}", path, archive.MAX_PACKED, progress)
                    with open(path, "rb") as stream:
                        data = stream.read()
                    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
                        raise JemallocError(f"its bundle {entry['sha256']} has another SHA-256")
                    cache.add(data, url, need, caching.MIRROR)
                    return
        except JemallocError as error:
            raise JemallocError(f"cache_mirror: {url}: {error}.") from error
