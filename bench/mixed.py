# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the order of the inventory costs a fleet of several releases of Debian: how many builds, and how long.

Run it by `make bench-mixed`, or as python -m bench.mixed --sources DIRECTORY [--each 2]. Each way runs on a new fleet,
systemd containers of Debian 11, 12 and 13, with an empty cache and the source from a server on this machine. Prints a
table.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import typing as t
from pathlib import Path

from bench.fleet import ROOT, Bench, Step, environment_of, runner
from bench.fleet_figures import Figures
from tests.fleet import lab

OLDEST_FIRST = lab.SUITES
NEWEST_FIRST = tuple(reversed(lab.SUITES))

#: The ways: their names, the releases of Debian in the order of the inventory, and whether the oldest one is named.
WAYS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("newest first", NEWEST_FIRST, False),
    ("oldest first", OLDEST_FIRST, False),
    ("newest first, build host named", NEWEST_FIRST, True),
)


def started(run: t.Callable[..., str], directory: str, suites: t.Sequence[str]) -> t.ContextManager[lab.Fleet]:
    """Start a fleet beside that of the tests."""
    name = "preload-jemalloc-mixed"
    return lab.fleet(run, Path(directory), suites, name=name, network=name, subnet="10.79.51")


def measure(run: t.Callable[..., str], given: argparse.Namespace, address: str, way: int) -> tuple[int, Figures]:
    """Install on a new fleet; return how many hosts built, and what that took."""
    name, order, named = WAYS[way]
    suites = [suite for suite in order for _each in range(given.each)]
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, started(run, directory, suites) as fleet:
        shutil.rmtree(fleet.cache, ignore_errors=True)
        wanted: dict[str, t.Any] = {"jemalloc_version": given.version, "jemalloc_origins": [address]}
        if named:
            wanted["jemalloc_build_host"] = fleet.oldest
        site = str(ROOT / "playbooks" / "site.yml")
        bench = Bench(fleet, environment_of(given.forks))
        figures = bench.measure(Step(name, "first", site, wanted))
        return len(json.loads((fleet.cache / "index.json").read_text())), figures


def table(found: t.Sequence[tuple[int, Figures]]) -> str:
    """Return the figures as a table in Markdown."""
    lines = ["| order of the inventory | builds | wall s | CPU s |", "|---|---:|---:|---:|"]
    lines += [f"| {each.way} | {builds} | {each.wall:.0f} | {each.cpu:.0f} |" for builds, each in found]
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True, help="directory with jemalloc-VERSION.tar.bz2")
    parser.add_argument("--version", default="5.3.0", help="the release")
    parser.add_argument("--each", type=int, default=2, help="so many hosts of each release of Debian")
    parser.add_argument("--forks", default="20")
    return parser.parse_args()


def main() -> None:
    """Measure, and print the table."""
    given = arguments()
    run = runner(environment_of(given.forks))
    with lab.serving(given.sources) as server:
        found = [measure(run, given, server.address, way) for way in range(len(WAYS))]
    print(table(found))


if __name__ == "__main__":
    main()
