# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter malloc_conf, as a template uses it."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.preload.jemalloc.plugins.filter import malloc_conf

FILTER = malloc_conf.FilterModule().filters()["malloc_conf"]


@pytest.mark.parametrize(
    ("options", "arguments", "expected"),
    [
        ({"narenas": 2}, {}, "narenas:2"),
        ({"decay_time": 2}, {"version": "4.5.0"}, "decay_time:2"),
        ({"prof": True}, {}, "prof:true"),
        ({"prof": True}, {"prof": True}, "prof:true"),
        ({"narenas": "auto", "preset": "ruby"}, {"cpus": 3, "version": "4.0.4"}, "narenas:12,lg_dirty_mult:5"),
    ],
)
def test_what_it_returns(options: t.Any, arguments: t.Dict[str, t.Any], expected: str) -> None:
    assert FILTER(options, **arguments) == expected


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"tcache": 2}, {}, "malloc_conf: tcache: 2 is not what jemalloc 5.3.1 takes there, true or false."),
        (2, {}, "malloc_conf: it is to have names and values, as {narenas: 2} or narenas:2."),
        (
            "narenas:2,tcache",
            {},
            "malloc_conf: 'tcache' has no value; write it as in narenas:2,background_thread:true.",
        ),
        ("tcache:2", {}, "malloc_conf: tcache: '2' is not what jemalloc 5.3.1 takes there, true or false."),
        ({"narenas": "auto"}, {"cpus": 0}, "malloc_conf: cpus is 0; it is a whole number from 1 on."),
        ({"narenas": "auto"}, {"cpus": "2"}, "malloc_conf: cpus is '2'; it is a whole number from 1 on."),
        (
            {"prof": True},
            {"prof": False},
            "malloc_conf: prof needs a library that was built for profiling; build jemalloc 5.3.1 with options: "
            "{prof: true}.",
        ),
    ],
)
def test_what_it_refuses(options: t.Any, arguments: t.Dict[str, t.Any], message: str) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        FILTER(options, **arguments)
    assert str(caught.value) == message


def test_a_release_that_is_none() -> None:
    with pytest.raises(AnsibleFilterError, match=r"^version: 'newest' is not the number of a jemalloc release"):
        FILTER({}, "newest")
