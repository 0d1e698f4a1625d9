# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets that are not there, for tests and benches: what jemalloc_info would return for their hosts, run after run."""

from __future__ import annotations

import random
import typing as t

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _report as reporting
from ansible_collections.preload.jemalloc.plugins.plugin_utils._measurements import Histories, Point, Unit

#: When the first of the runs is, and the seconds between two of them: so that uptimes after restarts overlap.
START, STEP = 1_790_000_000, 86400 + 3600

UNITS = (
    *("puma.service", "sidekiq@1.service", "mysql.service", "redis-server.service", "gunicorn.service"),
    *("php8.5-fpm.service", "nginx.service", "postgresql.service", "rsyslog.service", "cron.service"),
    *("memcached.service", "celery.service", "node-api.service", "prometheus.service", "ssh.service"),
    *("rabbitmq-server.service", "elasticsearch.service", "varnish.service", "clamav-daemon.service", ""),
)

#: What units gain by jemalloc, by their place among UNITS; the others are not enabled, or gain nothing.
GAINS = {0: 0.34, 1: 0.47, 2: 0.18, 3: -0.09, 4: 0.27, 5: 0.02}

MIB = 1 << 20

#: Hosts whose histories differ; those of the others are the same again, as making them takes its time.
_DIFFERENT = 60


def unit(name: str, **more: t.Any) -> dict[str, t.Any]:
    """Return a unit as the module returns it."""
    usual: dict[str, t.Any] = {
        "scope": "system" if name else "none",
        "container": "",
        "allocators": {"glibc": 1},
        "processes": 1,
        "threads": 4,
        "rss": 100 * MIB,
        "pss": None,
        "swap": 0,
        "uptime": 86400,
        "started": START,
        "malloc_conf": "",
        "configured": "",
        "drift": [],
        "candidate": None,
    }
    return {"name": name, **usual, **more}


def answer(time: int, units: t.Sequence[dict[str, t.Any]], **more: t.Any) -> dict[str, t.Any]:
    """Return what the module returns for a host."""
    receipt = {"release": "5.3.1", "method": "source"}
    return {
        "changed": False,
        "installations": [
            {"version": "5.3.1", "path": "/opt/jemalloc/5.3.1", "current": True, "previous": False, "damage": ""}
            | {"receipt": receipt}
        ],
        "scopes": [
            {"path": "/etc/systemd/system/puma.service.d/jemalloc.conf", "kind": "service", "unit": "puma.service"}
            | {"ours": True, "preloads": ["/opt/jemalloc/current/lib/libjemalloc.so"], "malloc_conf": ""}
        ],
        "units": list(units),
        "unreadable": {"processes": 0, "reason": ""},
        "time": time,
        "boot_id": "5b2e8c9e",
        **more,
    }


class Figures(t.NamedTuple):
    """What differs from run to run."""

    enabled: bool
    uptime: int
    memory: int


def _figures(place: int, number: int, run: int, runs: int, chance: random.Random) -> Figures:
    """Return a unit of that number on the host of that place in a run.

    Half way through jemalloc is enabled for those that gain, and on every sixth host only lately.
    """
    kind, late = number % len(UNITS), place % 6 == 5
    start = runs - 3 if late else runs // 2
    enabled = kind in GAINS and run >= start
    age = (run - start if enabled else run) % 7 + 1
    uptime = age * STEP - 3600 * (number % 5) - 77 * kind
    large = (150 + 1700 / (kind + 2)) * (0.6 + (place * 7 + kind * 5) % 17 / 12)
    whole = large * MIB * (0.55 + 0.45 * min(1, uptime / (5 * STEP)))
    return Figures(enabled, uptime, int(whole * (1 - GAINS.get(kind, 0) * enabled) * chance.uniform(0.97, 1.03)))


def _name(number: int) -> str:
    name, turn = UNITS[number % len(UNITS)], number // len(UNITS)
    return name.replace(".service", f"-{turn}.service") if turn and name else f"job-{turn}.service" if turn else name


def _measured(place: int, number: int, run: int, runs: int, chance: random.Random) -> dict[str, t.Any]:
    enabled, uptime, memory = _figures(place, number, run, runs, chance)
    kind = number % len(UNITS)
    processes = 1 + kind % 4
    drift = enabled and chance.random() < 0.02
    why = f"{16 * processes} arenas hold {memory // MIB // 3} MiB for {8 * processes} threads."
    old = "It runs with jemalloc 5.3.0, which is not there any more; restart it."
    return unit(
        _name(number),
        allocators={"jemalloc 5.3.0" if drift else "jemalloc 5.3.1" if enabled else "glibc": processes},
        processes=processes,
        threads=8 * processes,
        rss=memory + 9 * MIB,
        pss=memory,
        uptime=uptime,
        started=START + run * STEP - uptime,
        configured="5.3.1" if enabled else "",
        drift=[old] if drift else [],
        candidate={"why": why} if kind in (11, 12) and run == runs - 1 else None,
    )


def host(number: int) -> str:
    """Return the name of a host."""
    return f"web{number + 1:04}.example.org"


def result(hosts: int, units: int, run: int, runs: int) -> dict[str, dict[str, t.Any]]:
    """Return what the module returns in a run, by host; the same at every call."""
    chance = random.Random(run)
    return {
        host(number): answer(
            START + run * STEP + number % 60, [_measured(number, one, run, runs, chance) for one in range(units)]
        )
        for number in range(hosts)
    }


def histories(hosts: int, units: int, runs: int) -> Histories:
    """Return what the store holds after all runs, without the store."""
    chance = random.Random(1)
    found: Histories = {}
    for number in range(min(hosts, _DIFFERENT)):
        for one in range(units):
            name, processes = _name(one), 1 + one % len(UNITS) % 4
            points = found.setdefault(Unit(host(number), "system" if name else "none", "", name), [])
            for run in range(runs):
                enabled, uptime, memory = _figures(number, one, run, runs, chance)
                label = "jemalloc 5.3.1" if enabled else "glibc"
                time = START + run * STEP + number % 60
                points.append(Point(time, uptime, processes, 8 * processes, memory + 9 * MIB, memory, 0, label))
    for number in range(_DIFFERENT, hosts):
        for one in range(units):
            name = _name(one)
            same = Unit(host(number % _DIFFERENT), "system" if name else "none", "", name)
            found[same._replace(host=host(number))] = found[same]
    return found


def fleet(hosts: int, units: int, runs: int) -> list[reporting.Host]:
    """Return the hosts of a report after all runs."""
    last = [reporting.read(name, found) for name, found in result(hosts, units, runs - 1, runs).items()]
    return reporting.with_histories(last, histories(hosts, units, runs))
