"""How many CPUs a service can use: its quota and its set of them, not what the host has."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import math
import os
import re
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files

#: What systemd says of a unit that has to do with CPUs, and what stands in the files of one that it is not asked for.
PROPERTIES = ("CPUQuotaPerSecUSec", "CPUQuota", "AllowedCPUs", "CPUAffinity")

# Of the whole host where that is a container: version 2 of control groups, which a machine's own has no limit in.
_CPU_MAX = "sys/fs/cgroup/cpu.max"

# systemd.time(7), as systemctl show prints a time.
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600}
_TIME = re.compile(r"([0-9.]+)(us|ms|s|min|h)\b")


def usable(properties: t.Mapping[str, t.Sequence[str]], root: str = "/", host: t.Optional[int] = None) -> int:
    """Return how many CPUs a unit with these properties can keep busy; host is how many the host itself can use."""
    values = {name: " ".join(properties.get(name, ())) for name in PROPERTIES}
    limits = [
        float(len(os.sched_getaffinity(0)) if host is None else host),
        quota(values["CPUQuotaPerSecUSec"]),
        _percent(values["CPUQuota"]),
        count(values["AllowedCPUs"]),
        count(values["CPUAffinity"]),
        _cpu_max(files.read_text(os.path.join(root, _CPU_MAX)) or ""),
    ]
    return max(1, math.ceil(min(limits)))


def quota(time: str) -> float:
    """Return the CPUs of a quota, which is the time of them for each second: 1.5 for 1.5s, no limit for infinity."""
    parts = _TIME.findall(time)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else math.inf


def count(cpus: str) -> float:
    """Return how many CPUs a list of them names, as 0-3 8 or 0-3,8; an empty one is no limit."""
    found: t.Set[int] = set()
    for first, last in re.findall(r"([0-9]+)(?:-([0-9]+))?", cpus):
        found.update(range(int(first), int(last or first) + 1))
    return len(found) or math.inf


def _percent(text: str) -> float:
    """Return the CPUs of CPUQuota= in a unit file: 1.5 for 150%."""
    match = re.fullmatch(r"([0-9.]+)%", text)
    return float(match.group(1)) / 100 if match else math.inf


def _cpu_max(text: str) -> float:
    """Return the CPUs of a control group's quota and period, in microseconds; max stands for no limit."""
    match = re.match(r"([0-9]+) ([1-9][0-9]*)", text)
    return int(match.group(1)) / int(match.group(2)) if match else math.inf
