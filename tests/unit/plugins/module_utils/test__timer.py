# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the timer takes, what it refuses, and what it makes of systemd's answers."""

from __future__ import annotations

import os
import pathlib
import re
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _timer as timer
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError


@pytest.mark.parametrize("interval", ["10", "10s", "1min", "1h 30min", "1h30m", " 90 sec", "1d", "1day", "2 hours 1 s"])
def test_intervals(interval: str) -> None:
    assert timer.check_interval(interval) == interval


@pytest.mark.parametrize(
    ("unit", "seconds"),
    [
        ("s", 1),
        ("sec", 1),
        ("m", 60),
        ("min", 60),
        ("minutes", 60),
        ("h", 3600),
        ("hr", 3600),
        ("d", 86400),
        ("days", 86400),
    ],
)
def test_the_units_of_intervals_come_to_a_day(unit: str, seconds: int) -> None:
    whole = 86400 // seconds
    assert timer.check_interval(f"{whole}{unit}") == f"{whole}{unit}"
    rest = f"{whole - 1}{unit} {seconds}s"
    assert timer.check_interval(rest) == rest
    with pytest.raises(JemallocError, match=r"^interval: "):
        timer.check_interval(f"{whole - 1}{unit} {seconds + 1}s")


@pytest.mark.parametrize(
    "interval",
    [
        "",
        " ",
        "9s",
        "0",
        "2d",
        "25h",
        "5 parsecs",
        "1.5min",
        "-1min",
        "1min;",
        "1min\nUser=nobody",
        "1min\n",
        "1M",
        "%i",
    ],
)
def test_what_is_no_interval(interval: str) -> None:
    message = (
        f"interval: {interval!r} is no time span from 10 seconds to a day; write it as systemd does, such as 30s, 5min "
        "or 1h 30min."
    )
    with pytest.raises(JemallocError, match=f"^{re.escape(message)}$"):
        timer.check_interval(interval)


@pytest.mark.parametrize("directory", ["", "relative", "/a b", "/a/../b", "/a//b", '/a"', "/a%h", "/a\nb", "/"])
def test_what_is_no_directory(directory: str) -> None:
    with pytest.raises(JemallocError, match=r"^directory: .* cannot stand in a unit of systemd; name an absolute path"):
        timer.check_directory(directory)


def test_a_directory_that_is_not_there_is_not_refused(tmp_path: pathlib.Path) -> None:
    assert timer.refusal(str(tmp_path / "missing")) == ""


def test_directory(tmp_path: pathlib.Path) -> None:
    assert timer.check_directory(f"{tmp_path}/") == str(tmp_path)
    missing = f"{tmp_path}/missing"
    message = (
        f"directory: {missing} is not there, so no exporter reads it; install prometheus-node-exporter first, or name "
        "what your exporter has as --collector.textfile.directory."
    )
    with pytest.raises(JemallocError, match=f"^{re.escape(message)}$"):
        timer.check_directory(missing)


def test_only_who_has_to_may_write_everywhere(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def owned_by(uid: int) -> str:
        status = os.stat_result((0o40755, 1, 1, 1, uid, 0, 0, 0, 0, 0))
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", lambda _path: status)
            units = timer.texts("/usr/bin/python3", "/opt/jemalloc", str(tmp_path), "1min")
        found = re.search(r"^CapabilityBoundingSet=(.*)$", units[f"{timer.UNITS}/{timer.SERVICE}"], re.MULTILINE)
        return found.group(1) if found else ""

    assert owned_by(0) == "CAP_SYS_PTRACE CAP_CHECKPOINT_RESTORE CAP_DAC_READ_SEARCH"
    assert owned_by(115) == "CAP_SYS_PTRACE CAP_CHECKPOINT_RESTORE CAP_DAC_OVERRIDE"


SHOWN = "ActiveState={}\nNeedDaemonReload={}\nResult=success\n\nActiveState=inactive\nNeedDaemonReload={}\nResult={}\n"


@pytest.mark.parametrize(
    ("answers", "active", "reason"),
    [
        (("active", "no", "no", "success"), True, ""),
        (("inactive", "no", "no", "success"), False, "preload-jemalloc-metrics.timer is not active"),
        (("failed", "yes", "no", "success"), False, "preload-jemalloc-metrics.timer is not active"),
        (("active", "yes", "no", "success"), True, "systemd has not read the units since they were written"),
        (("active", "no", "yes", "success"), True, "systemd has not read the units since they were written"),
        (("active", "no", "no", "timeout"), True, "preload-jemalloc-metrics.service failed the last time"),
    ],
)
def test_state(tmp_path: pathlib.Path, answers: t.Tuple[str, ...], active: bool, reason: str) -> None:
    (tmp_path / "jemalloc.prom").write_text("x")
    found = timer.state(lambda *_arguments: (0, SHOWN.format(*answers)), str(tmp_path))
    assert found == timer.State(active, reason)


def test_metrics_that_were_removed(tmp_path: pathlib.Path) -> None:
    shown = SHOWN.format("active", "no", "no", "success")
    found = timer.state(lambda *_arguments: (0, shown), str(tmp_path))
    assert found == timer.State(True, f"there is no jemalloc.prom in {tmp_path}")


@pytest.mark.parametrize("answer", [(1, "Failed to connect to bus\n"), (0, "")])
def test_a_systemd_that_does_not_answer(tmp_path: pathlib.Path, answer: t.Tuple[int, str]) -> None:
    message = f"systemd answers {answer[1].strip()!r} when asked for preload-jemalloc-metrics.timer."
    with pytest.raises(JemallocError, match=f"^{re.escape(message)}$"):
        timer.state(lambda *_arguments: answer, str(tmp_path))
