# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many CPUs a service can use, by what systemd and the kernel say of it."""

from __future__ import annotations

import math
import os
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _cpus as cpus


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("infinity", math.inf),
        ("", math.inf),
        ("200ms", 0.2),
        ("1.5s", 1.5),
        ("1min 4s", 64),
        ("66.666ms", 0.066666),
        ("500us", 0.0005),
        ("1h", 3600),
    ],
)
def test_quota(time: str, expected: float) -> None:
    assert cpus.quota(time) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"), [("", math.inf), ("3", 1), ("0-3", 4), ("0-3 8", 5), ("0-3,8,2", 5), ("0 1 10-11", 4)]
)
def test_count(text: str, expected: float) -> None:
    assert cpus.count(text) == expected


@pytest.mark.parametrize(
    ("properties", "cpu_max", "expected"),
    [
        ({}, None, 16),
        ({"CPUQuotaPerSecUSec": ["infinity"], "AllowedCPUs": [""], "CPUAffinity": [""]}, "max 100000\n", 16),
        ({"CPUQuotaPerSecUSec": ["1.5s"]}, None, 2),
        ({"CPUQuotaPerSecUSec": ["100ms"]}, None, 1),
        ({"CPUQuotaPerSecUSec": ["1min"]}, None, 16),
        ({"CPUQuotaPerSecUSec": ["4s"], "AllowedCPUs": ["0-2"]}, None, 3),
        ({"CPUAffinity": ["0 1"]}, None, 2),
        ({"CPUQuota": ["250%"]}, None, 3),
        ({"CPUQuota": ["%i%"], "AllowedCPUs": ["0-1", "4"]}, None, 3),
        ({}, "350000 100000\n", 4),
        ({"CPUQuotaPerSecUSec": ["2s"]}, "350000 100000\n", 2),
    ],
)
def test_usable(
    tmp_path: pathlib.Path, properties: t.Dict[str, t.List[str]], cpu_max: t.Optional[str], expected: int
) -> None:
    if cpu_max:
        (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
        (tmp_path / "sys/fs/cgroup/cpu.max").write_text(cpu_max)
    assert cpus.usable(properties, str(tmp_path), 16) == expected


def test_what_the_host_itself_can_use(tmp_path: pathlib.Path) -> None:
    assert cpus.usable({}, str(tmp_path)) == len(os.sched_getaffinity(0))
