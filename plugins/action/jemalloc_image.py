# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of the module: a library for an image comes from the cache, and what is built goes there."""

from __future__ import annotations

import typing as t

from ansible_collections.preload.jemalloc.plugins.action import jemalloc as action
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _cache as caching


class ActionModule(action.ActionModule):
    """Asks the host what the image lacks, as for an installation on the host itself."""

    NAME = PACKER = "jemalloc_image"

    def _push(self, found: t.Tuple[str, caching.Entry], look: t.Optional[action.Result]) -> action.Result:
        """Bring a bundle to the host, in check mode as well: what it would come to depends on it."""
        path, entry = found
        if not self._task.check_mode:
            self._say(f"taking jemalloc {entry['release']}, {caching.made_by(entry)}")
        done = self._taken(path, entry)
        return {**done, "builder": self._builder if done.get("built") else entry["builder"]}

    def _packed(self, need: caching.Need, done: action.Result) -> t.Optional[action.Result]:
        """Return the bundle that the module brings along; none when another run made the image meanwhile."""
        return {key: done.pop(key) for key in ("content", "receipt")} if "content" in done else None
