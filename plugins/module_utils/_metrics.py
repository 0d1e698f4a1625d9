"""What jemalloc_info returns, as metrics in the text format of Prometheus; names and units by its conventions."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _allocators as allocators

#: The labels that together name a unit; a unit in a container has none in common with one of the host in all of them.
UNIT = ("unit", "scope", "container", "uid")

Result = t.Mapping[str, t.Any]

# The values of the labels of a family, in their order, and the number itself.
Sample = t.Tuple[t.Tuple[str, ...], float]


class Family(t.NamedTuple):
    """Metrics of one name: what they mean, their labels, and how they are read from what jemalloc_info returns."""

    name: str
    meaning: str
    labels: t.Tuple[str, ...]
    samples: t.Callable[[Result], t.Iterable[Sample]]

    def text(self, result: Result) -> str:
        """Return the family as it is exposed; nothing when there is not one metric."""
        lines = [f"{self.name}{_labels(self.labels, values)} {number(value)}" for values, value in self.samples(result)]
        head = [f"# HELP {self.name} {self.meaning}", f"# TYPE {self.name} gauge"]
        return "".join(f"{line}\n" for line in head + sorted(lines)) if lines else ""


def render(result: Result, duration: float) -> str:
    """Return all metrics; duration is how many seconds it took to gather the result."""
    return "".join(family.text({**result, "duration": duration}) for family in FAMILIES)


def escaped(value: str) -> str:
    """Return the value of a label as it stands between quotes."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def number(value: float) -> str:
    """Return a number as it is exposed: whole ones without a point, of which a size in bytes would lose digits."""
    return repr(value) if isinstance(value, float) else str(int(value))


def _labels(names: t.Sequence[str], values: t.Sequence[str]) -> str:
    pairs = ",".join(f'{name}="{escaped(value)}"' for name, value in zip(names, values))
    return f"{{{pairs}}}" if pairs else ""


def split(label: str) -> t.Tuple[str, str]:
    """Return the allocator and the release of one that is reported; only ours has a release."""
    allocator, _blank, release = label.partition(" ")
    return (allocator, release) if allocator == allocators.OURS and not release.startswith("(") else (label, "")


def identity(unit: Result) -> t.Tuple[str, ...]:
    """Return the labels of a unit."""
    return unit["name"], unit["scope"], unit["container"], "" if unit["uid"] is None else str(unit["uid"])


def _of_units(read: t.Callable[[Result], t.Optional[float]]) -> t.Callable[[Result], t.Iterator[Sample]]:
    """Return what reads one number of each unit, leaving out those where it is not known."""

    def samples(result: Result) -> t.Iterator[Sample]:
        for unit in result["units"]:
            value = read(unit)
            if value is not None:
                yield identity(unit), value

    return samples


def _allocators(result: Result) -> t.Iterator[Sample]:
    for unit in result["units"]:
        for label, count in unit["allocators"].items():
            yield (*identity(unit), *split(label)), count


def _configured(result: Result) -> t.Iterator[Sample]:
    for unit in result["units"]:
        if unit["configured"]:
            yield (*identity(unit), unit["configured"]), 1


def _installations(result: Result) -> t.Iterator[Sample]:
    for each in result["installations"]:
        yield (each["version"], *("true" if each[key] else "false" for key in ("current", "previous"))), 1


def _damaged(result: Result) -> t.Iterator[Sample]:
    for each in result["installations"]:
        yield (each["version"],), bool(each["damage"])


#: All that is exposed, in its order. No family is a counter: what is counted goes up and down with the processes.
FAMILIES = (
    Family(
        "jemalloc_unit_processes",
        "Processes of a unit by the allocator that they really use, and its release if it is one of the store.",
        (*UNIT, "allocator", "release"),
        _allocators,
    ),
    Family("jemalloc_unit_threads", "Threads of a unit.", UNIT, _of_units(lambda unit: unit["threads"])),
    Family(
        "jemalloc_unit_resident_memory_bytes",
        "Resident memory of a unit (RSS), what its processes share counted for each.",
        UNIT,
        _of_units(lambda unit: unit["rss"]),
    ),
    Family(
        "jemalloc_unit_proportional_memory_bytes",
        "Resident memory of a unit (PSS), what is shared counted once, of units with jemalloc and candidates only.",
        UNIT,
        _of_units(lambda unit: unit["pss"]),
    ),
    Family(
        "jemalloc_unit_swap_bytes",
        "Memory of a unit that is swapped out.",
        UNIT,
        _of_units(lambda unit: unit["swap"]),
    ),
    Family(
        "jemalloc_unit_start_time_seconds",
        "Start of the oldest process of a unit, in seconds since the epoch.",
        UNIT,
        _of_units(lambda unit: unit["started"]),
    ),
    Family(
        "jemalloc_unit_configured_info",
        "1 for a unit that a scope configures to run with this release.",
        (*UNIT, "release"),
        _configured,
    ),
    Family(
        "jemalloc_unit_drift",
        "Ways in which processes of a unit run that are not what is configured; 0 is as it should be.",
        UNIT,
        _of_units(lambda unit: len(unit["drift"])),
    ),
    Family(
        "jemalloc_unit_candidate",
        "1 for a service on the malloc of glibc that looks worth a trial of jemalloc, else 0.",
        UNIT,
        _of_units(lambda unit: bool(unit["candidate"])),
    ),
    Family(
        "jemalloc_installation_info",
        "1 for a release that is installed, with whether it is the current one and the one before.",
        ("release", "current", "previous"),
        _installations,
    ),
    Family(
        "jemalloc_installation_damaged",
        "1 for an installation that is not what its receipt says, else 0.",
        ("release",),
        _damaged,
    ),
    Family(
        "jemalloc_unreadable_processes",
        "Processes of which it could not be read what they use.",
        (),
        lambda result: [((), result["unreadable"]["processes"])],
    ),
    Family(
        "jemalloc_unreadable_files",
        "Files that may preload something and could not be read.",
        (),
        lambda result: [((), len(result["unreadable"]["files"]))],
    ),
    Family(
        "jemalloc_collect_duration_seconds",
        "What it took to gather these metrics.",
        (),
        lambda result: [((), float(result["duration"]))],
    ),
)
