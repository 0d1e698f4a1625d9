# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Presets of malloc_conf: what they say, and that every release takes them."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _malloc_conf as malloc_conf
from ansible_collections.preload.jemalloc.plugins.module_utils import _presets as presets
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError


@pytest.mark.parametrize(
    ("version", "options", "expected"),
    [
        ("3.6.0", {}, "narenas:1,lg_tcache_max:10,lg_dirty_mult:5"),
        ("4.5.0", {}, "narenas:1,lg_tcache_max:10,purge:decay,decay_time:1"),
        ("5.3.1", {}, "narenas:1,lg_tcache_max:10,dirty_decay_ms:1000,muzzy_decay_ms:0"),
        (
            "5.3.1",
            {"narenas": 4, "lg_tcache_max": None, "retain": True},
            "narenas:4,dirty_decay_ms:1000,muzzy_decay_ms:0,retain:true",
        ),
    ],
)
def test_a_preset_is_for_every_release(version: str, options: t.Dict[str, t.Any], expected: str) -> None:
    assert malloc_conf.encode({"preset": "low_memory", **options}, version) == expected
    assert malloc_conf.encode({**options, "preset": None, "narenas": 3}, version).startswith("narenas:3")


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_is_right_for_every_release(name: str) -> None:
    known = {option: value for option, value in presets.PRESETS[name].items() if option in malloc_conf._OPTIONS}
    assert known == presets.PRESETS[name]
    for version in catalogue.RELEASES:
        if name != "redis_like" or version >= "5":
            conf = malloc_conf.encode({"preset": name}, version, {"prof": False, "cxx": False})
            assert conf.count("lg_dirty_mult") == (version < "4.1" and name != "redis_like")


def test_a_preset_leaves_out_what_a_release_takes_otherwise() -> None:
    assert malloc_conf.encode({"preset": "redis_like"}, "5.0.1") == "background_thread:true"
    assert malloc_conf.encode({"preset": "redis_like"}, "5.1.0") == "background_thread:true,thp:never"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("low_memory", "narenas:1,lg_tcache_max:10,dirty_decay_ms:1000,muzzy_decay_ms:0"),
        ("least_memory", "narenas:1,tcache:false,dirty_decay_ms:0,muzzy_decay_ms:0"),
        ("balanced", "narenas:2,lg_tcache_max:12,dirty_decay_ms:5000,muzzy_decay_ms:5000"),
        ("throughput", "metadata_thp:auto,dirty_decay_ms:30000,muzzy_decay_ms:30000"),
        ("ruby", "narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0"),
        ("redis_like", "thp:never"),
    ],
)
def test_presets_say_what_they_are_taken_from(name: str, expected: str) -> None:
    found = malloc_conf.encode({"preset": name}, "5.3.1", None, 2).replace("narenas_ratio:1", "narenas:2").split(",")
    assert set(found) == {*expected.split(","), *(["background_thread:true"] if "memory" not in name else [])}


@pytest.mark.parametrize(
    ("name", "expected"), [("low_memory", "1"), ("least_memory", "0"), ("balanced", "5"), ("throughput", "30")]
)
def test_presets_count_seconds_in_older_releases(name: str, expected: str) -> None:
    assert malloc_conf.encode({"preset": name}, "4.5.0").endswith(f"purge:decay,decay_time:{expected}")


@pytest.mark.parametrize(
    ("name", "expected"), [("low_memory", 5), ("least_memory", 10), ("balanced", 4), ("throughput", 2), ("ruby", 5)]
)
def test_presets_count_dirty_pages_in_the_oldest_releases(name: str, expected: int) -> None:
    assert f"lg_dirty_mult:{expected}" in malloc_conf.encode({"preset": name}, "3.6.0", None, 2).split(",")


def test_a_preset_that_is_none() -> None:
    with pytest.raises(JemallocError, match=r"^malloc_conf: there is no preset 'fast'; there are low_memory, "):
        presets.options("fast", lambda _name, _value: True)
