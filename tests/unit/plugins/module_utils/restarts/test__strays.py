# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs with the library though no scope wants that, in a made-up /proc and by a made-up systemctl."""

from __future__ import annotations

import os
import pathlib
import shutil
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _strays as strays
from tests.unit.conftest import Proc, put

PREFIX = "/opt/jemalloc"
LIBRARY = f"{PREFIX}/5.3.1/lib/libjemalloc.so.2"
LD_PRELOAD = {"LD_PRELOAD": f"/a.so:{PREFIX}/current/lib/libjemalloc.so"}
PUMA = strays.Stray("puma.service", None, 1, "")


class Systemctl:
    """A systemctl, with what it says of each unit beside what is usual."""

    def __init__(self) -> None:
        self.units: t.Dict[str, t.Dict[str, str]] = {}
        self.calls: t.List[str] = []

    def __call__(self, arguments: t.Sequence[str], *_more: t.Any) -> t.Tuple[int, str]:
        """Answer a question."""
        self.calls.append(" ".join(arguments))
        names = arguments[arguments.index("--") + 1 :]
        usual = {"ActiveState": "active", "Type": "simple", "KillMode": "control-group", "MainPID": "100"}
        blocks = [{"Names": name, **usual, **self.units.get(name, {})} for name in names]
        return 0, "\n\n".join("\n".join(f"{key}={value}" for key, value in block.items()) for block in blocks)


@pytest.fixture
def systemctl() -> Systemctl:
    """Such a systemctl."""
    return Systemctl()


def found(systemctl: Systemctl, *known: str, **more: t.Any) -> t.List[strays.Stray]:
    """Return the strays where scopes speak of these units of the host."""
    return strays.find(systemctl, {(name, False) for name in known}, PREFIX, **more)


def why(found: t.Sequence[strays.Stray]) -> t.Dict[str, str]:
    """Return why each unit is not restarted."""
    return {each.unit: each.why for each in found}


def test_a_service_that_nobody_wants_to_run_with_it(root: pathlib.Path, proc: Proc, systemctl: Systemctl) -> None:
    proc.add(100, LIBRARY)
    proc.add(101, LIBRARY, unit="app@1.service")
    proc.add(102, "/lib/libc.so.6", unit="own.service")
    proc.add(103, LIBRARY, cgroup=f"0::/system.slice/docker-{'a' * 64}.scope\n")
    proc.add(104, LIBRARY, cgroup="0::/user.slice/user-1000.slice/session-3.scope\n")
    proc.add(105, "/srv/jemalloc/5.3.1/lib/libjemalloc.so.2", unit="own.service", environment=LD_PRELOAD)
    (proc.top / "meminfo").write_text("")
    assert found(systemctl, "app@.service") == [PUMA]
    assert found(systemctl, "app@1.service", "puma.service") == []
    assert [each.unit for each in found(systemctl)] == ["puma.service"]  # app@1: its main process is another one
    assert systemctl.calls[0].endswith(" -- puma.service")
    (root / "run/systemd/system").rmdir()
    assert found(systemctl) == []


def test_a_library_that_was_removed_counts(root: pathlib.Path, proc: Proc, systemctl: Systemctl) -> None:
    proc.add(100, f"{LIBRARY} (deleted)")
    assert found(systemctl) == [PUMA]


ENVIRONMENT_FILE = {"EnvironmentFiles": "/etc/default/puma (ignore_errors=yes)"}


