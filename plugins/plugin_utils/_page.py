# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as one HTML file that needs no network: its data as small as it can be, beside the scripts that draw it.

20,000 units with 30 measurements each have to open at once and fit into a mail, so the data goes by columns, a text is
written once and numbered, and a measurement takes three or four characters: two for its memory, as a share of the
largest of the unit in 4095ths, and one for its uptime, or two where it was started anew, as a share of LONGEST in
4095ths of the logarithm. No curve on a screen is as exact; the figures that are printed, and report.json, are whole.
"""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import time
import typing as t

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _report as reporting
from ansible_collections.preload.jemalloc.plugins.plugin_utils._measurements import Point

#: Measurements that the page has in all, and the least and the most of one unit.
ALL_POINTS, LEAST_POINTS, MOST_POINTS = 600_000, 12, 500

#: Seconds of the largest uptime that a curve can show, ten years.
LONGEST = 315_360_000

_STEPS = 4095
_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]
_NOTHING = "  "

#: Seconds by which a start may seem to move, as clocks are set.
_JITTER = 5

_PARTS = os.path.join(os.path.dirname(__file__), "report")
_STYLES = ("uplot/uPlot.min.css", "page.css")
_LIBRARY = "uplot/uPlot.iife.min.js"
_SCRIPTS = ("data.js", "words.js", "table.js", "chart.js", "detail.js", "page.js")
_ENVIRONMENT = Environment(loader=FileSystemLoader(_PARTS), undefined=StrictUndefined, autoescape=True)


class _Words:
    """Texts by their numbers."""

    def __init__(self) -> None:
        self._numbers: t.Dict[str, int] = {"": 0}

    def number(self, text: str) -> int:
        """Return the number of a text."""
        return self._numbers.setdefault(text, len(self._numbers))

    def numbers(self, texts: t.Iterable[str]) -> t.List[int]:
        """Return the numbers of several texts."""
        return [self.number(text) for text in texts]

    def all(self) -> t.List[str]:
        """Return the texts in the order of their numbers."""
        return list(self._numbers)


def page(hosts: t.Sequence[reporting.Host]) -> str:
    """Return the HTML of the report."""
    styles = [_part(name) for name in _STYLES]
    scripts = [_part(_LIBRARY), "\n".join(_part(name) for name in _SCRIPTS)]
    policy = {
        "default-src": "'none'",
        "style-src": _hashes(styles),
        "script-src": _hashes(scripts),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    made = reporting.newest(hosts)
    return _ENVIRONMENT.get_template("page.html.j2").render(
        policy="; ".join(f"{key} {value}" for key, value in policy.items()),
        styles=styles,
        scripts=scripts,
        data=embedded(data(hosts)),
        summary=reporting.summary(hosts),
        made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(made)) if made else "no host was read",
    )


def _part(name: str) -> str:
    with open(os.path.join(_PARTS, name), encoding="utf-8") as stream:
        return stream.read()


def _hashes(texts: t.Iterable[str]) -> str:
    """Return what the browser lets in by its digest; whatever a host may have smuggled into the page has none."""
    digests = [hashlib.sha256(text.encode("utf-8")).digest() for text in texts]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode('ascii')}'" for digest in digests)


def embedded(value: t.Any) -> str:
    """Return JSON that may stand in a script element, where only < could end it."""
    whole = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        whole = whole.replace(character, f"\\u{ord(character):04x}")
    return whole


def data(hosts: t.Sequence[reporting.Host]) -> t.Dict[str, t.Any]:
    """Return the columns of the page."""
    words = _Words()
    made = reporting.newest(hosts)
    rows = [row for host in hosts for row in host.rows]
    limit = max(LEAST_POINTS, min(MOST_POINTS, ALL_POINTS // max(1, len(rows))))
    times = [moments(host.rows, limit) for host in hosts]
    # what most rows have comes first, as the first texts have the shortest numbers
    columns = {
        **{key: words.numbers(getattr(row.unit, key) for row in rows) for key in ("scope", "container")},
        "verdict": words.numbers(row.comparison.verdict for row in rows),
        "allocator": words.numbers(row.now.allocator for row in rows),
        **{key: words.numbers(getattr(row, key) for row in rows) for key in ("configured", "malloc_conf")},
        "name": words.numbers(row.unit.name for row in rows),
        "drift": [words.numbers(row.drift) or 0 for row in rows],
        "reason": [words.numbers((row.comparison.reason.text, *row.comparison.reason.figures)) for row in rows],
        "candidate": words.numbers(row.candidate for row in rows),
        **{key: [getattr(row.now, key) for row in rows] for key in ("processes", "threads", "uptime")},
        "memory": [row.now.memory() >> 10 for row in rows],
        "rss": [row.now.rss >> 10 for row in rows],
        "swap": [row.now.swap >> 10 for row in rows],
        "saving": [round(row.comparison.saving * 100) for row in rows],
        "saved": [(row.comparison.before - row.comparison.after) >> 10 for row in rows],
        "enabled": [row.comparison.enabled and made - row.comparison.enabled for row in rows],
    }
    histories = [_history(row, host_times, words) for host, host_times in zip(hosts, times) for row in host.rows]
    return {
        "time": made,
        "longest": LONGEST,
        "units": {**columns, **{key: [one[key] for one in histories] for key in ("most", "curve", "ages", "labels")}},
        "hosts": {
            **{key: words.numbers(getattr(host, key) for host in hosts) for key in ("name", "unread", "current")},
            **{key: [words.numbers(getattr(host, key)) for host in hosts] for key in ("releases", "scopes", "notes")},
            "units": [len(host.rows) for host in hosts],
            "times": [[now - last for last, now in zip([made, *found], found)] for found in times],
        },
        "sides": {words.number(label): side for label, side in _sides(rows).items()},
        "words": words.all(),
    }


def _sides(rows: t.Iterable[reporting.Row]) -> t.Dict[str, t.Optional[bool]]:
    """Return for each label whether it is our jemalloc, no jemalloc, or neither."""
    points = {point.allocator: point for row in rows for point in (row.now, *row.history)}
    return {label: point.enabled for label, point in points.items()}


def moments(rows: t.Iterable[reporting.Row], limit: int) -> t.List[int]:
    """Return the times that the curves of a host's units have, at most so many: where they change, and evenly."""
    times: t.Set[int] = set()
    changes: t.Set[int] = set()
    for row in rows:
        times.update(point.time for point in row.history)
        for one, other in zip(row.history, row.history[1:]):
            if one.enabled is not other.enabled:
                changes.update((one.time, other.time))
    whole = sorted(times)
    if len(whole) <= limit:
        return whole
    chosen = set(sorted(changes)[-(limit // 2) :])
    rest = limit - len(chosen)
    return sorted(chosen | {whole[round(number * (len(whole) - 1) / (rest - 1))] for number in range(rest)})


def _history(row: reporting.Row, times: t.Sequence[int], words: _Words) -> t.Dict[str, t.Any]:
    """Return the curve of a unit: two characters for each time of its host, blanks where it was not there."""
    found: t.Dict[int, Point] = {point.time: point for point in row.history}
    points = [found.get(moment) for moment in times]
    # the measure that every point has, as otherwise a curve would jump where only the measure changed
    pss = all(point.pss is not None for point in points if point)
    memory = [point.memory(pss) if point else None for point in points]
    most = max((value for value in memory if value is not None), default=0) or 1
    labels: t.List[int] = []
    last = None
    for index, point in enumerate(points):
        if point and point.allocator != last:
            last = point.allocator
            labels += [index, words.number(last)]
    return {
        "most": most >> 10 or 1,
        "curve": "".join(_NOTHING if value is None else _PAIRS[round(value / most * _STEPS)] for value in memory),
        "ages": "".join(_ages(points)),
        "labels": labels[1] if len(labels) == 2 else labels,  # mostly there is but one
    }


def _ages(points: t.Iterable[t.Optional[Point]]) -> t.Iterator[str]:
    """Return the uptimes: two characters where the unit was started anew, and a point where it only got older."""
    scale = _STEPS / math.log1p(LONGEST)
    last = None
    for point in points:
        if point is None:
            continue
        started = point.time - point.uptime
        if last is not None and abs(started - last) <= _JITTER:
            yield "."
        else:
            last = started
            yield _PAIRS[round(math.log1p(min(point.uptime, LONGEST)) * scale)]
