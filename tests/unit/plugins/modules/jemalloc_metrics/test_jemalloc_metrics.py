# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc_metrics, run as a whole; its systemctl is a script that really runs the program."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest
import yaml

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes
from ansible_collections.preload.jemalloc.plugins.module_utils import _exporter as exporter
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _timer as timer
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_metrics as module
from tests.unit.plugins.modules.jemalloc_metrics.conftest import FILES, Call, Lab, Snapshot, files_of


def test_four_beats(run: Call, lab: Lab, snapshot: Snapshot) -> None:
    before = snapshot(lab.root)
    predicted = run(_check=True)
    assert snapshot(lab.root) == before
    assert lab.calls() == ["show"]
    done = run()
    assert predicted == done
    assert (done["changed"], done["files"]) == (True, [f"{lab.root}{path}" for path in FILES])
    assert (done["metrics"], done["reason"]) == (str(lab.metrics), "")
    assert [entry["before"] for entry in done["diff"]] == [""] * 4
    assert done["diff"][0]["after"].startswith("program, SHA-256 ")
    assert done["diff"][3]["after"] == f"link to {lab.root}{FILES[2]}\n"
    assert lab.calls()[2:] == [
        "daemon-reload",
        "restart preload-jemalloc-metrics.service",
        "restart preload-jemalloc-metrics.timer",
    ]
    assert files_of(lab) == sorted([*FILES, "/var/textfile/jemalloc.prom"])
    assert "jemalloc_collect_duration_seconds " in lab.metrics.read_text()
    after = snapshot(lab.root)
    for check in (True, False):
        again = run(_check=check)
        assert (again["changed"], again["files"], again["diff"]) == (False, [], [])
        assert lab.calls() == ["show"]
    assert snapshot(lab.root) == after


def test_absent(run: Call, lab: Lab, snapshot: Snapshot) -> None:
    before = files_of(lab)
    run()
    there = snapshot(lab.root)
    predicted = run(_check=True, state="absent", directory="/elsewhere")
    assert snapshot(lab.root) == there
    lab.calls()
    done = run(state="absent", directory="/elsewhere")
    assert predicted == done
    assert sorted(done["files"]) == sorted(f"{lab.root}{path}" for path in [*FILES, "/var/textfile/jemalloc.prom"])
    assert {entry["after"] for entry in done["diff"]} == {""}
    assert done["diff"][-1]["before"] == "metrics\n"
    assert (done["metrics"], done["reason"]) == ("", "")
    assert lab.calls() == [
        "stop preload-jemalloc-metrics.timer preload-jemalloc-metrics.service",
        "daemon-reload",
        "reset-failed preload-jemalloc-metrics.service",
    ]
    assert files_of(lab) == before
    assert not (lab.root / "usr/local/lib/preload-jemalloc").exists()
    assert lab.directory.is_dir()
    again = run(state="absent")
    assert (again["changed"], lab.calls()) == (False, [])


def test_what_is_left_of_it_goes_too(run: Call, lab: Lab) -> None:
    lab.metrics.write_text("left")
    assert run(state="absent")["files"] == [str(lab.metrics)]
    assert (lab.metrics.exists(), lab.calls()) == (False, [])


def test_another_directory_takes_the_metrics_along(run: Call, lab: Lab) -> None:
    run()
    other = lab.root / "var/other"
    other.mkdir()
    done = run(directory=str(other), interval="5min")
    service, plan = (f"{lab.root}{path}" for path in FILES[1:3])
    assert done["files"] == [service, plan, str(lab.metrics)]
    assert not lab.metrics.exists()
    assert (other / "jemalloc.prom").exists()
    assert "\nOnUnitActiveSec=5min\n" in pathlib.Path(plan).read_text()
    assert run(directory=str(other), interval="5min")["changed"] is False


