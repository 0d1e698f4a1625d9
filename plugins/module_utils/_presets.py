"""Sets of options for MALLOC_CONF by name: what jemalloc's authors and those who run it advise, for every release."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError


def _given_back(dirty_ms: int, muzzy_ms: int, lg_dirty_mult: int) -> t.Dict[str, t.Any]:
    """Return after how many milliseconds unused pages go back to the kernel, in the words of every release.

    4.1 to 4.5 count seconds, and only when told to. Older ones know no time but how many dirty pages there may be, one
    for 2 ** lg_dirty_mult in use (3 by default); as nobody gives a figure for these, that one is ours.
    """
    return {
        "dirty_decay_ms": dirty_ms,
        "muzzy_decay_ms": muzzy_ms,
        "purge": "decay",
        "decay_time": -(-dirty_ms // 1000),
        "lg_dirty_mult": lg_dirty_mult,
    }


# TUNING.md is jemalloc's own, as of 5.3; its tcache_max is lg_tcache_max here, which all releases have.
PRESETS: t.Dict[str, t.Dict[str, t.Any]] = {
    # TUNING.md, "Low resource consumption application".
    "low_memory": {"narenas": 1, "lg_tcache_max": 10, **_given_back(1000, 0, 5)},
    # TUNING.md, "Extremely conservative": for a program that hardly ever allocates.
    "least_memory": {"narenas": 1, "tcache": False, **_given_back(0, 0, 10)},
    # TUNING.md, "High resource consumption application, prioritizing memory usage"; an arena for each CPU.
    "balanced": {"background_thread": True, "narenas_ratio": 1, "lg_tcache_max": 12, **_given_back(5000, 5000, 4)},
    # TUNING.md, "High resource consumption application, prioritizing CPU utilization".
    "throughput": {"background_thread": True, "metadata_thp": "auto", **_given_back(30000, 30000, 2)},
    # What images for Rails set all over; the whitepaper on jemalloc of speedshop.co has the same three.
    "ruby": {"narenas": 2, "background_thread": True, **_given_back(1000, 0, 5)},
    # What Redis 6 and newer do with the jemalloc of their own: redis.conf, jemalloc-bg-thread and disable-thp.
    "redis_like": {"background_thread": True, "thp": "never"},
}


def options(name: t.Any, takes: t.Callable[[str, t.Any], bool]) -> t.Dict[str, t.Any]:
    """Return the options of a preset, those that a release takes."""
    if not isinstance(name, str) or name not in PRESETS:
        raise JemallocError(f"malloc_conf: there is no preset {name!r}; there are {', '.join(PRESETS)}.")
    found = {option: value for option, value in PRESETS[name].items() if takes(option, value)}
    if "purge" in found:
        del found["lg_dirty_mult"]  # only counts without it
    return found
