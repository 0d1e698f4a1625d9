# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real saving is reported as what it is, and none as none: programs of our own with and without jemalloc."""

from __future__ import annotations

import pytest

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _compare as comparing
from tests.workload import workloads


def measured(kind: str) -> tuple[comparing.Comparison, float]:
    """Return what the comparison says of a program, and by how much the bytes of both sides really differ."""
    before, after = workloads.sides(kind)
    assert len(before) == len(after) > 10
    return comparing.compare(workloads.points(before, after)), 1 - sum(after) / sum(before)


def test_mixed_lifetimes_gain() -> None:
    found, really = measured("mixed")
    assert found.verdict == comparing.SAVES
    assert really > 0.2
    # the medians of buckets are not quite the mean of all
    assert found.saving == pytest.approx(really, abs=0.03)


def test_steady_memory_gains_nothing() -> None:
    found, really = measured("steady")
    assert found.verdict == comparing.SAME
    assert abs(really) < comparing.DIFFERENCE
    assert str(found.reason).endswith("which is less than the 5 % that count as a difference.")
