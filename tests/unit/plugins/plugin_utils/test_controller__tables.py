# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as JSON and CSV, and that no spreadsheet takes a host's text for a formula."""

from __future__ import annotations

import csv
import io
import json

import pytest

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _report as reporting
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _tables as tables
from ansible_collections.preload.jemalloc.plugins.plugin_utils._measurements import Histories, Point, Unit


def fleet(name: str = "puma.service", factor: float = 0.5) -> list[reporting.Host]:
    """Return a host with a unit that was enabled."""
    unit = Unit("web1", "system", "", name)
    labels = ["glibc"] * 6 + ["jemalloc 5.3.1"] * 6
    points = [
        Point(86400 * day, 86400, 1, 2, int(2**20 * (factor if day > 5 else 1)), None, 0, label)
        for day, label in enumerate(labels)
    ]
    known: Histories = {unit: points}
    row = reporting.Row(unit, points[-1], "5.3.1", "", ("Restart it.", "Now."), "")
    return reporting.with_histories([reporting.Host("web1", time=86400 * 11, rows=(row,))], known)


def lines(hosts: list[reporting.Host]) -> list[dict[str, str]]:
    """Return the lines of the CSV."""
    return list(csv.DictReader(io.StringIO(tables.as_csv(hosts), newline="")))


def test_json() -> None:
    found = json.loads(tables.as_json(fleet()))
    assert found["summary"]["headline"] == "jemalloc saves 512 KiB, 50 %."
    assert found["time"] == 86400 * 11
    (unit,) = found["units"]
    assert (unit["verdict"], unit["saving_percent"], unit["before"], unit["after"]) == ("saves", 50.0, 1 << 20, 1 << 19)
    assert unit["measurements"]["rss"] == [1 << 20] * 6 + [1 << 19] * 6
    assert found["hosts"][0]["name"] == "web1"


def test_csv() -> None:
    (line,) = lines(fleet())
    assert (line["host"], line["unit"], line["memory"], line["pss"]) == ("web1", "puma.service", str(1 << 19), "")
    assert (line["drift"], line["saving_percent"]) == ("Restart it. Now.", "50.0")
    assert lines(fleet(factor=2))[0]["saving_percent"] == "-100.0"  # a number, and no formula


def test_an_empty_fleet_has_a_head() -> None:
    assert tables.as_csv([]).split(",")[:3] == ["host", "unit", "scope"]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_no_formula(name: str) -> None:
    assert lines(fleet(name))[0]["unit"] == f"'{name}"
