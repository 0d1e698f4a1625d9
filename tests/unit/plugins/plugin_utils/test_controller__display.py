# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines for people: on standard output, on standard error, or nowhere, by the callback that owns standard output."""

from __future__ import annotations

import contextlib
import time
import typing as t
from unittest import mock

import pytest
from ansible import constants

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _display as display


def said(monkeypatch: pytest.MonkeyPatch, callback: str, **options: t.Any) -> list[t.Any]:
    """Return how a line is displayed with a callback."""
    shown = mock.MagicMock()
    monkeypatch.setattr(display, "_DISPLAY", shown)
    monkeypatch.setattr(constants, "DEFAULT_STDOUT_CALLBACK", callback)
    display.say("one", **options)
    return list(shown.display.mock_calls)


@pytest.mark.parametrize("callback", ["default", "ansible.builtin.default", "community.general.yaml", "awx_display"])
def test_people_read_standard_output(monkeypatch: pytest.MonkeyPatch, callback: str) -> None:
    assert said(monkeypatch, callback, newline=False) == [mock.call("one", stderr=False, newline=False)]


@pytest.mark.parametrize("callback", ["json", "ansible.posix.json", "ansible.posix.jsonl", "community.general.null"])
def test_machines_get_the_result_only(monkeypatch: pytest.MonkeyPatch, callback: str) -> None:
    assert said(monkeypatch, callback) == []


@pytest.mark.parametrize("callback", ["acme.tools.pretty", "tree", ""])
def test_a_callback_that_is_not_known_keeps_standard_output(monkeypatch: pytest.MonkeyPatch, callback: str) -> None:
    assert said(monkeypatch, callback) == [mock.call("one", stderr=True)]


def test_what_goes_on_is_said_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(display, "say", lines.append)
    with display.going_on("web1: building"):
        pass
    assert lines == []
    monkeypatch.setattr(display, "INTERVAL", 0.01)
    with contextlib.suppress(KeyError), display.going_on("web1: building"):
        while len(lines) < 2:
            time.sleep(0.01)
        raise KeyError
    count = len(lines)
    time.sleep(0.05)
    assert lines == ["web1: building (0 s)"] * count


def test_the_progress_of_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[t.Any] = []
    monkeypatch.setattr(display, "say", lambda words, **more: shown.append((words, more)))
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    progress = display.progress("web1: 5.3.1")
    for come, total in ((512 << 10, 1 << 20), (1 << 20, 1 << 20), (2048, 0)):
        progress(come, total)
    assert [words for words, _more in shown] == [
        "web1: 5.3.1: 50 % downloaded",
        "web1: 5.3.1: 100 % downloaded",
        "web1: 5.3.1: 2 KiB downloaded",
    ]
    shown.clear()
    monkeypatch.setattr(display, "_TERMINAL", True)
    progress = display.progress("web1: 5.3.1")
    progress(512 << 10, 1 << 20)
    progress(1 << 20, 1 << 20)
    assert shown == [
        (f"\rweb1: 5.3.1 [{'#' * 15:30}] 50 %", {"screen_only": True, "newline": False}),
        (f"\rweb1: 5.3.1 [{'#' * 30}] 100 %", {"screen_only": True, "newline": True}),
    ]


def test_no_callback_is_for_both() -> None:
    assert set() == display.FOR_PEOPLE & display.FOR_MACHINES
