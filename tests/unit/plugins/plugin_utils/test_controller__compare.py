# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of memory before and after: equal uptimes only, and no figure where the evidence is too thin."""

from __future__ import annotations

import random
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _compare as comparing
from ansible_collections.preload.jemalloc.plugins.plugin_utils._measurements import Point

MIB = 1 << 20
HOUR = 3600
OURS = "jemalloc 5.3.1"


def series(allocator: str, *pairs: t.Tuple[float, float], start: int = 0, **more: t.Any) -> t.List[Point]:
    """Return measurements from hours of uptime and MiB, a day apart."""
    values = {"processes": 1, "threads": 1, "pss": None, "swap": 0, **more}
    return [
        Point(
            time=(start + day) * 86400 + 10**9,
            uptime=int(age * HOUR),
            rss=int(mib * MIB),
            allocator=allocator,
            **values,
        )
        for day, (age, mib) in enumerate(pairs)
    ]


def before_and_after(
    before: t.Sequence[t.Tuple[float, float]], after: t.Sequence[t.Tuple[float, float]], **more: t.Any
) -> comparing.Comparison:
    """Compare a unit that was enabled once."""
    return comparing.compare([*series("glibc", *before), *series(OURS, *after, start=len(before), **more)])


SAME_AGES = [(1, 100), (24, 400), (48, 500), (72, 600), (73, 600)]


def test_a_saving() -> None:
    found = before_and_after(SAME_AGES, [(age, mib * 0.6) for age, mib in SAME_AGES])
    assert (found.verdict, found.before, found.after) == (comparing.SAVES, 400 * MIB, 240 * MIB)
    assert found.saving == pytest.approx(0.4)
    assert found.enabled == 10**9 + 5 * 86400 - HOUR
    assert str(found.reason) == (
        "At equal uptimes, from 60 min to 3 d, it takes 240 MiB with jemalloc and 400 MiB without "
        "(5 measurements before, 5 after)."
    )


def test_a_cost() -> None:
    found = before_and_after(SAME_AGES, [(age, mib * 1.2) for age, mib in SAME_AGES])
    assert found.verdict == comparing.COSTS
    assert found.saving == pytest.approx(-0.2)


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.951, "no difference"), (0.949, "saves"), (1.049, "no difference"), (1.051, "costs")]
)
def test_the_threshold(factor: float, verdict: str) -> None:
    found = before_and_after(SAME_AGES, [(age, mib * factor) for age, mib in SAME_AGES])
    assert found.verdict == verdict
    assert ("which is less than the 5 % that count as a difference." in str(found.reason)) is (
        verdict == comparing.SAME
    )


def test_a_difference_within_the_ups_and_downs_is_none() -> None:
    before = [(24, mib) for mib in (300, 340, 400, 460, 500)]
    found = before_and_after(before, [(age, mib * 0.9) for age, mib in before])
    assert found.verdict == comparing.SAME
    assert str(found.reason).endswith(
        "but only 64 % of the pairs at equal uptimes differ in that direction, where 85 % have to."
    )


def test_a_young_process_is_no_saving() -> None:
    """Memory that grows with uptime is the same at equal ones; a mean over all would say that half is saved."""
    grows = [(age, 100 + 10 * age) for age in range(1, 60, 2)]
    young = [pair for pair in grows if pair[0] < 12]
    assert before_and_after(grows, young).verdict == comparing.SAME
    assert before_and_after(young, grows).verdict == comparing.SAME


def test_no_equal_uptimes() -> None:
    found = before_and_after([(age, 500) for age in (48, 72, 96, 97, 98)], [(age, 100) for age in (1, 2, 4, 6, 7)])
    assert (found.verdict, found.before, found.saving) == (comparing.THIN, 0, 0.0)
    assert str(found.reason) == (
        "Only 0 measurements before and 0 after have equal uptimes; a comparison takes at least 5 of each."
    )


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ([], [(1, 1)], "It was never measured without jemalloc, so nothing can be said."),
        ([(1, 1)], [], "It was never measured with jemalloc."),
        (
            [(1, 1), (2, 1), (0.1, 1)],
            SAME_AGES,
            "It has 2 measurements without jemalloc after 10 min of uptime; a comparison takes at least 5.",
        ),
        (
            SAME_AGES,
            [(0.1, 1)],
            "It has 0 measurements with jemalloc after 10 min of uptime; a comparison takes at least 5.",
        ),
        (
            [(24, 400)] * 6,
            [(24, 100), (48, 100), (1, 100), (2, 100), (3, 100)],
            "Only 6 measurements before and 1 after have equal uptimes; a comparison takes at least 5 of each.",
        ),
    ],
)
def test_too_thin(before: t.List[t.Tuple[float, float]], after: t.List[t.Tuple[float, float]], reason: str) -> None:
    found = before_and_after(before, after)
    assert found.verdict == (comparing.THIN if after else comparing.OFF)
    assert str(found.reason) == reason
    assert found.saving == 0


def test_another_number_of_processes() -> None:
    found = before_and_after(SAME_AGES, SAME_AGES, processes=4)
    assert found.verdict == comparing.THIN
    assert str(found.reason) == "It has 4 processes now where it had 1, so that its memory cannot be compared."


def test_proportional_memory_only_where_all_have_it() -> None:
    found = before_and_after(SAME_AGES, SAME_AGES, pss=MIB)
    assert found.verdict == comparing.SAME
    both = [*series("glibc", *SAME_AGES, pss=4 * MIB), *series(OURS, *SAME_AGES, start=5, pss=MIB)]
    assert comparing.compare(both).saving == pytest.approx(0.75)


def test_swapped_out_is_not_saved() -> None:
    found = before_and_after(SAME_AGES, [(age, mib / 2) for age, mib in SAME_AGES], swap=200 * MIB)
    assert found.after == 400 * MIB


def test_phases() -> None:
    old = series(OURS, (1, 1), start=0)
    before = series("glibc", (1, 1), (2, 1), start=1)
    partly = series(f"glibc + {OURS}", (1, 1), start=3)
    after = series(OURS, (1, 1), start=4)
    newer = series("jemalloc 5.4.0", (1, 1), start=5)
    off = series("glibc", (1, 1), start=6)
    assert comparing.phases([*old, *before, *partly, *after, *newer]) == (before, [*after, *newer])
    assert comparing.phases([*before, *after, *off]) == (before, after)
    assert comparing.phases([*old, *partly]) == ([], old)
    assert comparing.phases([]) == ([], [])


def test_nothing_at_all() -> None:
    zero = [(age, 0) for age, _mib in SAME_AGES]
    assert before_and_after(zero, zero).verdict == comparing.SAME


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_not_taken_for_a_saving(seed: int) -> None:
    chance = random.Random(seed)
    pairs = [(chance.uniform(1, 200), chance.gauss(500, 60)) for _number in range(60)]
    assert before_and_after(pairs[:30], pairs[30:]).verdict == comparing.SAME
