# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many services among many processes: all of them are verified, and each is restarted once."""

from __future__ import annotations

import collections
import typing as t
from pathlib import Path

import pytest
from crowd import busy_host, handle, start_others, start_services
from hosts import ABSENT, PREFIX, Host

#: How many services and other processes a host has.
SIZES = [pytest.param(60, 1_000, id="60"), pytest.param(500, 10_000, id="500", marks=pytest.mark.full)]


@pytest.fixture
def busy(tmp_path: Path, library: Path) -> t.Iterator[Host]:
    """A container for these tests alone, in which jemalloc 9.9.9 is installed."""
    with busy_host(tmp_path) as host:
        host.ask("install", prefix=PREFIX, version="9.9.9", library=host.give(library))
        yield host


@pytest.mark.parametrize(("services", "others"), SIZES)
def test_all_services_of_a_busy_host_are_verified(busy: Host, services: int, others: int) -> None:
    names = start_services(busy, services)
    start_others(busy, others)

    enabled = busy.run({"services": names}).result
    assert [each["name"] for each in enabled["restarts"]] == names
    restart(busy, enabled["restarts"])
    assert starts(busy) == {2: services}
    again = busy.run({"services": names}).result
    assert (again["changed"], again["restarts"]) == (False, [])
    # the time is over before the first look at any of them
    assert handle(busy, again["services"], state="proved", timeout=0).result["proved"] == names

    gone = busy.run(ABSENT).result
    assert [each["name"] for each in gone["restarts"]] == names
    restart(busy, gone["restarts"])
    assert starts(busy) == {3: services}
    assert busy.ask("mapping", text=PREFIX) == []
    assert busy.run(ABSENT).result["changed"] is False


def restart(host: Host, services: t.Sequence[t.Mapping[str, t.Any]]) -> None:
    """See that all services are restarted and verified."""
    answer = handle(host, services)
    assert answer.status == 0, answer.output
    assert answer.result["proved"] == [each["name"] for each in services]


def starts(host: Host) -> dict[int, int]:
    """Return how many services were started how often."""
    lines = host.ask("shell", script="wc -l /run/starts/*").splitlines()[:-1]
    return dict(collections.Counter(int(line.split()[0]) for line in lines))