@pytest.mark.parametrize("check", [True, False])
def test_a_timer_that_was_stopped(run: Call, lab: Lab, check: bool) -> None:
    run()
    (lab.state / "active").unlink()
    done = run(_check=check)
    assert (done["changed"], done["files"]) == (True, [])
    assert done["reason"] == "preload-jemalloc-metrics.timer is not active"
    assert (lab.state / "active").exists() is not check


def test_a_first_run_that_fails_leaves_nothing(run: Call, lab: Lab) -> None:
    before = files_of(lab)
    (lab.state / "refuse-preload-jemalloc-metrics.timer").touch()
    found = run()
    assert found["msg"] == (
        "systemctl restart preload-jemalloc-metrics.timer ended with 1 (Unit preload-jemalloc-metrics.timer is "
        "refused); all files are as before; its journal ends with: Starting."
    )
    assert (found["failed"], found["files"]) == (True, [])
    assert files_of(lab) == before
    assert not (lab.root / "usr/local/lib/preload-jemalloc").exists()
    assert "stop preload-jemalloc-metrics.timer" in lab.calls()


def test_an_update_that_fails_is_taken_back(run: Call, lab: Lab, snapshot: Snapshot) -> None:
    run()
    before = snapshot(lab.root)
    (lab.state / "idle").touch()
    found = run(prefix=f"{lab.root}/opt/other")
    assert found["msg"] == (
        f"preload-jemalloc-metrics.service ran, but there is no new {lab.metrics}; all files are as before; its "
        "journal ends with: Starting."
    )
    after = snapshot(lab.root)
    assert {path: kept[1] for path, kept in after.items()} == {path: kept[1] for path, kept in before.items()}
    assert lab.calls()[-3:] == [
        "daemon-reload",
        "restart preload-jemalloc-metrics.timer",
        "reset-failed preload-jemalloc-metrics.service",
    ]


def test_a_service_that_fails(run: Call, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_MAIN", "import sys\nsys.stderr.write('no way.')\nsys.exit(1)\n")
    assert run()["msg"] == (
        "systemctl restart preload-jemalloc-metrics.service ended with 1 (Job for preload-jemalloc-metrics.service "
        "failed because the control process exited with error code); all files are as before; its journal ends with: "
        "Starting / no way."
    )
    assert files_of(lab) == []
    assert not (lab.state / "failed").exists()


def test_metrics_that_are_not_complete(run: Call, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_MAIN", f"open({str(lab.metrics)!r}, 'w').write('half')\n")
    assert run()["msg"].startswith(
        f"preload-jemalloc-metrics.service ran, but what it wrote into {lab.metrics} is not complete; all files are as "
    )
    assert files_of(lab) == []


def test_a_service_that_failed_since_is_run_again(run: Call, lab: Lab) -> None:
    run()
    (lab.state / "failed").touch()
    assert run()["reason"] == "preload-jemalloc-metrics.service failed the last time"
    assert run()["changed"] is False


def test_a_systemd_that_does_not_read_its_files(run: Call, lab: Lab) -> None:
    (lab.state / "refuse-daemon-reload").touch()
    assert run()["msg"] == "systemctl daemon-reload ended with 4: Access denied; all files are as before."
    assert files_of(lab) == []


def test_a_timer_that_cannot_be_stopped_stays(run: Call, lab: Lab, snapshot: Snapshot) -> None:
    run()
    before = snapshot(lab.root)
    (lab.state / "refuse-stop").touch()
    message = (
        "systemctl stop preload-jemalloc-metrics.timer preload-jemalloc-metrics.service ended with 4 (Access denied)"
    )
    assert run(state="absent")["msg"] == message
    assert snapshot(lab.root) == before


@pytest.mark.parametrize(("state", "systemd"), [("present", True), ("absent", True), ("absent", False)])
def test_files_that_cannot_be_changed(
    run: Call, lab: Lab, monkeypatch: pytest.MonkeyPatch, state: str, systemd: bool
) -> None:
    if state == "absent":
        run()
    if not systemd:
        (lab.root / "run/systemd/system").rmdir()
    before = files_of(lab)

    def fail(change: changes.Change) -> t.NoReturn:
        raise OSError(28, "No space left on device", change.path)

    monkeypatch.setattr(changes, "_sync", fail)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    lab.calls()
    assert run(state=state)["msg"].endswith("No space left on device; all files are as before; make room there.")
    assert files_of(lab) == before
    assert (lab.state / "active").exists() is (state == "absent")
    assert bool(lab.calls()) is systemd


@pytest.mark.parametrize("check", [True, False])
def test_a_masked_timer(run: Call, lab: Lab, check: bool) -> None:
    path = lab.root / FILES[2].lstrip("/")
    path.symlink_to("/dev/null")
    message = f"{path} is a link to /dev/null, as systemctl mask makes it; remove it, or set state: absent."
    assert run(_check=check)["msg"] == message
    assert run(_check=check, state="absent")["files"] == [str(path)]
    assert path.is_symlink() is check


@pytest.mark.parametrize("check", [True, False])
def test_without_systemd(run: Call, lab: Lab, check: bool) -> None:
    run()
    (lab.root / "run/systemd/system").rmdir()
    assert run(_check=check)["msg"] == (
        "state: systemd is not the init of this host, and metrics need its timers; set it absent."
    )
    lab.calls()
    assert run(_check=check, state="absent")["changed"] is True
    assert lab.calls() == []


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"directory": "/nowhere/at/all"}, "directory: /nowhere/at/all is not there, so no exporter reads it; "),
        ({"interval": "often"}, "interval: 'often' is no time span from 10 seconds to a day; "),
        ({"prefix": "/a b"}, "prefix: '/a b' cannot hold the store; "),
    ],
)
def test_errors(
    run: Call, lab: Lab, snapshot: Snapshot, check: bool, arguments: t.Dict[str, t.Any], message: str
) -> None:
    before = snapshot(lab.root)
    found = run(_check=check, **arguments)
    assert (found["failed"], found["files"]) == (True, [])
    assert found["msg"].startswith(message)
    assert snapshot(lab.root) == before


