# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archives of the controller's own distribution, where it has apt: what hosts say of theirs is never downloaded."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import subprocess
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _source as source

#: Seconds that apt may take; it reads its configuration only.
TIMEOUT = 30


def archive_roots() -> t.List[str]:
    """Return the pools of the controller's distribution that can be downloaded without a password."""
    try:
        done = subprocess.run(
            source.ARCHIVES,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
        )
        roots = source.parse_archive_roots(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):  # the last: apt printed something else
        return []
    return [root for root in roots if root.startswith(("http://", "https://")) and "@" not in root]
