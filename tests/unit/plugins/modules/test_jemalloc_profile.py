# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc_profile as such: its arguments, results and errors; a real service is in tests/profile."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile as profile
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile_render as render
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile_session as session
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_profile as module

Call = t.Callable[..., t.Dict[str, t.Any]]

DUMP = b"heap_v2/524288\n  t*: 10: 5 [0: 0]\n\nMAPPED_LIBRARIES:\n5500-5501 r--p 0 08:01 1   /usr/bin/ruby\n"


class Lab:
    """What a run is given in the place of a host: its plan, how it goes, and the dumps that it leaves."""

    def __init__(self, top: pathlib.Path) -> None:
        self.wanted: t.List[profile.Wanted] = []
        self.dumps = [DUMP]
        self.outcome = session.Outcome(0.0, 60.3, "")
        self.failures: t.List[Exception] = []
        self.refused = ""
        self.cleared: t.List[str] = []
        self.warnings: t.List[str] = []
        service = restarts.Service("puma.service", "5.3.1")
        self.directory = top / "dumps"
        place = (str(self.directory), "jeprof", str(top / "drop-in"), "/opt/jemalloc")
        self.made = profile.Plan(service, service, "prof:true", "text", *place)

    def plan(self, _run: object, wanted: profile.Wanted, _prefix: str) -> profile.Plan:
        """Stand for _profile.plan()."""
        self.wanted.append(wanted)
        if self.refused:
            raise JemallocError(self.refused)
        return self.made

    def record(self, *_arguments: t.Any) -> session.Outcome:
        """Stand for _profile_session.record()."""
        self.directory.mkdir()
        for number, data in enumerate(self.dumps):
            (self.directory / f"dump.{number}.0.i0.heap").write_bytes(data)
        for failure in self.failures:
            raise failure
        return self.outcome


@pytest.fixture
def lab(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, program: t.Callable[[str, str], pathlib.Path]) -> Lab:
    """Such a host."""
    this = Lab(tmp_path)
    monkeypatch.setattr(session, "LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(profile, "plan", this.plan)
    monkeypatch.setattr(session, "record", this.record)
    monkeypatch.setattr(session, "clear", lambda _run: this.cleared)
    rendered = render.Rendered({"0.txt": "packed"}, [("most", 19.4)], ["Something."])
    monkeypatch.setattr(render, "render", lambda _tool, _directory, _found, _limit: rendered)
    monkeypatch.setattr(host.Host, "warn", lambda _self, message: this.warnings.append(message))
    program("journalctl", "echo last words")
    program("systemd-run", 'exit "${STATUS:-0}"')
    program("systemctl", "")
    return this


GIVEN = {"unit": "puma", "directory": "/nowhere"}


def test_a_profile(call: Call, lab: Lab) -> None:
    assert call(module, **GIVEN, version="5.3.1", size_limit=2) == {
        "changed": True,
        "cleared": [],
        "unit": "puma.service",
        "version": "5.3.1",
        "began": "1970-01-01T000000Z",
        "seconds": 60.3,
        "early": "",
        "contents": {"0.txt": "packed"},
        "processes": [{"pid": 0, "program": "/usr/bin/ruby"}],
        "top": [{"function": "most", "mb": 19.4}],
        "left_out": ["Something."],
    }
    assert lab.wanted == [profile.Wanted("puma", "5.3.1", 26, 19, 2 << 20)]
    assert not lab.directory.exists()
    assert os.path.getsize(session.LOCK) == 0


def test_check_mode_predicts_it(call: Call, lab: Lab) -> None:
    found = call(module, _check=True, **GIVEN)
    assert (found["changed"], found["unit"], found["version"]) == (True, "puma.service", "5.3.1")
    assert (found["contents"], found["processes"], found["seconds"]) == ({}, [], 0.0)
    assert not lab.directory.exists()
    lab.refused = "unit: no."
    for check in (True, False):
        assert call(module, _check=check, **GIVEN) == {
            "failed": True,
            "msg": "unit: no.",
            "changed": False,
            "cleared": [],
        }


def test_without_a_guard_nothing_changes(call: Call, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATUS", "1")
    found = call(module, **GIVEN)
    assert (found["failed"], found["changed"]) == (True, False)
    assert found["msg"].startswith("Nothing was changed, as no guard for the way back could be started")
    assert not lab.directory.exists()


def test_what_was_cleared_is_a_change(call: Call, lab: Lab) -> None:
    lab.refused, lab.cleared = "unit: no.", ["old.service"]
    found = call(module, **GIVEN)
    assert (found["changed"], found["cleared"]) == (True, ["old.service"])


def test_a_profile_that_ended_early(call: Call, lab: Lab) -> None:
    lab.outcome = session.Outcome(0.0, 3.2, "it ended meanwhile, it is failed")
    found = call(module, **GIVEN)
    assert "failed" not in found
    assert lab.warnings == ["The profile of puma.service ended early: it ended meanwhile, it is failed."]


def test_no_dumps(call: Call, lab: Lab) -> None:
    lab.dumps = [DUMP[:-1]]
    found = call(module, **GIVEN)
    assert (found["failed"], found["changed"]) == (True, True)
    assert found["msg"] == (
        "unit: puma.service: none of its processes wrote a dump in 60.3 s, which each does after allocating 67108864 "
        "bytes: give a lower lg_prof_interval, or a longer duration; it runs again as before; its journal ends with: "
        "last words."
    )
    assert not lab.directory.exists()
    lab.outcome = session.Outcome(0.0, 3.2, "it ended meanwhile, it is failed")
    assert call(module, **GIVEN)["msg"].startswith(
        "unit: puma.service: it ended meanwhile, it is failed; it runs again as before; its"
    )


def test_no_dumps_and_no_journal(call: Call, lab: Lab, program: t.Callable[[str, str], pathlib.Path]) -> None:
    program("journalctl", "exit 1")
    lab.dumps = []
    assert call(module, **GIVEN)["msg"].endswith("or a longer duration; it runs again as before.")


def test_a_run_that_fails_leaves_no_dumps(call: Call, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.failures = [JemallocError("unit: puma.service: no; it runs again as before.")]
    found = call(module, **GIVEN)
    assert (found["failed"], found["changed"], found["msg"]) == (True, True, str(lab.failures[0]))
    assert not lab.directory.exists()
    lab.failures = [OSError(28, "No space left on device", "/run/x")]
    monkeypatch.setattr(session, "remove_dumps", lambda paths: paths[1:])
    found = call(module, **GIVEN)
    assert found["msg"] == "/run/x: No space left on device; the service runs as before; make room there."
    assert lab.warnings == [f"{lab.directory} is still written to; the next run removes it."]


def test_without_rights(call: Call, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    lab.failures = [PermissionError(13, "Permission denied")]
    assert call(module, **GIVEN)["msg"] == "this host: Permission denied; run this as root (become: true)."


@pytest.mark.parametrize("name", ["duration", "size_limit", "timeout"])
def test_numbers_have_to_mean_something(call: Call, lab: Lab, name: str) -> None:
    assert call(module, **GIVEN, **{name: 0})["msg"] == f"{name}: 0 is not a whole number from 1 on."


def test_a_version_is_a_number(call: Call, lab: Lab) -> None:
    assert "version" in call(module, **GIVEN, version="newest")["msg"]
    assert lab.wanted == []
