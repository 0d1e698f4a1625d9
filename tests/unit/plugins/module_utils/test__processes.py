# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof, read from a made-up /proc and from the real one."""

from __future__ import annotations

import builtins
import os
import pathlib
import subprocess
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

PREFIX = "/opt/jemalloc"
LINE = "7f0000000000-7f0000001000 r-xp 00000000 08:01 123456    {}\n"
LIBRARY = LINE.format("/opt/jemalloc/5.3.1/lib/libjemalloc.so.2")


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("0::/system.slice/puma.service\n", "puma.service"),
        ("0::/system.slice/system-sidekiq.slice/sidekiq@1.service\n", "sidekiq@1.service"),
        ("0::/system.slice/puma.service/workers/1\n", "puma.service"),
        ("12:cpu,cpuacct:/system.slice\n1:name=systemd:/system.slice/puma.service\n0::/\n", "puma.service"),
        ("12:cpu,cpuacct:/system.slice/puma.service\n1:name=systemd:/user.slice\n", None),
        ("0::/system.slice/__hidden.service\n", "_hidden.service"),
        ("0::/system.slice/xpuma.service\n", None),
        ("0::/user.slice/user-0.slice/session-1.scope\n", None),
        ("0::/\n", None),
        ("", None),
        ("0::/a:b/puma.service\n", "puma.service"),
    ],
)
def test_member_of(cgroup: str, expected: t.Optional[str]) -> None:
    units = [(name, False) for name in ("puma.service", "sidekiq@1.service", "_hidden.service")]
    assert processes.member_of(cgroup, units) == (processes.Member(expected, expected) if expected else None)


USER = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/{}\n"


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("0::/system.slice/system-job.slice/job@a.service\n", processes.Member("job@.service", "job@a.service")),
        ("0::/system.slice/system-job.slice/job@b.service\n", processes.Member("job@b.service", "job@b.service")),
        (USER.format("own.service"), processes.Member("own.service", "own.service", 1000)),
        (USER.format("job@a.service"), None),
        ("0::/system.slice/own.service\n", None),
        (USER.format("puma.service"), processes.Member("user@1000.service", "user@1000.service")),
        # groups that a service with Delegate= made, with the names of others
        (USER.format("x.service/own.service"), None),
        (USER.format("own.service/user@0.service/own.service"), processes.Member("own.service", "own.service", 1000)),
        ("0::/system.slice/x.service/job@b.service\n", None),
        ("0::/system.slice/x.service/user@0.service/own.service\n", None),
    ],
)
def test_templates_and_units_of_users(cgroup: str, expected: t.Optional[processes.Member]) -> None:
    units = [("job@.service", False), ("job@b.service", False), ("own.service", True), ("puma.service", False)]
    if expected and expected.name.startswith("user@"):
        units.append(("user@1000.service", False))
    assert processes.member_of(cgroup, units) == expected


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        ("", set()),
        (LINE.format("/usr/lib/x86_64-linux-gnu/libc.so.6"), set()),
        (LIBRARY, {"5.3.1"}),
        (LIBRARY * 5, {"5.3.1"}),
        (LINE.format("/opt/jemalloc/3.6.0/lib/libjemalloc.so.1"), {"3.6.0"}),
        (LIBRARY + LINE.format("/opt/jemalloc/5.1.0/lib/libjemalloc.so.2"), {"5.3.1", "5.1.0"}),
        (LIBRARY.replace("\n", " (deleted)\n"), {processes.DELETED}),
        (LINE.format("/opt/jemalloc/.staging/tmpx/root/opt/jemalloc/5.3.1/lib/libjemalloc.so.2"), {processes.DELETED}),
        (LINE.format("/opt/jemalloc2/5.3.1/lib/libjemalloc.so.2"), set()),
        (LINE.format("/srv/opt/jemalloc/5.3.1/lib/libjemalloc.so.2"), set()),
        (LINE.format("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"), set()),
        (LINE.format("/opt/jemalloc/5.3.1/bin/jeprof"), set()),
        (LIBRARY.rstrip(), {"5.3.1"}),
        (LIBRARY.replace("r-xp", "r--p"), set()),
        (LIBRARY.replace("r-xp", "rw-p") + LIBRARY, {"5.3.1"}),
        (LIBRARY.replace("r-xp", "rwxp"), {"5.3.1"}),
    ],
)
def test_mapped(maps: str, expected: t.Set[str]) -> None:
    assert processes.mapped(maps.encode(), PREFIX) == expected


