# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report on the controller: what is kept and written, twice the same, in check mode, and with bad input."""

from __future__ import annotations

import json
import os
import pathlib
import typing as t
from unittest import mock

import pytest

from ansible_collections.preload.jemalloc.plugins.action import jemalloc_report as action

FOUND = {
    "installations": [],
    "scopes": [],
    "unreadable": {"processes": 0, "reason": ""},
    "time": 10**9,
    "units": [
        {"name": "<script>", "scope": "system", "container": "", "allocators": {"glibc": 1}}
        | {"processes": 1, "threads": 1, "rss": 1 << 20, "pss": None, "swap": 0, "uptime": 60}
    ],
}

NAMES = ["report.csv", "report.html", "report.json"]


class HostVars(t.Dict[str, t.Any]):
    """As much of Ansible's as the action uses."""

    def raw_get(self, host: str) -> t.Any:
        """Return the variables of a host."""
        return self[host]


def run(
    tmp_path: pathlib.Path, results: t.Mapping[str, t.Any], check: bool = False, **more: t.Any
) -> t.Tuple[t.Dict[str, t.Any], mock.MagicMock]:
    """Run the action on what was registered; return its result and what displayed its warnings."""
    arguments = {
        "variable": "found",
        "database": str(tmp_path / "m.sqlite"),
        "directory": str(tmp_path / "out"),
        **more,
    }
    arguments = {key: value for key, value in arguments.items() if value is not None}
    task = mock.MagicMock(args=arguments, async_val=0, check_mode=check)
    plugin = action.ActionModule(task, mock.MagicMock(), mock.MagicMock(), mock.MagicMock(), mock.MagicMock(), None)
    plugin._display = mock.MagicMock()
    variables = HostVars({host: {} if found is None else {"found": found} for host, found in results.items()})
    return dict(plugin.run(task_vars={"hostvars": variables, "ansible_play_batch": list(results)})), plugin._display


def test_twice_the_same(tmp_path: pathlib.Path) -> None:
    result, display = run(tmp_path, {"web1": FOUND}, check=True)
    assert (result["changed"], result["added"], list(tmp_path.iterdir())) == (True, 1, [])
    for changed in (True, False):
        result, display = run(tmp_path, {"web1": FOUND})
        assert (result["changed"], result["added"], result["unread"]) == (changed, int(changed), [])
        assert sorted(os.listdir(tmp_path / "out")) == NAMES
        assert result["files"] == [str(tmp_path / "out" / name) for name in action.FILES]
        assert display.warning.mock_calls == []
    result, _display = run(tmp_path, {"web1": FOUND}, check=True)
    assert not result["changed"]
    (tmp_path / "out" / "report.csv").write_text("spoiled")
    result, _display = run(tmp_path, {"web1": FOUND})
    assert (result["changed"], result["added"]) == (True, 0)
    assert "<script>" in (tmp_path / "out" / "report.csv").read_text()
    assert result["msg"].startswith("Nothing was measured with jemalloc yet. Each run")
    json.dumps(result)


def test_measurements_only(tmp_path: pathlib.Path) -> None:
    result, _display = run(tmp_path, {"web1": FOUND}, directory=None)
    assert (result["changed"], result["files"], result["msg"]) == (True, [], "1 measurement kept.")
    assert [path.name for path in tmp_path.iterdir()] == ["m.sqlite"]


def test_hosts_that_were_not_read(tmp_path: pathlib.Path) -> None:
    lost = {f"web{number}": {"unreachable": True, "msg": "No route."} for number in range(2, 9)}
    result, display = run(tmp_path, {"web1": FOUND, "web9": None, **lost})
    assert result["unread"] == ["web9", *lost]
    (said,) = display.warning.mock_calls
    assert said.args == ("Not measured, as they could not be looked at: web9, web2, web3, web4, web5 and 3 more.",)
    assert "No route." in (tmp_path / "out" / "report.json").read_text()


@pytest.mark.parametrize("key", ["keep", "keep_days", "min_uptime"])
def test_numbers_that_are_none(tmp_path: pathlib.Path, key: str) -> None:
    wrong: t.Dict[str, t.Any] = {key: 0}
    result, _display = run(tmp_path, {"web1": FOUND}, **wrong)
    assert (result["failed"], result["msg"]) == (True, f"{key}: 0 is too small; give at least 1.")


def test_the_directory_is_a_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "out").write_text("")
    for check in (True, False):
        result, _display = run(tmp_path, {"web1": FOUND}, check=check)
        assert (result["failed"], result["msg"]) == (
            True,
            f"directory: {tmp_path}/out/report.html: Not a directory; name a path that the controller can write to.",
        )
