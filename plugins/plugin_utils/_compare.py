# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What jemalloc saves a unit, or costs it: memory before and after it was enabled, at equal uptimes only.

Memory grows with uptime, so a young process with jemalloc beside an old one without it would always look like a saving.
Uptimes count as equal when they fall into the same bucket, whose edges are WARM, WARM * RATIO, WARM * RATIO ** 2 and so
on. Only buckets that both sides have are looked at. Each gives the median of either side, and what is compared are the
means of these medians. A difference counts from DIFFERENCE on, and where AGREEMENT of all pairs of a measurement before
and one after, in the same bucket, differ in the same direction: otherwise it may be the unit's own ups and downs.
"""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import itertools
import math
import statistics
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _words as words
from ansible_collections.preload.jemalloc.plugins.plugin_utils._measurements import Point

#: Seconds of uptime below which a unit still fills its caches, so that its memory says nothing.
WARM = 600

#: How much longer than the shortest one the uptimes of a bucket may be.
RATIO = 1.25

#: Measurements that each side has to have at equal uptimes.
POINTS = 5

#: The share of memory from which on a difference is one.
DIFFERENCE = 0.05

#: The share of pairs that have to differ in the same direction.
AGREEMENT = 0.85

#: The share by which the usual number of processes may differ.
PROCESSES = 0.25

SAVES, COSTS, SAME, THIN, OFF = "saves", "costs", "no difference", "too thin", "off"

_Buckets = t.Dict[int, t.List[Point]]


@dataclass(frozen=True)
class Comparison:
    """What the measurements of a unit say; before, after and saving are 0 unless there is evidence enough."""

    verdict: str
    reason: words.Sentence
    enabled: t.Optional[int] = None
    before: int = 0
    after: int = 0

    @property
    def saving(self) -> float:
        """The share of the memory that is saved; negative where it costs."""
        return 1 - self.after / self.before if self.before else 0.0


def compare(points: t.Sequence[Point], warm: int = WARM) -> Comparison:
    """Compare a unit's measurements, in the order of their times, from before jemalloc was enabled and after."""
    before, after = phases(points)
    if not after:
        return Comparison(OFF, words.Sentence("It was never measured with jemalloc."))
    enabled = after[0].time - after[0].uptime  # the processes had to be started for it
    if not before:
        return Comparison(THIN, words.Sentence("It was never measured without jemalloc, so nothing can be said."))
    sides = [_buckets(side, warm) for side in (before, after)]
    lack = _lack(sides[0], sides[1], warm)
    if lack:
        return Comparison(THIN, lack, enabled)
    return _judge(sides[0], sides[1], enabled)


def phases(points: t.Sequence[Point]) -> t.Tuple[t.List[Point], t.List[Point]]:
    """Return the measurements around the moment of enabling, the last one where there were several.

    What ran partly with jemalloc, or with one that is not ours, belongs to neither side.
    """
    known = [point for point in points if point.enabled is not None]
    runs = [(enabled, list(run)) for enabled, run in itertools.groupby(known, key=lambda point: point.enabled)]
    with_it = [number for number, (enabled, _run) in enumerate(runs) if enabled]
    if not with_it:
        return [], []
    # one that was always enabled has a first run with jemalloc, and nothing in front of it
    last = with_it[-1]
    return (runs[last - 1][1] if last else []), runs[last][1]


def _buckets(points: t.Iterable[Point], warm: int) -> _Buckets:
    found: _Buckets = {}
    for point in points:
        if point.uptime >= warm:
            found.setdefault(int(math.log(point.uptime / warm, RATIO)), []).append(point)
    return found


def _lack(before: _Buckets, after: _Buckets, warm: int) -> t.Optional[words.Sentence]:
    """Return why the evidence is too thin, if it is."""
    for side, word in ((before, "without"), (after, "with")):
        number = sum(map(len, side.values()))
        if number < POINTS:
            text = "It has {} {} jemalloc after {} of uptime; a comparison takes at least {}."
            return words.Sentence(text, (words.count(number, "measurement"), word, words.duration(warm), str(POINTS)))
    common = before.keys() & after.keys()
    counts = [sum(len(side[bucket]) for bucket in common) for side in (before, after)]
    if min(counts) < POINTS:
        text = "Only {} before and {} after have equal uptimes; a comparison takes at least {} of each."
        return words.Sentence(text, (words.count(counts[0], "measurement"), str(counts[1]), str(POINTS)))
    processes = [
        statistics.median(point.processes for bucket in common for point in side[bucket]) for side in (before, after)
    ]
    if abs(processes[0] - processes[1]) > PROCESSES * min(processes):
        text = "It has {} now where it had {}, so that its memory cannot be compared."
        now = words.count(round(processes[1]), "process")
        return words.Sentence(text, (now, f"{processes[0]:.0f}"))
    return None


def _judge(before: _Buckets, after: _Buckets, enabled: int) -> Comparison:
    """Return the verdict on evidence that is not too thin."""
    common = sorted(before.keys() & after.keys())
    groups = [[[*side[bucket]] for bucket in common] for side in (before, after)]
    points = [point for side in groups for group in side for point in group]
    # proportional memory does not count shared pages once for each process, but not every kernel tells it
    pss = all(point.pss is not None for point in points)
    values = [[[point.memory(pss) for point in group] for group in side] for side in groups]
    means = [round(statistics.fmean(statistics.median(group) for group in side)) for side in values]
    saving = 1 - means[1] / means[0] if means[0] else 0.0
    agreement = _agreement(values[0], values[1], saving > 0)
    uptimes = [point.uptime for point in points]
    figures: t.Tuple[str, ...] = (
        *(words.duration(uptime) for uptime in (min(uptimes), max(uptimes))),
        *(words.size(mean) for mean in reversed(means)),
        *(str(sum(map(len, side))) for side in groups),
    )
    text = (
        "At equal uptimes, from {} to {}, it takes {} with jemalloc and {} without ({} measurements before, {} after)"
    )
    verdict = SAVES if saving > 0 else COSTS
    if abs(saving) < DIFFERENCE:
        verdict, figures = SAME, (*figures, words.percent(DIFFERENCE))
        text += ", which is less than the {} that count as a difference"
    elif agreement < AGREEMENT:
        verdict, figures = SAME, (*figures, words.percent(agreement), words.percent(AGREEMENT))
        text += ", but only {} of the pairs at equal uptimes differ in that direction, where {} have to"
    return Comparison(verdict, words.Sentence(text + ".", figures), enabled, means[0], means[1])


def _agreement(before: t.Iterable[t.Sequence[int]], after: t.Iterable[t.Sequence[int]], less: bool) -> float:
    """Return the share of pairs at equal uptimes of which the later one is less, or is not."""
    pairs = [(one, other) for group, later in zip(before, after) for one in group for other in later]
    return sum((other < one) is less for one, other in pairs) / len(pairs)
