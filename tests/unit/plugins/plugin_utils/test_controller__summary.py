# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The line that the role ends with for each host, and which of its tasks says it."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _summary as summary

PUMA: t.Dict[str, t.Any] = {"name": "puma.service", "uid": None}
RESTARTS = [PUMA, {"name": "own.service", "uid": 1000}]
CONTAINERS = [{"name": "web.service", "reason": "old"}, {"name": "db.service", "reason": ""}]
COUNTS = {"puma.service": 3, "own.service of user 1000": 1}


def results(
    next_tasks: t.Optional[str] = "preload",
    scopes: t.Any = None,
    preloaded: t.Optional[t.Mapping[str, t.Any]] = None,
    contained: t.Optional[t.Mapping[str, t.Any]] = None,
    restarted: t.Optional[t.Mapping[str, t.Any]] = None,
    removed: t.Optional[t.Mapping[str, t.Any]] = None,
    **given: t.Any,
) -> summary.Results:
    """Return what the role has at its last task."""
    variables = {"state": "present", "restart": True, **given}
    installed = {"version": "5.3.1", "variables": variables, "next": next_tasks, "scopes": scopes}
    registered = {"preloaded": preloaded, "contained": contained, "restarted": restarted, "removed": removed}
    known = {f"__jemalloc_{name}": value for name, value in registered.items() if value is not None}
    return summary.results({"__jemalloc_installed": installed, **known}, "jemalloc_metrics", {})


@pytest.mark.parametrize(
    ("found", "module"),
    [
        (results(None), ""),
        (results("", scopes={"services": []}), "jemalloc"),
        (results(), "jemalloc_preload"),
        (results(preloaded={"restarts": []}), "jemalloc_preload"),
        (results(preloaded={"restarts": RESTARTS}), "jemalloc_service"),
        (results(preloaded={"restarts": RESTARTS}, metrics=False), "jemalloc_service"),
        (results(preloaded={"restarts": RESTARTS}, restart=False), "jemalloc_preload"),
        (results("more", scopes={"services": []}, preloaded={"restarts": RESTARTS}, metrics=True), "jemalloc_metrics"),
        (results("build", containers=[], metrics=True), "jemalloc_metrics"),
        (results("build", containers=[]), "jemalloc_container"),
        (results("remove", preloaded={"restarts": RESTARTS}, state="absent"), "jemalloc_metrics"),
    ],
)
def test_which_task_says_it(found: summary.Results, module: str) -> None:
    assert summary.last_module(found) == module


WHOLE: t.Dict[str, t.Any] = {
    "preloaded": {"restarts": RESTARTS},
    "contained": {"containers": CONTAINERS, "proved": ["web.service"]},
}


@pytest.mark.parametrize(
    ("found", "check", "line"),
    [
        (results(""), False, "jemalloc 5.3.1; pending: none"),
        (results(""), True, "jemalloc 5.3.1; pending: none"),
        (
            results(preloaded={"restarts": RESTARTS}, restarted={"processes": COUNTS}),
            False,
            "jemalloc 5.3.1; restarted and verified puma (3 processes), own of user 1000 (1); pending: none",
        ),
        (
            results(preloaded={"restarts": RESTARTS}, restarted={"processes": {"puma.service": 1, "other": 1}}),
            False,
            "jemalloc 5.3.1; restarted and verified puma (1 process); pending: own of user 1000",
        ),
        (
            results(preloaded={"restarts": [{**PUMA, "along": ["web.service"]}]}, restarted={"processes": COUNTS}),
            False,
            "jemalloc 5.3.1; restarted and verified puma (3 processes); systemd restarted with it web; pending: none",
        ),
        (
            results(preloaded={"restarts": [{**PUMA, "along": ["a.service", "b.socket"]}, {"name": "a.service"}]}),
            True,
            "jemalloc 5.3.1; would restart puma, a; systemd would restart with it b.socket; pending: none",
        ),
        (
            results(restarted={"processes": COUNTS}, **WHOLE),
            False,
            "jemalloc 5.3.1; restarted and verified puma (3 processes), own of user 1000 (1), web; pending: none",
        ),
        (results(**WHOLE), True, "jemalloc 5.3.1; would restart puma, own of user 1000, web; pending: none"),
        (results(restart=False, **WHOLE), True, "jemalloc 5.3.1; pending: puma, own of user 1000, web"),
        (results(restart=False, **WHOLE), False, "jemalloc 5.3.1; pending: puma, own of user 1000, web"),
        (results("remove", state="absent"), True, "would remove jemalloc; pending: none"),
        (
            results("remove", removed={"stays": ["packages gcc and make", "~/x on the controller"]}, state="absent"),
            False,
            "jemalloc removed; what stays: packages gcc and make, ~/x on the controller; pending: none",
        ),
        (
            results("remove", preloaded={"restarts": RESTARTS}, restarted={"processes": COUNTS}, state="absent"),
            False,
            "jemalloc removed; restarted and verified puma (3 processes), own of user 1000 (1); pending: none",
        ),
    ],
)
def test_line(found: summary.Results, check: bool, line: str) -> None:
    assert summary.line(found, check) == line


def test_a_line_is_not_too_long() -> None:
    restarts = [{"name": f"app{number}.service"} for number in range(12)]
    line = summary.line(results(preloaded={"restarts": restarts}, restart=False), False)
    assert line == f"jemalloc 5.3.1; pending: {', '.join(f'app{number}' for number in range(10))} and 2 more"


def test_the_result_of_the_task_itself_counts() -> None:
    found = summary.results({"__jemalloc_restarted": {"processes": {"old": 1}}}, "jemalloc_service", {"processes": {}})
    assert found == summary.Results({}, {}, {}, {"processes": {}}, {})
