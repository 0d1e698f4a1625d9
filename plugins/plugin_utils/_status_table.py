# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draw the status of hosts as lines of at most 100 columns, a few for each host and one for all."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _drift as drift
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _layout as layout
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _status as status_util
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _words as words
from ansible_collections.preload.jemalloc.plugins.plugin_utils._report import Row
from ansible_collections.preload.jemalloc.plugins.plugin_utils._status import Status

COLUMNS = 100

#: Up to so many hosts, those that are as configured have lines for their services too.
FEW = 10

#: So many lines of one kind a host has, or names in one line; the rest is counted.
MOST = 20

# The widest that these columns become.
_HOST, _RELEASE, _UNIT, _ALLOCATOR = 40, 12, 34, 24

_INDENT = 2

# What Ansible puts in front of every reason, where the table has no room.
_PREFIXES = ("Task failed: ", "Failed to connect to the host via ssh: ")


def table(statuses: t.Sequence[Status], full: t.Optional[bool] = None) -> t.List[str]:
    """Return the lines for hosts, in their order, and one for all.

    Unless it is full, hosts that are as configured take one line, and others have those units only that differ.
    """
    whole = len(statuses) <= FEW if full is None else full
    rows = [_cells(status) for status in statuses]
    heads = ("HOST", "CURRENT", "PREVIOUS")
    limits = (_HOST, _RELEASE, _RELEASE)
    widths = [min(limit, max(map(layout.width, cells))) for limit, *cells in zip(limits, heads, *rows)]
    units = [(layout.width(_unit(row)), layout.width(_runs(row))) for each in statuses for row in _shown(each, whole)]
    unit_widths = [min(limit, max(column)) for limit, column in zip((_UNIT, _ALLOCATOR), zip((0, 0), *units))]
    lines = [_line([*heads, "STATE"], widths)]
    for status, cells in zip(statuses, rows):
        lines.append(_host_line(status, cells, widths))
        lines += [" " * _INDENT + line for line in _details(status, whole, unit_widths)]
    return [*lines, status_util.fleet(statuses)]


def _cells(status: Status) -> t.Tuple[str, str, str]:
    host = status.host
    return layout.clean(host.name), layout.clean(host.current) or "-", layout.clean(host.previous) or "-"


def _line(cells: t.Sequence[str], widths: t.Sequence[int]) -> str:
    """Return cells side by side; the last one takes the rest of the line."""
    front = "".join(layout.pad(layout.cut(cell, width), width + 2) for cell, width in zip(cells, widths))
    return front + layout.cut(cells[-1], COLUMNS - layout.width(front))


def _host_line(status: Status, cells: t.Sequence[str], widths: t.Sequence[int]) -> str:
    if status.host.unread:
        front = _line([cells[0], f"{status.state}: "], widths[:1])
        return front + layout.cut_middle(_reason(status.host.unread), COLUMNS - layout.width(front))
    return _line([*cells, ": ".join(filter(None, (status.state, ", ".join(_counts(status)))))], widths)


def _reason(text: str) -> str:
    found = layout.clean(text)
    for prefix in _PREFIXES:
        found = found[len(prefix) :] if found.startswith(prefix) else found
    return found


def _counts(status: Status) -> t.List[str]:
    """Return what there is on a host, as numbers."""
    differing, pending = len(status.differing), len(status.pending)
    counts = (
        (len(status.services) + len(status.stopped), "service"),
        (len(status.excluded), "exclusion"),
        (len(status.candidates), "candidate"),
    )
    found = [f"{words.count(differing, 'unit')} {'differs' if differing == 1 else 'differ'}"] if differing else []
    found += [f"{words.count(pending, 'restart')} pending"] if pending else []
    found += ["whole host"] if status.host_wide else []
    return found + [words.count(number, thing) for number, thing in counts if number]


def _shown(status: Status, whole: bool) -> t.List[Row]:
    """Return the units that have a line; where the whole host is enabled, others need one for an odd reason only."""
    odd = [row for row in status.others if row.drift and not drift.is_pending(row.drift)]
    rows = [row for row in (*status.services, *odd) if whole or row.drift]
    return rows[:MOST]


def _details(status: Status, whole: bool, widths: t.Sequence[int]) -> t.Iterator[str]:
    """Yield the lines below that of a host."""
    shown = _shown(status, whole)
    for row in shown:
        yield from _row_lines(row, widths)
    hidden = len(status.services) - len([row for row in shown if row in status.services])
    if hidden and (whole or shown):
        yield words.count(hidden, "more service")
    for title, text in _notes(status, whole):
        lines = layout.wrap(f"{title}: {text}", COLUMNS - 2 * _INDENT)
        yield lines[0]
        yield from (" " * _INDENT + line for line in lines[1:])


def _row_lines(row: Row, widths: t.Sequence[int]) -> t.Iterator[str]:
    """Yield the line of a unit, and its drift."""
    name, runs, point = _unit(row), _runs(row), row.now
    if layout.width(name) > widths[0]:
        yield layout.cut(name, COLUMNS - _INDENT)
        name = ""
    cells = (layout.pad(name, widths[0]), layout.pad(layout.cut(runs, widths[1]), widths[1]))
    numbers = f"{words.count(point.processes, 'process'):12}", f"for {words.duration(point.uptime)}"
    yield layout.cut("  ".join((*cells, *numbers)), COLUMNS - _INDENT)
    for sentence in row.drift[:MOST]:
        yield from (" " * _INDENT + line for line in layout.wrap(layout.clean(sentence), COLUMNS - 2 * _INDENT))


def _unit(row: Row) -> str:
    unit = row.unit
    name = _short(unit.name) or "(in no unit)"
    return name + (
        f" ({layout.clean(unit.container)})" if unit.container else " (user)" if unit.scope == "user" else ""
    )


def _short(name: str) -> str:
    return layout.clean(name[: -len(".service")] if name.endswith(".service") else name)


def _runs(row: Row) -> str:
    return layout.clean(row.now.allocator) or "unknown"


def _notes(status: Status, whole: bool) -> t.Iterator[t.Tuple[str, str]]:
    """Yield what else is to be said of a host, each with its title."""
    others = [row for row in status.others if row.configured]
    if whole and status.stopped:
        yield "not running", _names(status.stopped)
    if whole and status.host_wide:
        enabled = sum(row.now.enabled is True for row in others)
        yield "enabled", f"{status.host_wide}; {enabled:,} of {words.count(len(others), 'other unit')} run with it"
    if status.pending:
        yield "pending", f"restart {_names(status.pending)}"
    if whole and status.excluded:
        yield "excluded", _names(status.excluded)
    for note in status.host.notes[:MOST]:
        yield "warning", layout.clean(note)
    older = [each for each in status.host.releases if each not in (status.host.current, status.host.previous)]
    if whole and older:
        yield "also installed", _names(older)
    for row in status.candidates[:MOST] if whole else ():
        yield "candidate", f"{_unit(row)}: {layout.clean(row.candidate)}"


def _names(names: t.Sequence[str]) -> str:
    """Return names in a list, the first of many."""
    shown = ", ".join(_short(name) for name in names[:MOST])
    return f"{shown} and {len(names) - MOST:,} more" if len(names) > MOST else shown
