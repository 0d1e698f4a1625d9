# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users' own systemd: which count, and that one which does not answer is asked once."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _managers as managers
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd


@pytest.mark.parametrize("status", managers.TIMED_OUT)
def test_a_users_systemd_that_does_not_answer_is_asked_once(status: int) -> None:
    calls: t.List[t.List[str]] = []
    warnings: t.List[str] = []

    def run(arguments: t.Sequence[str], *_how: t.Any) -> t.Tuple[int, str]:
        calls.append(list(arguments))
        return (status if "--reuid=65533" in arguments else 0), "said"

    ask = managers.asking_once(run, warnings.append)
    slow = [*managers.command(65533, 60), "restart", "--", "slow.service"]
    assert ask(slow, None, None) == (status, "said")  # the unit had that time
    assert warnings == []
    assert not managers.answers(ask, 65533)
    assert systemd.shown(ask, "own.service", ("MainPID",), 65533) == {}
    assert ask([*managers.command(65533, 60), "restart", "--", "own.service"], None, None) == (124, "")
    assert [words[:43] for words in warnings] == ["The systemd of user 65533 does not answer w"]
    assert managers.answers(ask, 65532)
    assert ask(["systemctl", "show"], None, None) == (0, "said")
    assert [call[-1] for call in calls] == ["slow.service", "--property=Version", "--property=Version", "show"]


def test_user_managers(tmp_path: pathlib.Path) -> None:
    own = os.getuid()
    names = (str(own), str(own + 1), f"{own + 2}", f"{own + 3}", "x")
    for name in names:
        (tmp_path / "run/user" / name / "systemd").mkdir(parents=True)
    path = tmp_path / "run/user" / str(own) / "systemd" / "private"
    assert managers.user_managers(str(tmp_path)) == []
    with contextlib.ExitStack() as stack:
        for name in (names[0], names[1], names[4]):  # the second one belongs to another user than it says
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            directory = os.open(str(tmp_path / "run/user" / name / "systemd"), os.O_PATH)
            stack.callback(os.close, directory)
            listening.bind(f"/proc/self/fd/{directory}/private")
        (tmp_path / "run/user" / names[2] / "systemd" / "private").write_text("")
        (tmp_path / "run/user" / names[3] / "systemd" / "private").symlink_to(path)
        assert managers.user_managers(str(tmp_path)) == [own]
