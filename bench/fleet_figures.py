# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of fleets: as a table, beside what is promised, and as a plot."""

from __future__ import annotations

import dataclasses
import typing as t
from pathlib import Path

import matplotlib.pyplot as plt

from ansible_collections.preload.jemalloc.plugins.plugin_utils._words import count


@dataclasses.dataclass(frozen=True)
class Figures:
    """What one run of one way on so many hosts took; CPU in seconds, sent in bytes per host."""

    way: str
    hosts: int
    phase: str
    wall: float
    controller: float
    fleet: float
    sent: float
    calls: float

    @property
    def cpu(self) -> float:
        """The CPU seconds of controller and hosts together."""
        return self.controller + self.fleet


#: How each way and each phase is drawn; what was got from a cache is with what was not.
COLOURS = {
    "ours": "tab:blue",
    "ours, from nothing": "tab:purple",
    "package": "tab:orange",
    "peer": "tab:red",
    "two pings": "tab:gray",
}
LINES = {"first": "-", "second": "--", "upgrade": ":"}


def table(found: t.Sequence[Figures]) -> str:
    """Return the figures as a table in Markdown."""
    lines = [
        "| hosts | way | phase | wall s | CPU s, controller | CPU s, hosts | CPU s a host | KiB to a host | calls |",
        "| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for each in sorted(found, key=lambda each: (each.hosts, each.phase, each.way)):
        figures = (each.wall, each.controller, each.fleet, each.cpu / each.hosts, each.sent / 1024, each.calls)
        words = " | ".join(f"{figure:.1f}" for figure in figures)
        lines.append(f"| {each.hosts} | {each.way} | {each.phase} | {words} |")
    return "\n".join(lines)


def promises(found: t.Sequence[Figures]) -> list[str]:
    """Return what the figures say of the promises, as a list in Markdown."""
    by = {(each.way, each.phase, each.hosts): each for each in found}
    lines = []
    sizes = sorted({each.hosts for each in found})
    for size in sizes:
        ours, floor = by.get(("ours", "second", size)), by.get(("two pings", "second", size))
        if ours and floor:
            lines.append(
                f"- Second run on {count(size, 'host')}: {ours.wall / floor.wall:.2f} times two pings (at most 1.25)."
            )
    slopes = {
        way: slope([(each.hosts, each.wall) for each in found if (each.way, each.phase) == (way, "second")])
        for way in ("ours", "two pings")
    }
    if slopes["two pings"]:
        ratio = slopes["ours"] / slopes["two pings"]
        lines.append(
            f"- Each further host of a second run: {slopes['ours']:.2f} s, with two pings {slopes['two pings']:.2f} s, "
            f"{ratio:.2f} times (at most 1.25)."
        )
    for size in sizes:
        ours, peer = by.get(("ours, from nothing", "first", size)), by.get(("peer", "first", size))
        if ours and peer:
            lines.append(
                f"- First run on {count(size, 'host')}: {peer.cpu / ours.cpu:.1f} times less CPU than the peer."
            )
        ours, peer = by.get(("ours, from nothing", "upgrade", size)), by.get(("peer", "upgrade", size))
        if ours and peer:
            lines.append(f"- Upgrade on {count(size, 'host')}: {peer.cpu / ours.cpu:.1f} times less CPU than the peer.")
        ours, package = by.get(("ours", "first, cached", size)), by.get(("package", "first", size))
        if ours and package:
            lines.append(
                f"- First run on {count(size, 'host')} from the cache: {ours.wall / package.wall:.2f} times the wall "
                "time of the package (at most 1)."
            )
    return lines


def slope(points: t.Sequence[tuple[int, float]]) -> float:
    """Return the slope of the line through points by least squares; 0 for fewer than two."""
    if len(points) < 2:
        return 0.0
    x_mean = sum(x for x, _y in points) / len(points)
    y_mean = sum(y for _x, y in points) / len(points)
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / sum((x - x_mean) ** 2 for x, _y in points)


def plot(found: t.Sequence[Figures], path: Path) -> None:
    """Draw wall time and CPU time over the number of hosts."""
    plt.switch_backend("svg")
    figure, axes = plt.subplots(1, 2, figsize=(10, 5.5))
    for axis, value, title in zip(axes, ("wall", "cpu"), ("wall time", "CPU time of controller and hosts")):
        for way, phase in sorted({(each.way, each.phase) for each in found}):
            of_it = [each for each in found if (each.way, each.phase) == (way, phase)]
            points = sorted((each.hosts, getattr(each, value)) for each in of_it)
            style = {"color": COLOURS[way], "linestyle": LINES[phase.partition(",")[0]]}
            axis.plot(*zip(*points), marker="o", markersize=4, label=f"{way}, {phase}", **style)
        axis.set(title=title, xlabel="hosts", ylabel="s", yscale="log")
        axis.grid(visible=True, alpha=0.3)
    lines, labels = axes[0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0.17, 1, 1))
    figure.legend(lines, labels, loc="lower center", ncols=4, fontsize=9, frameon=False)
    figure.savefig(path, metadata={"Date": None})
