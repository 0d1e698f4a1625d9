# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Profiles as the controller keeps them, whatever the host sends."""

from __future__ import annotations

import base64
import pathlib
import typing as t
import zlib
from unittest import mock

import pytest

from ansible_collections.preload.jemalloc.plugins.action import jemalloc_profile as action
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _answers as answers
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _profiles as profiles


def pack(text: str) -> str:
    """Return a file as the module sends it."""
    return base64.b64encode(zlib.compress(text.encode())).decode()


DONE: t.Dict[str, t.Any] = {
    "changed": True,
    "cleared": [],
    "unit": "puma.service",
    "version": "5.3.1",
    "began": "2026-11-26T103000Z",
    "seconds": 60.3,
    "early": "",
    "contents": {"12.txt": pack("most\n"), "12.heap": pack("dump\n")},
    "processes": [{"pid": 12, "program": "/usr/bin/ruby"}],
    "top": [{"function": "most", "mb": 19.4}],
    "left_out": ["Something."],
}


GRAPH = """digraph "ruby; 19.4 MB" {
node [width=0.375,height=0.25];
N1 [label="most\\n19.4 (100.0%)\\r",shape=box,fontsize=58.0];
}
"""
WRONG: t.Dict[str, t.List[t.Any]] = {
    "unit": ["..", "a/b", "", "a\n", 1],
    "began": ["..", "2026-11-26", "2026-11-26T103000Z\n", 0],
    "seconds": [float("nan"), -1, "60", None, True],
    "version": ["5.3", None],
    "early": ["\x1b[2J", None],
    "processes": [{}, [1], [{"pid": 1}], [{"pid": "1", "program": "x"}]],
    "top": [{}, [{"function": "\x1b", "mb": 1}], [{"function": "f", "mb": "1"}]],
    "left_out": ["x", [1]],
}


@pytest.fixture
def run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., t.Dict[str, t.Any]]:
    """Run the action with a module that answers so."""

    def run_action(done: t.Dict[str, t.Any], check: bool = False, host: str = "web1") -> t.Dict[str, t.Any]:
        monkeypatch.setattr(action.ActionModule, "_execute_module", lambda _self, **_arguments: dict(done))
        task = mock.MagicMock(
            args={"directory": str(tmp_path / "profile")}, async_val=0, check_mode=check, delegate_to=None
        )
        plugin = action.ActionModule(task, mock.MagicMock(), mock.MagicMock(), mock.MagicMock(), mock.MagicMock(), None)
        return dict(plugin.run(task_vars={"inventory_hostname": host}))

    return run_action


def test_the_files_are_kept(run: t.Callable[..., t.Dict[str, t.Any]], tmp_path: pathlib.Path) -> None:
    result = run(DONE)
    place = tmp_path / "profile" / "web1" / "puma.service" / "2026-11-26T103000Z"
    assert result["directory"] == str(place)
    assert result["files"] == [f"{place}/12.heap", f"{place}/12.txt"]
    assert (place / "12.txt").read_text() == "most\n"
    assert [path.stat().st_mode & 0o777 for path in (place, place / "12.txt")] == [0o700, 0o600]
    assert "contents" not in result
    assert result["changed"]
    assert result["summary"] == profiles.summary(result)


def test_check_mode_keeps_nothing(run: t.Callable[..., t.Dict[str, t.Any]], tmp_path: pathlib.Path) -> None:
    result = run({**DONE, "contents": {}}, check=True)
    assert (result["changed"], result["directory"], result["files"], result["summary"]) == (True, "", [], [])
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_drawn_here(
    run: t.Callable[..., t.Dict[str, t.Any]], program: t.Callable[[str, str], pathlib.Path]
) -> None:
    program("dot", "echo svg")
    result = run({**DONE, "contents": {"12.dot": pack(GRAPH)}})
    assert [pathlib.Path(path).name for path in result["files"]] == ["12.dot", "12.svg"]
    program("dot", "exit 1")
    result = run({**DONE, "contents": {"12.dot": pack(GRAPH)}})
    assert result["left_out"] == ["Something.", "Pictures are left out, as dot fails with 12.dot: no word."]


def test_the_module_failed(run: t.Callable[..., t.Dict[str, t.Any]], tmp_path: pathlib.Path) -> None:
    result = run({"failed": True, "msg": "no", "changed": False})
    assert (result["failed"], result["msg"]) == (True, "no")
    assert list(tmp_path.iterdir()) == []


REFUSED = "web1: the answer of its module jemalloc_profile is refused, "


def test_what_is_no_profile_is_refused(run: t.Callable[..., t.Dict[str, t.Any]], tmp_path: pathlib.Path) -> None:
    for name in ("../12.txt", "12.html", "/etc/passwd", ".txt", "12.txt\n", "a.txt"):
        result = run({**DONE, "contents": {"12.dot": pack("x"), name: pack("x")}})
        assert set(result) == {"failed", "msg"}
        assert result["msg"].startswith(f"{REFUSED}in its contents {name!r} is no file of a profile. Nothing of it")
    assert run({**DONE, "contents": []})["msg"].startswith(f"{REFUSED}in its contents contents is no mapping")
    for key, values in WRONG.items():
        for value in values:
            result = run({**DONE, key: value})
            assert result["msg"].startswith(f"{REFUSED}{key} is not of the form that it has to have. "), (key, value)
        result = run({name: each for name, each in DONE.items() if name != key})
        assert result["msg"].startswith(f"{REFUSED}{key} is not of the form that it has to have. ")
    for part in ("..", "a/b", "", "a\n"):
        assert run(DONE, host=part)["msg"] == answers.plain(
            f"directory: {part!r} cannot be the name of a directory; give the host another name."
        )
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made(run: t.Callable[..., t.Dict[str, t.Any]], tmp_path: pathlib.Path) -> None:
    (tmp_path / "profile").write_text("in the way")
    result = run(DONE)
    assert (result["failed"], result["changed"]) == (True, True)
    assert result["msg"].startswith(f"directory: {tmp_path}/profile")
    assert result["msg"].endswith(": Not a directory; name a path that the controller can write to.")
