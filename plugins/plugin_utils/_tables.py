# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report for programs and spreadsheets: the same fleet as JSON, with its measurements, and as CSV by units."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import csv
import io
import json
import typing as t

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _compare as comparing
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _report as reporting
from ansible_collections.preload.jemalloc.plugins.plugin_utils._measurements import Point

#: With these a spreadsheet takes a text for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

_HOST = ("name", "unread", "time", "current", "releases", "scopes", "notes")


def as_json(hosts: t.Sequence[reporting.Host]) -> str:
    """Return the report as JSON: bytes, seconds, and the measurements of each unit by columns."""
    whole = {
        "time": reporting.newest(hosts),
        "summary": reporting.summary(hosts),
        "hosts": [{key: getattr(host, key) for key in _HOST} for host in hosts],
        "units": [
            {**_unit(row), "measurements": {key: [getattr(p, key) for p in row.history] for key in Point._fields}}
            for host in hosts
            for row in host.rows
        ],
    }
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")) + "\n"


def as_csv(hosts: t.Sequence[reporting.Host]) -> str:
    """Return the report as CSV, which no spreadsheet takes for formulas."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\r\n")
    rows = [_unit(row) for host in hosts for row in host.rows]
    writer.writerow(rows[0] if rows else _unit(_NOBODY))
    writer.writerows(map(_cell, row.values()) for row in rows)
    return stream.getvalue()


def _unit(row: reporting.Row) -> t.Dict[str, t.Any]:
    compared = row.comparison
    known = compared.verdict in (comparing.SAVES, comparing.COSTS, comparing.SAME)
    return {
        "host": row.unit.host,
        "unit": row.unit.name,
        "scope": row.unit.scope,
        "container": row.unit.container,
        "allocator": row.now.allocator,
        "configured": row.configured,
        "malloc_conf": row.malloc_conf,
        "processes": row.now.processes,
        "threads": row.now.threads,
        "memory": row.now.memory(),
        "rss": row.now.rss,
        "pss": row.now.pss,
        "swap": row.now.swap,
        "uptime": row.now.uptime,
        "drift": list(row.drift),
        "candidate": row.candidate,
        "enabled": compared.enabled,
        "verdict": compared.verdict,
        "saving_percent": round(compared.saving * 100, 1) if known else None,
        "before": compared.before if known else None,
        "after": compared.after if known else None,
        "reason": str(compared.reason),
    }


def _cell(value: t.Any) -> t.Any:
    text = " ".join(value) if isinstance(value, list) else value
    return f"'{text}" if isinstance(text, str) and text.startswith(_FORMULA) else text


_NOBODY = next(iter(reporting.read("", {"units": [{}]}).rows))