def test_code() -> None:
    segments = "".join(LIBRARY.replace("r-xp", mode) for mode in ("r--p", "r-xp", "rw-p"))
    gone = LINE.format("/a/x.so (deleted)") + LINE.format("/b/x.so").rstrip()
    maps = (segments + "7f00-7f01 r-xp 00000000 00:00 0 [x.so]\n" + gone).encode()
    assert list(processes.code(maps, b"x.so")) == [(b"/b/x.so", False), (b"/a/x.so", True)]
    assert list(processes.code(maps, b"malloc")) == [(b"/opt/jemalloc/5.3.1/lib/libjemalloc.so.2", False)]
    assert list(processes.code(b"", b"malloc")) == []


def test_a_prefix_is_no_pattern() -> None:
    assert (
        processes.mapped(LINE.format("/opt/jeXmalloc/5.3.1/lib/libjemalloc.so.2").encode(), "/opt/je.malloc") == set()
    )


@pytest.fixture
def proc(tmp_path: pathlib.Path) -> pathlib.Path:
    """A /proc with three processes of puma, one that is nobody's, one that is ending, and other entries."""
    entries = {
        "10": ("0::/system.slice/puma.service\n", LIBRARY),
        "11": ("0::/system.slice/puma.service\n", ""),
        "12": (
            "0::/system.slice/puma.service\n",
            LINE.format("/usr/bin/ruby \udcff".encode("utf-8", "ignore").decode()),
        ),
        "20": ("0::/init.scope\n", LIBRARY),
    }
    for pid, (cgroup, maps) in entries.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cgroup").write_text(cgroup)
        (tmp_path / pid / "maps").write_text(maps)
    (tmp_path / "30").mkdir()
    (tmp_path / "self").symlink_to("10")
    (tmp_path / "meminfo").write_text("")
    return tmp_path


PUMA = [("puma.service", False)]


def test_members(proc: pathlib.Path) -> None:
    found = processes.members([*PUMA, ("cron.service", False)], str(proc))
    assert {member.name: sorted(pids) for member, pids in found.items()} == {"puma.service": [10, 11, 12]}


def test_members_of_a_container(tmp_path: pathlib.Path) -> None:
    inside = f"/machine.slice/libpod-{'a' * 64}.scope"
    for name, path in (("1", ""), ("2", inside), ("3", f"{inside}/libpod-{'b' * 64}.scope")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup").write_text(f"0::{path}/system.slice/cron.service\n")
    units = [("cron.service", False)]
    assert list(processes.members(units, str(tmp_path)).values()) == [[1]]
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text(f"0::{inside}/init.scope\n")  # we are in the first container
    assert list(processes.members(units, str(tmp_path)).values()) == [[2]]


def test_installations_of(proc: pathlib.Path) -> None:
    assert processes.installations_of([10, 11, 12, 30, 99], PREFIX, str(proc)) == {10: {"5.3.1"}, 12: set()}


def test_a_process_that_ends_while_it_is_read(proc: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_arguments: t.Any, **_options: t.Any) -> t.NoReturn:
        raise ProcessLookupError(3, "No such process")

    monkeypatch.setattr(builtins, "open", gone)
    found = processes.installations_of([10], PREFIX, str(proc)), processes.members(PUMA, str(proc))
    monkeypatch.undo()
    assert found == ({}, {})


def test_a_process_that_may_not_be_read(proc: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str, *_arguments: t.Any, **_options: t.Any) -> t.NoReturn:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(builtins, "open", refused)
    with pytest.raises(JemallocError) as caught:
        processes.installations_of([10], PREFIX, str(proc))
    monkeypatch.undo()
    assert str(caught.value) == (
        f"{proc}/10/maps cannot be read, so nothing can be proved; run this as root (become: true), and in a container "
        "with the capability CAP_SYS_PTRACE."
    )


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ({}, "5.3.1", []),
        ({1: {"5.3.1"}, 2: {"5.3.1"}}, "5.3.1", []),
        ({3: {"5.1.0"}, 1: {"5.3.1"}, 2: set()}, "5.3.1", [2, 3]),
        ({1: {"5.3.1", "5.1.0"}, 2: {processes.DELETED}}, "5.3.1", [1, 2]),
        ({1: set()}, None, []),
        ({1: set(), 2: {"5.3.1"}, 3: {processes.DELETED}}, None, [2, 3]),
        ({1: {"5.3.1"}, 2: set()}, "any", []),
    ],
)
def test_unproved(found: t.Dict[int, t.Set[str]], wanted: t.Optional[str], expected: t.List[int]) -> None:
    assert processes.unproved(found, wanted) == expected


