# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps what jemalloc_info found on all hosts of a play, and writes the report of the fleet; all on the controller."""

from __future__ import annotations

import os
import typing as t

from ansible.plugins.action import ActionBase

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _measurements as measurements
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _page as paging
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _registered as registered
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _report as reporting
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _tables as tables
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _words as words

#: What jemalloc_report of the modules documents.
ARGUMENTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "variable": {"type": "str", "required": True},
    "database": {"type": "path", "default": "~/.cache/preload.jemalloc/measurements.sqlite"},
    "directory": {"type": "path"},
    "keep": {"type": "int", "default": 300},
    "keep_days": {"type": "int", "default": 400},
    "min_uptime": {"type": "int", "default": 600},
}

#: The files of a report, and what makes each.
FILES: t.Dict[str, t.Callable[[t.Sequence[reporting.Host]], str]] = {
    "report.html": paging.page,
    "report.json": tables.as_json,
    "report.csv": tables.as_csv,
}

#: Hosts that a warning names.
_NAMED = 5


def report(results: t.Mapping[str, t.Any], given: t.Mapping[str, t.Any], check: bool) -> t.Dict[str, t.Any]:
    """Keep the measurements and write the files; in check mode say what that would be."""
    for key in ("keep", "keep_days", "min_uptime"):
        if given[key] < 1:
            raise JemallocError(f"{key}: {given[key]} is too small; give at least 1.")
    hosts = [reporting.read(name, result) for name, result in results.items()]
    with measurements.opened(given["database"], check) as database:
        added = measurements.add(database, reporting.points(hosts))
        measurements.prune(database, reporting.newest(hosts) - given["keep_days"] * 86400, given["keep"])
        known = measurements.histories(database, results) if given["directory"] else {}
    result = {"changed": added > 0, "added": added, "unread": [host.name for host in hosts if host.unread]}
    if not given["directory"]:
        return {**result, "files": [], "summary": {}, "msg": f"{words.count(added, 'measurement')} kept."}
    hosts = reporting.with_histories(hosts, known, given["min_uptime"])
    written = [write(os.path.join(given["directory"], name), make(hosts), check) for name, make in FILES.items()]
    summary = reporting.summary(hosts)
    return {
        **result,
        "changed": added > 0 or any(written),
        "files": [os.path.join(given["directory"], name) for name in FILES],
        "summary": summary,
        "msg": f"{summary['headline']} {summary['detail']}",
    }


def write(path: str, text: str, check: bool) -> bool:
    """Make a file what it should be; return whether that changes anything."""
    data = text.encode("utf-8")
    try:
        with open(path, "rb") as stream:
            if stream.read() == data:
                return False
    except FileNotFoundError:
        pass
    if not check:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        files.write_file(path, data)
    return True


class ActionModule(ActionBase):
    """Runs once for all hosts of the play, or of the batch with serial."""

    BYPASS_HOST_LOOP = True
    _requires_connection = False

    def run(self, tmp: None = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        """Run the action."""
        result = super().run(tmp, task_vars)
        _validation, given = self.validate_argument_spec(argument_spec=ARGUMENTS)
        try:
            results = registered.results(task_vars or {}, str(given["variable"]))
            result.update(report(results, given, self._task.check_mode))
        except JemallocError as error:
            return {**result, "failed": True, "msg": str(error)}
        except OSError as error:
            return {**result, "failed": True, "msg": words.of_controller(error, "directory", given["directory"])}
        if result["unread"]:
            shown = ", ".join(result["unread"][:_NAMED])
            more = f" and {len(result['unread']) - _NAMED:,} more" if len(result["unread"]) > _NAMED else ""
            self._display.warning(f"Not measured, as they could not be looked at: {shown}{more}.")
        return result
