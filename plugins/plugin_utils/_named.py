# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remember which services the tasks of a run name for a host, to warn when a later task takes one of them away."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import hashlib
import os
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files


def warnings(directory: str, host: str, scopes: t.Mapping[str, t.Any]) -> t.List[str]:
    """Remember the services that scopes name; return a warning when they take away what an earlier task named.

    scopes is what jemalloc_preload returned for the host. The directory is one that all forks of a run share.
    """
    path = os.path.join(directory, f"preload-jemalloc-named-{hashlib.sha256(host.encode()).hexdigest()}")
    earlier = (files.read_text(path) or "").split()
    with open(path, "a", encoding="utf-8") as stream:
        stream.writelines(f"{name}\n" for name in scopes.get("named", []))
    lost = sorted({*scopes.get("removed", [])}.intersection(earlier))
    if not lost:
        return []
    return [
        f"{', '.join(lost)}: an earlier task of this run named it for jemalloc, and this task takes it away: its list "
        "is the whole truth for the host. Set jemalloc_purge: false (purge: false of jemalloc_preload) where each "
        "task is to add its own services, or name all services in one list."
    ]
