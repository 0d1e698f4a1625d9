# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as a task of a play: once for all hosts, whatever became of some, and nothing but what it says it does."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest

from tests import fleets
from tests.conftest import Run

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - preload.jemalloc.jemalloc_report:
        variable: found
        database: "{{ here }}/measurements.sqlite"
        directory: "{{ here }}/out"
      delegate_to: localhost
      register: written
    - ansible.builtin.debug: {msg: "{{ written.changed }} {{ written.added }} {{ written.unread | join(' ') }}"}
      run_once: true
"""


@pytest.fixture
def play(tmp_path: Path, run: Run) -> t.Callable[..., str]:
    """Run the play in that run of a fleet's, with a host that is lost, and return what it printed."""
    (tmp_path / "play.yml").write_text(PLAY)

    def run_play(number: int, *arguments: str) -> str:
        found: dict[str, t.Any] = dict(fleets.result(4, 6, number, 14))
        hosts = {name: {"found": answer} for name, answer in found.items()}
        hosts["lost"] = {"found": {"unreachable": True, "msg": "No route to {{ host }}."}}
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": {**hosts, "unasked": {}}}}))
        command = ("ansible-playbook", "-i", "hosts.json", "play.yml", "-e", f"here={tmp_path}", *arguments)
        return run(*command, cwd=tmp_path)

    return run_play


def test_a_play(tmp_path: Path, play: t.Callable[..., str]) -> None:
    assert '"msg": "True 24 lost unasked"' in play(0, "--check")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hosts.json", "play.yml"]
    for number in (0, 13):
        said = play(number)
        assert '"msg": "True 24 lost unasked"' in said
        assert said.count("changed: [") == 1
        assert "Not measured, as they could not be looked at: lost, unasked." in said
    assert '"msg": "False 0 lost unasked"' in play(13)
    written = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert written["summary"]["headline"] == "The evidence is still too thin to say what jemalloc saves."
    assert [len(unit["measurements"]["time"]) for unit in written["units"]] == [2] * 24
    assert [host["unread"] for host in written["hosts"] if host["unread"]] == [
        "No route to {{ host }}.",
        "It was not looked at.",
    ]


def test_bad_input_is_one_sentence(tmp_path: Path, run: Run) -> None:
    (tmp_path / "play.yml").write_text(PLAY.replace("variable: found", "keep: none"))
    said = run("ansible-playbook", "-i", "one,", "play.yml", "-e", f"here={tmp_path}", cwd=tmp_path, check=False)
    assert "missing required arguments: variable" in said
    assert "Traceback" not in said