def test_without_permission(run: Call, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: str) -> t.NoReturn:
        raise PermissionError(13, "Permission denied", "/run/lock")

    monkeypatch.setattr(files, "lock", fail)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run()["msg"] == "/run/lock: Permission denied; run this as root (become: true)."


def test_another_run_was_faster(run: Call, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = changes.locked

    def locked() -> t.Any:
        with monkeypatch.context() as patch:
            patch.setattr(changes, "locked", taken)
            assert run()["changed"] is True
        return taken()

    monkeypatch.setattr(changes, "locked", locked)
    lab.calls()
    assert run()["changed"] is False


def test_what_a_killed_run_left_is_cleared(run: Call, lab: Lab) -> None:
    left = [
        lab.root / "etc/systemd/system/.preload-jemalloc-metrics.timer.preload-jemalloc",
        lab.root / "etc/systemd/system/timers.target.wants/.preload-jemalloc-metrics.timer.kept.preload-jemalloc",
        lab.directory / ".jemalloc.prom.preload-jemalloc",
    ]
    for path in left:
        path.write_text("left")
    run()
    assert [path for path in left if path.exists()] == []


def test_nobody_else_can_write(run: Call, lab: Lab) -> None:
    run()
    modes = {path.lstat().st_mode & 0o7777 for path in lab.root.rglob("*") if path.is_file() and not path.is_symlink()}
    assert modes == {0o644}
    assert (lab.root / "usr/local/lib/preload-jemalloc").stat().st_mode & 0o7777 == 0o755


def test_the_documentation_names_the_results(run: Call, lab: Lab) -> None:
    assert module.ARGUMENTS["directory"]["default"] == timer.DIRECTORY
    assert set(yaml.safe_load(module.RETURN)) == set(run()) - {"changed", "diff"}