@pytest.mark.parametrize(
    ("unit", "properties", "reason"),
    [
        ("puma.service", {}, ""),
        ("puma.service", {"MainPID": "0"}, ""),
        ("puma.service", {"KillMode": "process"}, ""),
        ("dbus.service", {}, "a restart would end sessions or containers, or cut the host off"),
        ("serial-getty@tty.service", {}, "a restart would end sessions or containers, or cut the host off"),
        ("puma.service", {"ActiveState": "deactivating"}, "it is deactivating"),
        ("puma.service", {"ActiveState": ""}, "it is not known to systemd"),
        ("puma.service", {"Type": "oneshot"}, "it is a job"),
        ("puma.service", {"RefuseManualStop": "yes"}, "systemd refuses to restart it"),
        ("puma.service", {"RefuseManualStart": "yes"}, "systemd refuses to restart it"),
        (
            "puma.service",
            {"MainPID": "99"},
            "its main process runs without the library, so a restart changes nothing",
        ),
        (
            "puma.service",
            {"Environment": f"A=1 LD_PRELOAD={PREFIX}/current/lib/libjemalloc.so"},
            "it starts with the library by other means",
        ),
        (
            "puma.service",
            {"ExecStart": "{ path=/usr/local/bin/jemalloc.sh ; argv[]=/usr/local/bin/jemalloc.sh puma ; }"},
            "it starts with the library by other means",
        ),
        (
            "puma.service",
            {"ExecStart": "{ path=/usr/bin/puma ; argv[]=/usr/bin/env no-jemalloc.sh puma ; }"},
            "",
        ),
    ],
)
def test_what_is_not_restarted(
    root: pathlib.Path, proc: Proc, systemctl: Systemctl, unit: str, properties: t.Dict[str, str], reason: str
) -> None:
    proc.add(100, LIBRARY, unit=unit)
    systemctl.units[unit] = properties
    assert why(found(systemctl)) == ({} if reason else {unit: ""})
    assert why(found(systemctl, everything=True)) == {unit: reason}


@pytest.mark.parametrize(
    ("text", "restarts"), [("LD_PRELOAD=/opt/jemalloc/current/lib/x.so\n", False), ("LD_PRELOAD=/a.so\n", True)]
)
def test_an_environment_file(
    root: pathlib.Path, proc: Proc, systemctl: Systemctl, tmp_path: pathlib.Path, text: str, restarts: bool
) -> None:
    proc.add(100, LIBRARY)
    path = put(tmp_path / "puma", text)
    systemctl.units["puma.service"] = {
        "EnvironmentFiles": f"/missing (ignore_errors=yes)\nEnvironmentFiles={path} (ignore_errors=no)"
    }
    assert bool(found(systemctl)) == restarts


@pytest.mark.parametrize(
    ("text", "restarts"),
    [
        (b"#!/bin/sh\nexec jemalloc.sh puma\n", False),
        (b"#!/bin/sh\nLD_PRELOAD=/opt/jemalloc/current/lib/x.so exec puma\n", False),
        (b"#!/bin/sh\nexec puma\n", True),
        (b"\x7fELF jemalloc.sh", True),
    ],
)
def test_a_script_that_starts_it(
    root: pathlib.Path, proc: Proc, systemctl: Systemctl, tmp_path: pathlib.Path, text: bytes, restarts: bool
) -> None:
    proc.add(100, LIBRARY)
    path = tmp_path / "start"
    path.write_bytes(text)
    systemctl.units["puma.service"] = {"ExecStart": f"{{ path={path} ; argv[]={path} }} {{ path=/missing ; }}"}
    assert bool(found(systemctl)) == restarts


