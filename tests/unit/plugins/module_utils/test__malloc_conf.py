# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What jemalloc reads from MALLOC_CONF, and what it would not read."""

from __future__ import annotations

import re
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.preload.jemalloc.plugins.module_utils import _malloc_conf as malloc_conf
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError


@pytest.mark.parametrize(
    ("options", "version", "expected"),
    [
        ({}, "5.3.1", ""),
        ({"narenas": 2}, "3.6.0", "narenas:2"),
        ({"narenas": "default"}, "5.3.0", "narenas:default"),
        (
            {"narenas": 2, "dirty_decay_ms": -1, "background_thread": True, "thp": "never"},
            "5.3.1",
            "narenas:2,dirty_decay_ms:-1,background_thread:true,thp:never",
        ),
        ({"thp": False}, "4.5.0", "thp:false"),
        ({"junk": True}, "3.6.0", "junk:true"),
        ({"junk": "alloc"}, "5.4.0", "junk:alloc"),
        ({"lg_chunk": 21, "lg_dirty_mult": 8}, "4.5.0", "lg_chunk:21,lg_dirty_mult:8"),
        ({"narenas_ratio": 0.5}, "5.3.0", "narenas_ratio:0.5"),
        ({"prof": True, "prof_prefix": "/tmp/heap-%p"}, "5.3.1", "prof:true,prof_prefix:/tmp/heap-%p"),
        ({"slab_sizes": "default"}, "5.3.0", "slab_sizes:default"),
        (
            {"bin_shards": "1-64:2|65-128:64", "hpa_dirty_mult": -1},
            "5.3.0",
            "bin_shards:1-64:2|65-128:64,hpa_dirty_mult:-1",
        ),
        ({"stats_print_opts": "Jmh", "tcache": None}, "5.3.0", "stats_print_opts:Jmh"),
        ({"prof_leak_error": True, "prof_final": True}, "5.3.0", "prof_leak_error:true,prof_final:true"),
    ],
)
def test_encode(options: t.Dict[str, t.Any], version: str, expected: str) -> None:
    assert malloc_conf.encode(options, version) == expected


@pytest.mark.parametrize(
    ("options", "version", "message"),
    [
        (
            {"narena": 2},
            "5.3.1",
            "jemalloc has no option 'narena'; did you mean narenas, which is there in 3.6.0 on?",
        ),
        (
            {"decay_tim": 2},
            "5.3.1",
            "jemalloc has no option 'decay_tim'; did you mean decay_time, which is there in 4.1.0 to 4.5.0?",
        ),
        ({7: 2}, "5.3.1", "jemalloc has no option '7'; see OPTIONS in jemalloc(3)."),
        ({"zzz": 2}, "5.3.1", "jemalloc has no option 'zzz'; see OPTIONS in jemalloc(3)."),
        ({"lg_chunk": 2}, "5.3.1", "jemalloc 5.3.1 has no option lg_chunk; it is there in 3.6.0 to 4.5.0."),
        ({"thp": "never"}, "5.0.1", "jemalloc 5.0.1 has no option thp; it is there in 4.5.0 and 5.1.0 on."),
        (
            {"decay_time": 1},
            "5.0.0",
            "jemalloc 5.0.0 has no option decay_time, where dirty_decay_ms is in its place; it is there in 4.1.0 to "
            "4.5.0.",
        ),
        (
            {"dirty_decay_ms": 1},
            "4.0.4",
            "jemalloc 4.0.4 has no option dirty_decay_ms, where lg_dirty_mult is in its place; it is there in 5.0.0 "
            "on.",
        ),
        (
            {"hpa_sec_bytes_after_flush": 1},
            "5.3.1",
            "jemalloc 5.3.1 has no option hpa_sec_bytes_after_flush; it is there in 5.3.0.",
        ),
        (
            {"narenas": "2,junk:true"},
            "5.3.0",
            "narenas: '2,junk:true' is not what jemalloc 5.3.0 takes there, default or a whole number from 1 to 4094.",
        ),
        (
            {"narenas": 2.5},
            "5.2.1",
            "narenas: 2.5 is not what jemalloc 5.2.1 takes there, a whole number from 1 to 4094.",
        ),
        (
            {"quarantine": "9" * 30},
            "4.5.0",
            f"quarantine: '{'9' * 30}' is not what jemalloc 4.5.0 takes there, a whole number from 0 on.",
        ),
        (
            {"narenas": "010"},
            "5.2.1",
            "narenas: '010' is not what jemalloc 5.2.1 takes there, a whole number from 1 to 4094.",
        ),
        (
            {"hpa_dirty_mult": -2},
            "5.3.1",
            "hpa_dirty_mult: -2 is not what jemalloc 5.3.1 takes there, -1 or a number from 0.0 to 65535.0.",
        ),
        (
            {"bin_shards": "1-64:65"},
            "5.3.1",
            "bin_shards: '1-64:65' is not what jemalloc 5.3.1 takes there, FROM-TO:N with sizes in bytes and N from 1 "
            "to 64, joined by |.",
        ),
        (
            {"stats_print_opts": "q"},
            "5.1.0",
            "stats_print_opts: 'q' is not what jemalloc 5.1.0 takes there, any of the letters Jgmdablx.",
        ),
        ({"prof_leak_error": True}, "5.3.0", "prof_leak_error: true counts only with prof_final: true; give both."),
        ({"narenas": "auto"}, "5.3.1", "narenas: auto needs the CPUs of a service's host; give a number."),
        (
            {"preset": "fast"},
            "5.3.1",
            "there is no preset 'fast'; there are low_memory, least_memory, balanced, throughput, ruby, redis_like.",
        ),
        (
            {"preset": ["ruby"]},
            "5.3.1",
            "there is no preset ['ruby']; there are low_memory, least_memory, balanced, throughput, ruby, redis_like.",
        ),
        (
            {"preset": "redis_like", "narenas": 2},
            "4.5.0",
            "jemalloc 4.5.0 has none of the options of the preset redis_like; take another.",
        ),
        ({"tcache": 1}, "5.3.1", "tcache: 1 is not what jemalloc 5.3.1 takes there, true or false."),
        ({"thp": "off"}, "5.3.1", "thp: 'off' is not what jemalloc 5.3.1 takes there, one of default, always, never."),
        (
            {"prof_prefix": "a,b"},
            "5.3.1",
            "prof_prefix: 'a,b' is not what jemalloc 5.3.1 takes there, a text of letters, digits and _./%+|:@-.",
        ),
    ],
)
def test_what_jemalloc_would_not_take(options: t.Dict[str, t.Any], version: str, message: str) -> None:
    with pytest.raises(JemallocError) as caught:
        malloc_conf.encode(options, version)
    assert str(caught.value) == f"malloc_conf: {message}"