def test_a_real_process(tmp_path: pathlib.Path, library: pathlib.Path) -> None:
    path = tmp_path / "5.3.1" / "lib" / "libjemalloc.so.2"
    path.parent.mkdir(parents=True)
    path.write_bytes(library.read_bytes())
    (tmp_path / "current").symlink_to("5.3.1")
    environment = {**os.environ, "LD_PRELOAD": f"{tmp_path}/current/lib/libjemalloc.so.2"}
    with subprocess.Popen(["cat"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.read(1)  # now it has been loaded
        assert processes.installations_of([process.pid], str(tmp_path)) == {process.pid: {"5.3.1"}}
        path.unlink()
        assert processes.installations_of([process.pid], str(tmp_path)) == {process.pid: {processes.DELETED}}
        assert processes.installations_of([process.pid], f"{tmp_path}2") == {process.pid: set()}
        process.stdin.close()


def test_memory(tmp_path: pathlib.Path) -> None:
    for pid, pss in (("1", 10), ("2", 20)):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "smaps_rollup").write_text(f"Rss: 99 kB\nPss: {pss} kB\nPss_Dirty: 5 kB\n")
    assert processes.memory([1, 2, 3], str(tmp_path)) == 30 * 1024
    assert processes.memory([os.getpid()]) > 0


def test_descendants(tmp_path: pathlib.Path) -> None:
    for pid, parent in ((1, 0), (10, 1), (11, 10), (12, 11), (13, 1), (14, 10)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a) b ( c) S {parent} 1 1 0\n")
    (tmp_path / "15").mkdir()  # it ended while the directory was read
    (tmp_path / "self").mkdir()
    assert sorted(processes.descendants(10, str(tmp_path))) == [11, 12, 14]
    assert processes.descendants(13, str(tmp_path)) == []


def test_mapping(tmp_path: pathlib.Path) -> None:
    for pid, maps, environment in (
        (1, "7f00-7f01 r-xp 0 08:01 12   /lib/x.so\n7f02-7f03 r-xp 0 08:01 13   /lib/y.so\n", "A=1\0"),
        (2, "7f00-7f01 r-xp 0 08:01 12   /lib/x.so\n", "A=1\0LD_PRELOAD=/lib/x.so\0"),
        (3, "7f00-7f01 r-xp 0 08:01 12   /lib/x.so.2\n", ""),
        (5, "7f00-7f01 r-xp 0 08:01 14   /lib/x.so\n", ""),  # the process of a container
    ):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "root").symlink_to(tmp_path if pid == 5 else "/")
        (tmp_path / str(pid) / "maps").write_text(maps)
        (tmp_path / str(pid) / "environ").write_text(environment)
    (tmp_path / "4").mkdir()  # it ended while the directory was read
    (tmp_path / "self").mkdir()
    assert processes.mapping("/lib/x.so", str(tmp_path)) == [1]