def test_a_program_that_is_linked_with_it(
    root: pathlib.Path, proc: Proc, systemctl: Systemctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc.add(100, LIBRARY, program=pathlib.Path(os.path.realpath("/bin/true")).read_bytes())
    assert found(systemctl) == [PUMA]
    from ansible_collections.preload.jemalloc.plugins.module_utils import _elf as elf

    monkeypatch.setattr(elf, "read", lambda _path: elf.Elf(64, "<", 62, "", ("libc.so.6", "libjemalloc.so.2")))
    assert found(systemctl) == []
    shutil.rmtree(proc.top)


MANAGER = "# preload.jemalloc\n[Manager]\nDefaultEnvironment=LD_PRELOAD=/opt/jemalloc/current/lib/libjemalloc.so\n"
LINE = "/opt/jemalloc/current/lib/libjemalloc.so::\n"


@pytest.mark.parametrize(("name", "text"), [("manager_path", MANAGER), ("list_path", LINE)])
def test_where_the_whole_host_has_it_nothing_is_a_stray(
    root: pathlib.Path, proc: Proc, systemctl: Systemctl, name: str, text: str
) -> None:
    proc.add(100, LIBRARY)
    path = getattr(places, name)()
    assert found(systemctl, changes=[changes_util.Change(path, None, text)]) == []
    put(pathlib.Path(path), text)
    assert found(systemctl) == []
    assert found(systemctl, changes=[changes_util.Change(path, text, None)]) == [PUMA]


def test_what_others_set_for_the_whole_host(root: pathlib.Path, proc: Proc, systemctl: Systemctl) -> None:
    proc.add(100, LIBRARY)
    put(root / "etc/systemd/system.conf", MANAGER)
    assert found(systemctl) == []
    assert why(found(systemctl, everything=True)) == {"puma.service": "it starts with the library by other means"}


def test_services_of_users(root: pathlib.Path, proc: Proc, systemctl: Systemctl) -> None:
    manager = "/user.slice/user-1000.slice/user@1000.service"
    proc.add(100, LIBRARY, cgroup=f"0::{manager}/app.slice/agent.service\n")
    assert found(systemctl) == [strays.Stray("agent.service", 1000, 1, "")]
    assert "--user" in systemctl.calls[0]
    assert strays.find(systemctl, {("agent.service", True)}, PREFIX) == []
    assert len(strays.find(systemctl, {("agent.service", False)}, PREFIX)) == 1
    proc.add(101, LIBRARY, cgroup=f"0::{manager}/init.scope\n")
    assert found(systemctl) == []
    shown = [str(each) for each in found(systemctl, everything=True)]
    assert shown == [
        "agent.service of user 1000 (1 process; the systemd of its user runs with the library, until that user's last "
        "session ends)",
        "init.scope of user 1000 (1 process; it is no service)",
    ]


def test_everything(root: pathlib.Path, proc: Proc, systemctl: Systemctl) -> None:
    proc.add(100, LIBRARY)
    proc.add(101, "/bin/static", unit="static.service", environment=LD_PRELOAD)
    for pid in (102, 103):
        proc.add(pid, LIBRARY, cgroup="0::/user.slice/user-1000.slice/session-3.scope\n")
    proc.add(104, "/bin/sh", cgroup="0::/\n", environment=LD_PRELOAD)
    shown = [str(each) for each in found(systemctl, everything=True)]
    assert shown == [
        "no unit (1 process; it is no service)",
        "puma.service (1 process; )",
        "session-3.scope (2 processes; it is no service)",
        "static.service (1 process; only its LD_PRELOAD names the library; restart it)",
    ]
    (root / "run/systemd/system").rmdir()
    assert len(found(systemctl, everything=True)) == 4


def test_this_run_itself_is_left_out(root: pathlib.Path, proc: Proc, systemctl: Systemctl) -> None:
    session = "0::/user.slice/user-1000.slice/session-3.scope\n"
    for pid, parent in ((90, 1), (91, 90), (92, 91)):
        stat = proc.add(pid, LIBRARY, cgroup=session) / "stat"
        stat.write_text(f"{pid} (a) b) S {parent} 1 1 0\n")
    (proc.top / "self").symlink_to("92")
    assert found(systemctl, everything=True) == []


@pytest.mark.parametrize(("kill_mode", "reason"), [("control-group", "this run belongs to it"), ("process", "")])
def test_the_service_of_this_run(
    root: pathlib.Path, proc: Proc, systemctl: Systemctl, kill_mode: str, reason: str
) -> None:
    proc.add(100, LIBRARY, unit="ssh.service")
    (proc.add(101, LIBRARY, unit="ssh.service") / "stat").write_text("101 (python3) S 100 1\n")
    (proc.top / "self").symlink_to("101")
    (proc.top / "100" / "stat").write_text("100 (sshd) S 1 1\n")
    systemctl.units["ssh.service"] = {"KillMode": kill_mode}
    assert why(found(systemctl)) == ({} if reason else {"ssh.service": ""})


def test_what_cannot_be_read_is_passed_over(root: pathlib.Path, proc: Proc, systemctl: Systemctl) -> None:
    (proc.add(100, LIBRARY) / "maps").unlink()
    assert found(systemctl, everything=True) == []