@pytest.mark.parametrize(
    ("name", "built", "message"),
    [
        ("lg_prof_sample", {"prof": True}, ""),
        ("lg_prof_sample", None, ""),
        (
            "lg_prof_sample",
            {"prof": False},
            "was built for profiling; build jemalloc 5.3.1 with options: {prof: true}.",
        ),
        ("experimental_infallible_new", {"cxx": True}, ""),
        (
            "experimental_infallible_new",
            {"cxx": False},
            "was built for C++; build jemalloc 5.3.1 with options: {cxx: true}.",
        ),
        ("xmalloc", None, ""),
        ("xmalloc", {"prof": True}, "built with --enable-xmalloc, which none is that is built here."),
    ],
)
def test_what_a_build_has_to_have(name: str, built: t.Optional[t.Dict[str, bool]], message: str) -> None:
    value = 19 if name == "lg_prof_sample" else True
    if not message:
        assert malloc_conf.encode({name: value}, "5.3.1", built) == f"{name}:{str(value).lower()}"
        return
    with pytest.raises(JemallocError) as caught:
        malloc_conf.encode({name: value}, "5.3.1", built)
    assert str(caught.value).startswith(f"malloc_conf: {name} needs a library ")
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize(("cpus", "arenas"), [(1, 1), (2, 8), (16, 64), (2000, 4094)])
def test_arenas_for_the_cpus(cpus: int, arenas: int) -> None:
    assert malloc_conf.encode({"narenas": "auto"}, "5.1.0", None, cpus) == f"narenas:{arenas}"


#: How many names the parsers of these releases know, counted when each was built and asked for every name.
COUNTED = {
    "3.6.0": 24,
    "4.0.4": 24,
    "4.1.1": 26,
    "4.2.1": 26,
    "4.3.1": 26,
    "4.4.0": 26,
    "4.5.0": 27,
    "5.0.1": 27,
    "5.1.0": 32,
    "5.2.0": 36,
    "5.2.1": 37,
    "5.3.0": 74,
    "5.3.1": 91,
}


@pytest.mark.parametrize(("version", "count"), COUNTED.items())
def test_every_release_has_its_options(version: str, count: int) -> None:
    names = [name for name in malloc_conf._OPTIONS if malloc_conf._kind_in(name, version)]
    assert len(names) == count - (version == "3.6.0")  # whose dss takes no value


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.lists(st.integers())


@given(st.dictionaries(st.sampled_from([*malloc_conf._OPTIONS, "preset"]) | ANYTHING.map(repr), ANYTHING, max_size=3))
def test_what_is_not_taken_is_one_sentence(options: t.Dict[t.Any, t.Any]) -> None:
    for version in ("3.6.0", "4.5.0", "5.3.1"):
        try:
            said = malloc_conf.encode(options, version, None, 2)
        except JemallocError as error:
            said = str(error)
        assert re.fullmatch(r"malloc_conf: (?s:.)*|(\w+:[^,\s]*(,|\Z))*", said)


def test_an_option_without_an_upper_bound_takes_what_jemalloc_can_count() -> None:
    assert malloc_conf.encode({"hpa_hugify_delay_ms": 1 << 62}, "5.3.1") == f"hpa_hugify_delay_ms:{1 << 62}"
    with pytest.raises(JemallocError, match=r"^malloc_conf: "):
        malloc_conf.encode({"hpa_hugify_delay_ms": (1 << 62) + 1}, "5.3.1")
