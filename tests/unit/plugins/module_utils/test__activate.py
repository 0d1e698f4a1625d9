# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When systemd, and that of users, reads its files again."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _activate as activate
from ansible_collections.preload.jemalloc.plugins.module_utils import _labels as labels
from ansible_collections.preload.jemalloc.plugins.module_utils import _managers as managers
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils._changes import Change, Lock

USER = 65533
SERVICE = Change("/etc/systemd/system/a.service.d/x.conf", None, "")
LOGIN = Change("/etc/environment", None, "")


class Host:
    """Remembers what it runs."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.silent = False
        self.calls: t.List[t.List[str]] = []
        self.warnings: t.List[str] = []

    def warn(self, message: str) -> None:
        """Remember what is said."""
        self.warnings.append(message)

    def run(self, arguments: t.Sequence[str], *_how: t.Any) -> t.Tuple[int, str]:
        """Run a command."""
        self.calls.append(list(arguments))
        if self.silent and arguments[0] == "timeout":
            return 124, ""
        return self.status, "no bus\n" if self.status else ""


SYSTEM, OF_USER = ["systemctl", "daemon-reload"], [*managers.command(USER), "daemon-reload"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], []),
        ([LOGIN], []),
        ([LOGIN, SERVICE], [SYSTEM]),
        (None, [SYSTEM, OF_USER]),
        (["user"], [SYSTEM, OF_USER]),
    ],
)
def test_reload(root: pathlib.Path, monkeypatch: pytest.MonkeyPatch, changes: t.Any, expected: t.Any) -> None:
    monkeypatch.setattr(managers, "user_managers", lambda: [USER])
    if changes == ["user"]:
        changes = [Change(places.drop_in_path("own.service", user=True), None, "")]
    host = Host()
    assert activate.reload_systemd(t.cast(t.Any, host), changes) == ""
    assert host.calls == expected


def test_users_are_not_asked_where_nothing_is_theirs(root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managers, "user_managers", lambda: [USER])
    host = Host()
    assert activate.reload_systemd(t.cast(t.Any, host), None, users=False) == ""
    assert host.calls == [SYSTEM]


def test_a_user_whose_systemd_does_not_answer(root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managers, "user_managers", lambda: [USER, USER + 1])
    host = Host()
    host.silent = True
    assert activate.reload_systemd(t.cast(t.Any, host), None) == ""
    assert len(host.calls) == 3
    assert host.warnings == [
        f"The systemd of user {user} does not answer within 5 s, so it is left alone, and its services run as they did."
        f" End it with 'systemctl stop user@{user}.service', and run this again."
        for user in (USER, USER + 1)
    ]


def test_reload_that_fails(root: pathlib.Path) -> None:
    said = activate.reload_systemd(t.cast(t.Any, Host(1)), [SERVICE])
    assert said == "systemctl daemon-reload ended with 1: no bus"


def test_nothing_is_reloaded_without_systemd(root: pathlib.Path) -> None:
    (root / "run/systemd/system").rmdir()
    host = Host()
    assert activate.reload_systemd(t.cast(t.Any, host), None) == ""
    assert host.calls == []


def test_what_the_watchdog_writes_is_labelled(
    root: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, change = Host(), Change(places.list_path(), None, "/opt/jemalloc/current/lib/libjemalloc.so::\n")
    (tmp_path / "enforce").write_text("1")
    monkeypatch.setattr(labels, "_ENFORCE", str(tmp_path / "enforce"))
    monkeypatch.setattr(activate, "watch", lambda change, _prefix, _lock: host.calls.append(["watch", change.path]))
    activate.carry_out(t.cast(t.Any, host), [change], "/opt/jemalloc", Lock(0))
    assert host.calls == [["watch", change.path], ["restorecon", "-R", change.path]]
