# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the report says of a fleet: its hosts, its units and the summary, from what jemalloc_info returned for each.

What hosts answer is not trusted: anything of another type than it should have counts as missing, and texts are cut.
"""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import itertools
import re
import typing as t
from collections import Counter
from dataclasses import dataclass, field

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _answers as answers
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _compare as comparing
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _words as words
from ansible_collections.preload.jemalloc.plugins.plugin_utils._measurements import Histories, Point, Unit

#: Characters of a text of a host that are kept.
LONGEST = 500

#: Units of a host that are read, and entries of a list of such a unit.
MOST_UNITS, MOST_ENTRIES = 20_000, 1000

#: More than a host can have; SQLite's integers end at 2 ** 63.
LARGEST = 1 << 62

#: Seconds by which the clock of a host may be ahead of the newest of the others, before its times are not believed.
AHEAD = 86400

# A library in a store, as a scope names it.
_LIBRARY = re.compile(r"/(?:current|[0-9][^/]*)/lib/libjemalloc\.so")

_UNKNOWN = comparing.compare(())


@dataclass(frozen=True)
class Row:
    """A unit as it is now, and what its measurements say."""

    unit: Unit
    now: Point
    configured: str
    malloc_conf: str
    drift: t.Tuple[str, ...]
    candidate: str
    comparison: comparing.Comparison = _UNKNOWN
    history: t.Sequence[Point] = ()


class File(t.NamedTuple):
    """A managed file of a scope: its kind, its service if it has one, and whether it preloads our library."""

    path: str
    kind: str
    unit: str
    preloads: bool


@dataclass(frozen=True)
class Host:
    """A host; unread is why nothing is known of it, or empty."""

    name: str
    unread: str = ""
    time: int = 0
    current: str = ""
    releases: t.Tuple[str, ...] = ()
    scopes: t.Tuple[str, ...] = ()
    notes: t.Tuple[str, ...] = ()
    rows: t.Tuple[Row, ...] = field(default=(), repr=False)
    previous: str = ""
    files: t.Tuple[File, ...] = ()
    unreachable: bool = False


def read(name: str, result: t.Any) -> Host:
    """Return what the module said of a host."""
    if not isinstance(result, dict):
        return Host(name, "It was not looked at.")
    if not isinstance(result.get("units"), list):
        why = _text(result.get("msg")) or "It gave no answer that can be read."
        return Host(name, why, unreachable=result.get("unreachable") is True)
    time = _number(result.get("time"))
    installations = [entry for entry in _dicts(result.get("installations")) if _text(entry.get("version"))]
    scopes = [entry for entry in _dicts(result.get("scopes")) if entry.get("ours") is True]
    releases = tuple(_text(entry["version"]) for entry in installations)
    current, previous = (
        next((_text(entry["version"]) for entry in installations if entry.get(link) is True), "")
        for link in ("current", "previous")
    )
    rows: t.Dict[Unit, Row] = {}
    for entry in _dicts(result["units"], MOST_UNITS):
        row = _row(name, entry, time)
        rows.setdefault(row.unit, row)
    notes = _notes(installations, result.get("unreadable"))
    named, files = tuple(map(_scope, scopes)), tuple(map(_file, scopes))
    return Host(name, "", time, current, releases, named, notes, tuple(rows.values()), previous, files)


def _row(host: str, entry: t.Mapping[str, t.Any], time: int) -> Row:
    unit = Unit(host, _text(entry.get("scope")), _text(entry.get("container")), _text(entry.get("name")))
    pss = entry.get("pss")
    uptime, processes, threads, rss, swap = (
        _number(entry.get(key)) for key in ("uptime", "processes", "threads", "rss", "swap")
    )
    proportional = _number(pss) if isinstance(pss, int) else None
    now = Point(time, uptime, processes, threads, rss, proportional, swap, _allocators(entry.get("allocators")))
    candidate = entry.get("candidate")
    return Row(
        unit,
        now,
        _text(entry.get("configured")),
        _text(entry.get("malloc_conf")),
        _texts(entry.get("drift")),
        (_text(candidate.get("why")) or "It looks like a candidate.") if isinstance(candidate, dict) else "",
    )


def _allocators(found: t.Any) -> str:
    """Return the labels of a unit's allocators, the one with the most processes first: glibc + jemalloc 5.3.1."""
    if not isinstance(found, dict):
        return ""
    few = itertools.islice(found.items(), MOST_ENTRIES)
    counts = [(-_number(number), _text(label)) for label, number in few]
    return " + ".join(label for number, label in sorted(counts) if number and label)


def _scope(entry: t.Mapping[str, t.Any]) -> str:
    return " ".join(filter(None, (_text(entry.get("kind")).replace("_", " "), _text(entry.get("unit")))))


def _file(entry: t.Mapping[str, t.Any]) -> File:
    preloads = any(map(_LIBRARY.search, _texts(entry.get("preloads"))))
    return File(_text(entry.get("path")), _text(entry.get("kind")), _text(entry.get("unit")), preloads)


