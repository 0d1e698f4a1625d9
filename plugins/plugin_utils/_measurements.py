# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The measurements of all runs, in one SQLite file on the controller: what a unit took, when, and with which allocator.

Several runs may use the file at once. What each adds is one transaction, and only its owner can read it.
"""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import functools
import os
import re
import sqlite3
import typing as t
import urllib.parse

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _words as words

#: The version of the tables, kept as user_version.
VERSION = 1

#: Seconds for which another run may keep the file for itself.
PATIENCE = 120

#: Labels of processes that no allocator can be preloaded into, or that could not be looked at.
BESIDES = ("static", "unreadable")

_TABLES = """
CREATE TABLE unit (
  id INTEGER PRIMARY KEY,
  host TEXT NOT NULL, scope TEXT NOT NULL, container TEXT NOT NULL, name TEXT NOT NULL,
  UNIQUE (host, scope, container, name)
);
CREATE TABLE measurement (
  unit INTEGER NOT NULL REFERENCES unit, time INTEGER NOT NULL,
  uptime INTEGER NOT NULL, processes INTEGER NOT NULL, threads INTEGER NOT NULL,
  rss INTEGER NOT NULL, pss INTEGER, swap INTEGER NOT NULL, allocator TEXT NOT NULL,
  PRIMARY KEY (unit, time)
) WITHOUT ROWID;
"""

_ADD_UNIT = "INSERT OR IGNORE INTO unit (host, scope, container, name) VALUES (?, ?, ?, ?)"
_ADD = """
INSERT OR IGNORE INTO measurement
SELECT id, ?, ?, ?, ?, ?, ?, ?, ? FROM unit WHERE host = ? AND scope = ? AND container = ? AND name = ?
"""
_HISTORY = """
SELECT host, scope, container, name, time, uptime, processes, threads, rss, pss, swap, allocator
FROM unit JOIN measurement ON unit = id WHERE host IN (SELECT host FROM temp.wanted) ORDER BY id, time
"""
# A share for each allocator: otherwise the newest would soon be all that is left, with nothing to compare them with.
_PRUNE = """
DELETE FROM measurement WHERE time < :oldest OR (unit, time) IN (
  SELECT unit, time FROM (
    SELECT unit, time, row_number() OVER (PARTITION BY unit, allocator ORDER BY time DESC) AS rank FROM measurement
  ) WHERE rank > :number
)
"""
_PRUNE_UNITS = "DELETE FROM unit WHERE NOT EXISTS (SELECT * FROM measurement WHERE unit = id)"


class Unit(t.NamedTuple):
    """What has a memory over time; the name is empty for the processes of a host that are in no unit."""

    host: str
    scope: str
    container: str
    name: str


class Point(t.NamedTuple):
    """A measurement: seconds since the epoch, seconds, and bytes."""

    time: int
    uptime: int
    processes: int
    threads: int
    rss: int
    pss: t.Optional[int]
    swap: int
    allocator: str

    def memory(self, proportional: bool = True) -> int:
        """Return what the unit takes, in memory and on the swap device."""
        return (self.rss if self.pss is None or not proportional else self.pss) + self.swap

    @property
    def enabled(self) -> t.Optional[bool]:
        """Whether it ran with our jemalloc, or with no jemalloc at all; None for anything between."""
        return _side(self.allocator)


@functools.lru_cache(maxsize=4096)
def _side(allocator: str) -> t.Optional[bool]:
    labels = [label for label in allocator.split(" + ") if label and label not in BESIDES]
    if labels and all(re.match("jemalloc [0-9]", label) for label in labels):
        return True
    return None if not labels or any(label.startswith("jemalloc") for label in labels) else False


Histories = t.Dict[Unit, t.List[Point]]


@contextlib.contextmanager
def opened(path: str, check: bool = False) -> t.Iterator[sqlite3.Connection]:
    """Open the file, and make it where it is missing; in check mode a copy in memory, which is forgotten."""
    path = os.path.abspath(os.path.expanduser(path))
    try:
        connection = _copied(path) if check else _connected(path)
        with contextlib.closing(connection), connection:
            connection.execute("BEGIN IMMEDIATE")
            _migrate(connection, path)
            yield connection
    except sqlite3.OperationalError as error:
        raise JemallocError(f"database: {path} cannot be used ({error}).") from error
    except sqlite3.DatabaseError as error:
        raise JemallocError(
            f"database: {path} is no file of measurements ({error}); move it away or name another one."
        ) from error
    except OSError as error:
        raise JemallocError(words.of_controller(error, "database", path)) from error


def _connected(path: str) -> sqlite3.Connection:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    return sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)


def _copied(path: str) -> sqlite3.Connection:
    memory = sqlite3.connect(":memory:", isolation_level=None)
    if os.path.exists(path):
        uri = f"file:{urllib.parse.quote(path)}?mode=ro"
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=PATIENCE)) as source:
                source.backup(memory)
        except sqlite3.Error:
            memory.close()
            raise
    return memory


def _migrate(connection: sqlite3.Connection, path: str) -> None:
    """Make the tables; what a later version changes is added here, step by step."""
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > VERSION:
        raise JemallocError(
            f"database: {path} was written by a newer release of preload.jemalloc; upgrade it here, or name another "
            "file."
        )
    if found < 1:
        for statement in _TABLES.split(";"):  # executescript() would commit
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")


def add(connection: sqlite3.Connection, points: t.Mapping[Unit, Point]) -> int:
    """Add measurements and return how many were new; the same one twice is one."""
    connection.executemany(_ADD_UNIT, points)
    before = connection.total_changes
    connection.executemany(_ADD, ((*point, *unit) for unit, point in points.items()))
    return connection.total_changes - before


def prune(connection: sqlite3.Connection, oldest: int, number: int) -> None:
    """Remove what is older than a time, and all but the newest ones of each unit and allocator."""
    connection.execute(_PRUNE, {"oldest": oldest, "number": number})
    connection.execute(_PRUNE_UNITS)


def histories(connection: sqlite3.Connection, hosts: t.Iterable[str]) -> Histories:
    """Return all measurements of the units of these hosts, the oldest first."""
    connection.execute("CREATE TEMP TABLE wanted (host TEXT PRIMARY KEY)")
    connection.executemany("INSERT OR IGNORE INTO temp.wanted VALUES (?)", ((host,) for host in hosts))
    found: Histories = {}
    for row in connection.execute(_HISTORY):
        found.setdefault(Unit(*row[:4]), []).append(Point(*row[4:]))
    connection.execute("DROP TABLE temp.wanted")
    return found
