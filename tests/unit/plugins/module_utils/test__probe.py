# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a library is asked about a MALLOC_CONF, and what counts as its answer."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _probe as probe
from ansible_collections.preload.jemalloc.plugins.module_utils._host import with_errors


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        ("", ""),
        ("narenas:2", "narenas:2"),
        ("stats_print:true,narenas:2,confirm_conf:true", "stats_print:false,narenas:2,confirm_conf:false"),
        (
            "prof:true,lg_prof_interval:30,prof_leak:true",
            "prof:true,lg_prof_interval:-1,prof_leak:false,prof_final:false",
        ),
        ("bin_shards:1-64:2|65-128:3,stats_interval:9", "bin_shards:1-64:2|65-128:3,stats_interval:-1"),
    ],
)
def test_nothing_is_printed_for_the_asking(conf: str, expected: str) -> None:
    assert probe.quiet(conf) == expected


@pytest.mark.parametrize(
    ("status", "output", "expected"),
    [
        (0, "", ""),
        (0, "a word of another library\n", ""),
        (0, "<jemalloc>: Invalid conf pair: x:1\n" * 2, "<jemalloc>: Invalid conf pair: x:1"),
        (134, "<jemalloc>: a\nb\n<jemalloc>: c\n", "<jemalloc>: a <jemalloc>: c"),
        (139, "", "exit status 139: no word"),
        (124, "", "it took too long"),
    ],
)
def test_complaint(status: int, output: str, expected: str) -> None:
    commands = []

    def run(command: t.Sequence[str], directory: t.Optional[str], data: t.Optional[str]) -> t.Tuple[int, str]:
        commands.append((list(command), directory, data))
        return status, output

    assert probe.complaint(run, "/opt/x.so", "stats_print:true") == expected
    environment = ["env", "LD_PRELOAD=/opt/x.so", "MALLOC_CONF=stats_print:false", "/bin/true"]
    assert commands == [(with_errors(["timeout", "-k", "5", "10", *environment]), "/", None)]
