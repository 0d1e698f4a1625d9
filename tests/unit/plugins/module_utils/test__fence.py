# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process is ended for certain, also a stopped one, and never another one with its number."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _fence as fence


@pytest.fixture
def stopped() -> t.Iterator[subprocess.Popen[bytes]]:
    """A process that was stopped."""
    process = subprocess.Popen(["sleep", "600"])
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    yield process
    process.kill()
    process.wait()


def no_pidfd(_pid: int) -> t.NoReturn:
    """Be a kernel that knows no descriptors of processes."""
    raise OSError(38, "Function not implemented")


@pytest.mark.parametrize("pidfd", [True, False])
def test_a_stopped_process_ends(stopped: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, pidfd: bool) -> None:
    if not pidfd:
        monkeypatch.setattr(os, "pidfd_open", no_pidfd)
    before = os.listdir("/proc/self/fd")
    fence.end(stopped.pid, fence.start_of(stopped.pid))
    assert stopped.wait() == -signal.SIGKILL
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("start", ["", "1"])
def test_another_process_with_its_number_is_left_alone(stopped: subprocess.Popen[bytes], start: str) -> None:
    fence.end(stopped.pid, start)
    assert stopped.poll() is None


def test_a_process_that_is_gone(stopped: subprocess.Popen[bytes]) -> None:
    start = fence.start_of(stopped.pid)
    stopped.kill()
    stopped.wait()
    assert fence.start_of(stopped.pid) == ""
    fence.end(stopped.pid, start)


def test_a_name_that_holds_anything(tmp_path: pathlib.Path) -> None:
    (tmp_path / "7").mkdir()
    fields = " ".join(str(number) for number in range(4, 53))
    (tmp_path / "7" / "stat").write_text(f"7 (a) b (c) S {fields}\n")
    assert fence.start_of(7, str(tmp_path)) == "22"


def test_the_clock_goes_on() -> None:
    assert fence.now() <= fence.now()
