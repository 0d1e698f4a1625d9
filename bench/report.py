# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast the report of a large fleet is made and opened in Chromium, and how large it is.

Run it by `make bench-report`, or as python -m bench.report [--hosts 1000] [--units 20] [--measurements 30] [--times 5].
With --screenshot PATH it makes the picture of the documentation instead, of a small fleet that is made up.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import typing as t
from pathlib import Path

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _page as paging
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _report as reporting
from tests import fleets
from tests.browser.chromium import Browser

#: What is promised: milliseconds until the page can be used, and bytes.
TARGETS = {"opened": 2000, "size": 5_000_000}

#: What the scripts wait for last; the tables are filled before the event of load.
_OPENED = "return performance.getEntriesByType('navigation')[0].loadEventEnd"
_PAINTED = "return (performance.getEntriesByName('first-contentful-paint')[0] || {startTime: 0}).startTime"


def opened(page: Path, directory: Path) -> tuple[float, float]:
    """Return the milliseconds after which a new Chromium has painted a page, and has it ready."""
    browser = Browser(directory)
    try:
        browser.open(page)
        browser.until(lambda: browser.run(_PAINTED) > 0)
        return browser.run(_PAINTED), browser.run(_OPENED)
    finally:
        browser.driver.quit()


def measure(given: argparse.Namespace, work: Path) -> None:
    """Print a table."""
    hosts = fleets.fleet(given.hosts, given.units, given.measurements)
    begun = time.monotonic()
    text = paging.page(hosts)
    made = time.monotonic() - begun
    page = work / "report.html"
    page.write_text(text, encoding="utf-8")
    figures = [opened(page, work / str(number)) for number in range(given.times)]
    painted, ready = (statistics.median(column) for column in zip(*figures))
    worst = max(ready for _painted, ready in figures)
    print(f"{given.hosts:,} hosts, {given.units} units each, {given.measurements} measurements each")
    print(f"size                    {page.stat().st_size / 1e6:6.2f} MB   (at most {TARGETS['size'] / 1e6:.0f})")
    print(f"made by the controller  {made:6.2f} s")
    print(f"first painted           {painted / 1000:6.2f} s    (median of {given.times})")
    print(f"ready to use            {ready / 1000:6.2f} s    (median; the slowest {worst / 1000:.2f}, below 2)")


def screenshot(path: Path, work: Path) -> None:
    """Make the picture of the documentation."""
    hosts = [*fleets.fleet(24, 20, 30), reporting.read("db9.example.org", {"msg": "No route to host."})]
    page = work / "report.html"
    page.write_text(paging.page(hosts), encoding="utf-8")
    browser = Browser(work / "profile")
    try:
        browser.open(page, size=(1280, 1010))
        browser.driver.save_screenshot(str(path))
    finally:
        browser.driver.quit()


def main(arguments: t.Sequence[str] | None = None) -> None:
    """Measure, or make the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("hosts", 1000), ("units", 20), ("measurements", 30), ("times", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--screenshot", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        if given.screenshot:
            screenshot(given.screenshot, Path(directory))
        else:
            measure(given, Path(directory))


if __name__ == "__main__":
    main()