def _notes(installations: t.Iterable[t.Mapping[str, t.Any]], unreadable: t.Any) -> t.Tuple[str, ...]:
    notes = [
        f"jemalloc {_text(entry['version'])} is damaged: {damage}"
        for entry in installations
        for damage in [_text(entry.get("damage"))]
        if damage
    ]
    number = _number(unreadable.get("processes")) if isinstance(unreadable, dict) else 0
    if number:
        notes.append(f"{words.count(number, 'process')} could not be read. {_text(unreadable.get('reason'))}".rstrip())
    return tuple(notes)


def _text(value: t.Any) -> str:
    """Return a text that SQLite and UTF-8 can hold, without anything that steers a terminal."""
    return answers.line(value[:LONGEST]) if isinstance(value, str) else ""


def _texts(value: t.Any) -> t.Tuple[str, ...]:
    return tuple(filter(None, map(_text, value[:MOST_ENTRIES]))) if isinstance(value, list) else ()


def _number(value: t.Any) -> int:
    usable = isinstance(value, (int, float)) and 0 <= value <= LARGEST  # which NaN is not
    return int(value) if usable else 0


def _dicts(value: t.Any, most: int = MOST_ENTRIES) -> t.List[t.Dict[str, t.Any]]:
    return [entry for entry in value[:most] if isinstance(entry, dict)] if isinstance(value, list) else []


def points(hosts: t.Iterable[Host]) -> t.Dict[Unit, Point]:
    """Return what is to be kept of this run."""
    return {row.unit: row.now for host in hosts if host.time for row in host.rows}


def newest(hosts: t.Iterable[Host]) -> int:
    """Return the time of the report, the newest that is not far ahead of the middle one; 0 when no host was read."""
    times = sorted(host.time for host in hosts if host.time)
    return max((time for time in times if time <= times[len(times) // 2] + AHEAD), default=0)


def with_histories(hosts: t.Iterable[Host], known: Histories, warm: int = comparing.WARM) -> t.List[Host]:
    """Return the hosts with what was measured of their units, and what that says."""
    return [
        Host(**{**vars(host), "rows": tuple(_with_history(row, known.get(row.unit, []), warm) for row in host.rows)})
        for host in hosts
    ]


def _with_history(row: Row, history: t.Sequence[Point], warm: int) -> Row:
    return Row(**{**vars(row), "comparison": comparing.compare(history, warm), "history": history})


def summary(hosts: t.Sequence[Host]) -> t.Dict[str, t.Any]:
    """Return the figures of the fleet. What cannot be compared is counted, and in no sum."""
    rows = [row for host in hosts for row in host.rows]
    verdicts = Counter(row.comparison.verdict for row in rows)
    before, after = (sum(getattr(row.comparison, side) for row in rows) for side in ("before", "after"))
    figures = {
        "hosts": len(hosts),
        "unread": sum(bool(host.unread) for host in hosts),
        "units": len(rows),
        "memory": sum(row.now.memory() for row in rows),
        "enabled": sum(row.now.enabled is True for row in rows),
        "drift": sum(bool(row.drift) for row in rows),
        "candidates": sum(bool(row.candidate) for row in rows),
        "saves": verdicts[comparing.SAVES],
        "costs": verdicts[comparing.COSTS],
        "no_difference": verdicts[comparing.SAME],
        "too_thin": verdicts[comparing.THIN],
        "before": before,
        "after": after,
    }
    return {**figures, "headline": _headline(figures), "detail": _detail(figures)}


def _headline(figures: t.Mapping[str, int]) -> str:
    before, after = figures["before"], figures["after"]
    compared = figures["saves"] + figures["costs"] + figures["no_difference"]
    if not compared:
        if figures["too_thin"]:
            return "The evidence is still too thin to say what jemalloc saves."
        return "Nothing was measured with jemalloc yet."
    if abs(before - after) < comparing.DIFFERENCE * before:
        return f"jemalloc makes no difference to {words.count(compared, 'unit')}."
    verb = "saves" if after < before else "costs"
    return f"jemalloc {verb} {words.size(abs(before - after))}, {words.percent(1 - after / before)}."


def _detail(figures: t.Mapping[str, int]) -> str:
    compared = figures["saves"] + figures["costs"] + figures["no_difference"]
    sentences = []
    if compared:
        sentences.append(
            f"{words.count(compared, 'unit')} with evidence enough, compared at equal uptimes: "
            f"{words.size(figures['before'])} before and {words.size(figures['after'])} after. "
            f"{figures['saves']:,} {'saves' if figures['saves'] == 1 else 'save'} memory, "
            f"{figures['costs']:,} {'takes' if figures['costs'] == 1 else 'take'} more, "
            f"{figures['no_difference']:,} {'shows' if figures['no_difference'] == 1 else 'show'} no difference."
        )
    if figures["too_thin"]:
        units = words.count(figures["too_thin"], "more unit" if compared else "unit")
        sentences.append(f"For {units} with jemalloc the measurements are too few, or of other uptimes.")
    if not sentences:
        sentences.append("Each run of this report adds a measurement; run it before jemalloc is enabled, and after.")
    return " ".join(sentences)
