# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The newest release that upstream has published, looked up on the controller once a run."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import fcntl
import json
import os
import typing as t

from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _source as source
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _download as downloading

#: Seconds without a byte after which upstream is given up.
TIMEOUT = 20


def with_latest(arguments: t.Dict[str, t.Any], cache: str) -> t.Dict[str, t.Any]:
    """Return the arguments with the newest release in place of the wish for it."""
    if not boolean(arguments.get("latest") or False, strict=False):
        return arguments
    if arguments.get("version") or arguments.get("checksum"):
        raise JemallocError("latest: it excludes version and checksum; leave out the one or the other.")
    release = look_up(str(arguments.get("latest_url") or catalogue.LATEST_URL), cache)
    found = {**arguments, "latest": False, "version": release.version}
    if release.version not in catalogue.RELEASES:
        found["checksum"] = f"sha256:{release.sha256}"
    return found


def look_up(url: str, cache: str) -> catalogue.Release:
    """Return upstream's newest release; the answer is kept in a directory that all forks of a run share.

    Without that a fleet would use up at once what upstream grants to an address in an hour.
    """
    source.check_url(url, "latest_url")
    path = os.path.join(cache, "preload-jemalloc-latest.json")
    with open(path, "a+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        kept = json.loads(stream.read() or "{}")
        if url not in kept:
            kept[url] = ask(url)
            stream.truncate(0)
            json.dump(kept, stream)
    return release_of(kept[url], url)


def ask(url: str) -> t.Any:
    """Return what a releases API answers."""
    try:
        requests = downloading.library()
    except JemallocError as error:
        raise JemallocError(f"latest: {error}.") from None
    try:
        response = requests.get(url, timeout=TIMEOUT, headers={"Accept": "application/vnd.github+json"})
        response.raise_for_status()
        return response.json()
    except requests.RequestException as error:
        raise JemallocError(f"latest: {url} cannot be asked ({error}); name a version instead.") from error


def release_of(answer: t.Any, url: str) -> catalogue.Release:
    """Return the release of an answer; one that the catalogue knows has to have the pinned digest."""
    try:
        version = catalogue.check_number(str(answer["tag_name"]))
        assets = {asset["name"]: asset.get("digest") for asset in answer["assets"]}
        digest = catalogue.digest(str(assets[f"jemalloc-{version}.tar.bz2"]), "latest")
    except (KeyError, TypeError, AttributeError, JemallocError) as error:
        raise JemallocError(
            f"latest: what {url} answers names no release with the digest of its .tar.bz2; name a version instead."
        ) from error
    known = catalogue.RELEASES.get(version)
    if known and known.sha256 != digest:
        raise JemallocError(
            f"latest: {url} reports the digest {digest} for jemalloc {version}, where {known.sha256} is known to be "
            "right; do not trust that address."
        )
    return known or catalogue.Release(version, digest)
