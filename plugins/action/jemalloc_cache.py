# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists the builds in the controller's cache and removes those of a host; all on the controller."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase

from ansible_collections.preload.jemalloc.plugins.module_utils import _arguments as shared
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _cache as caching
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _words as words

#: What jemalloc_cache of the modules documents.
ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    **shared.CACHE,
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "builder": {"type": "str"},
}


def manage(given: t.Mapping[str, t.Any], check: bool) -> t.Dict[str, t.Any]:
    """List the bundles of a builder, or of all, and remove them if they are to be absent; check mode only says so."""
    builder, absent = given["builder"] or "", given["state"] == "absent"
    if absent and not builder:
        raise JemallocError("builder: state: absent removes the bundles of one host; name that host as builder.")
    cache = caching.Cache(given["cache"], given["cache_size"], make=False)
    entries = cache.listing(builder)
    before = [line(entry) for entry in cache.listing()]
    if absent and entries and not check:
        caching.Cache(given["cache"], given["cache_size"]).remove(builder)
    lines = [line(entry) for entry in entries]
    whose = f" of {builder}" if builder else ""
    done = "removed from" if absent else "in"
    return {
        "changed": absent and bool(entries),
        "entries": [described(entry) for entry in entries],
        "lines": lines,
        "msg": f"{words.count(len(entries), 'bundle')}{whose} {done} {cache.directory}.",
        "diff": {"before": text(before), "after": text(each for each in before if not absent or each not in lines)},
    }


def described(entry: caching.Entry) -> t.Dict[str, t.Any]:
    """Return an entry as the module returns it."""
    keys = ("release", "builder", "origin", "added", "size", "sha256")
    return {"platform": platform.name(entry), **{key: entry[key] for key in keys}}


def line(entry: caching.Entry) -> str:
    """Return an entry for people."""
    when = f" at {entry['added']}" if entry["added"] else ""
    size = words.size(entry["size"]) if entry["size"] else "its file is missing"
    build = f"jemalloc {entry['release']} for {platform.name(entry)}"
    return f"{build}, {caching.made_by(entry)}{when}, {size}, SHA-256 {entry['sha256']}"


def text(lines: t.Iterable[str]) -> str:
    """Return lines as one text."""
    return "".join(f"{each}\n" for each in lines)


class ActionModule(ActionBase):
    """Runs once for all hosts of the play."""

    BYPASS_HOST_LOOP = True
    _requires_connection = False

    def run(self, tmp: None = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        """Run the action."""
        result = super().run(tmp, task_vars)
        _validation, given = self.validate_argument_spec(argument_spec=ARGUMENTS)
        try:
            return {**result, **manage(given, self._task.check_mode)}
        except JemallocError as error:
            return {**result, "failed": True, "msg": str(error)}
