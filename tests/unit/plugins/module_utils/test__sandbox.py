# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The user, the scope and the directories of a build, and which processes count as left by one."""

from __future__ import annotations

import grp
import os
import pathlib
import pwd
import signal
import subprocess
import tempfile
import time
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _sandbox as sandbox
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

FIRST = sandbox.USERS[0]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def really(
    arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
) -> t.Tuple[int, str]:
    """Run a command."""
    done = subprocess.run(arguments, cwd=directory, input=data, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(autouse=True)
def here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No systemd, locks of this test, and nobody with subordinate numbers."""
    monkeypatch.setattr(systemd, "is_running", lambda: False)
    monkeypatch.setattr(sandbox, "LOCK", f"{tmp_path}/{{}}.lock")
    monkeypatch.setattr(sandbox, "SUBORDINATE", (f"{tmp_path}/subuid", f"{tmp_path}/subgid"))
    monkeypatch.setattr(sandbox, "_ENDINGS", 3)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """No user is taken; tests beside this one build too."""
    monkeypatch.setattr(sandbox, "is_taken", lambda _user: False)


@pytest.fixture
def staging() -> t.Iterator[pathlib.Path]:
    """A staging area with a file of a build in it, which everybody reaches; pytest's own directory is closed."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        top = pathlib.Path(name, ".staging")
        for directory in (top, top / "tmp", top / "tmp" / "work"):
            directory.mkdir(0o700)
        (top / "tmp" / "work" / "file").write_text("")
        yield top


def within(staging: pathlib.Path, run: t.Any = really) -> t.Any:
    """Return the sandbox of the build in a staging area."""
    return sandbox.sandboxed(run, str(staging), str(staging / "tmp" / "work"))


@as_root
@pytest.mark.usefixtures("free")
def test_root_builds_as_another_user(staging: pathlib.Path, tmp_path: pathlib.Path) -> None:
    work = staging / "tmp" / "work"
    with within(staging) as run:
        script = "id -u; id -G; touch new; touch ../new"
        status, output = run(["/bin/sh", "-c", script], str(work), None)
        assert output.split()[:2] == [str(FIRST)] * 2
        assert status
        assert {path.stat().st_uid for path in (work, work / "file", work / "new")} == {FIRST}
        assert [
            (path.stat().st_mode & 0o777, path.stat().st_uid, path.stat().st_gid) for path in (staging, work.parent)
        ] == [(0o710, 0, FIRST)] * 2
        assert os.listdir(str(work.parent)) == ["work"]
        assert os.listdir(str(tmp_path)) == [f"{FIRST}.lock"]
    assert os.listdir(str(tmp_path)) == []


@as_root
def test_others_cannot_sit_in_a_staging_area(staging: pathlib.Path) -> None:
    attempt = ["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c"]
    with within(staging):
        script = f"import os; os.fchdir(os.open({str(staging)!r}, os.O_PATH))"
        assert "PermissionError" in really([*attempt, script])[1]


@as_root
def test_a_user_is_reserved_for_one_build(staging: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {FIRST + 1}
    monkeypatch.setattr(sandbox, "is_taken", lambda user: user in taken)
    with within(staging) as first, within(staging) as second:
        users = [run(["/usr/bin/id", "-u"], "/", None)[1] for run in (first, second)]
    assert users == [f"{FIRST}\n", f"{FIRST + 2}\n"]


@as_root
@pytest.mark.parametrize("why", ["all are taken", "nothing can be written", "not mapped", "closed"])
def test_root_builds_itself_where_it_must(
    staging: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    def refuse(*_arguments: t.Any) -> None:
        raise OSError(22, "Invalid argument")

    if why == "all are taken":
        monkeypatch.setattr(sandbox, "is_taken", lambda _user: True)
    elif why == "nothing can be written":
        monkeypatch.setattr(sandbox, "LOCK", f"{tmp_path}/missing/{{}}.lock")
    elif why == "not mapped":
        monkeypatch.setattr(os, "lchown", refuse)
    else:
        staging.parent.chmod(0o700)
    with within(staging) as run:
        assert run(["/usr/bin/id", "-u"], "/", None) == (0, "0\n")


def test_a_caller_without_rights_builds_itself(staging: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with within(staging) as run:
        assert run is really


@pytest.mark.parametrize("status", [0, 1])
def test_each_command_has_its_scope(staging: pathlib.Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    calls: t.List[t.List[str]] = []

    def run(arguments: t.Sequence[str], _directory: t.Optional[str], _data: t.Optional[str]) -> t.Tuple[int, str]:
        calls.append(list(arguments))
        return status if arguments[-1] == "true" else 0, ""

    monkeypatch.setattr(systemd, "is_running", lambda: True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sandbox, "is_taken", lambda _user: True)
    with within(staging, run) as inside:
        for word in ("configure", "make"):
            assert inside([word], "/", None) == (0, "")
    units = [word.partition("=")[2] for call in calls for word in call if word.startswith("--unit=")]
    assert len(set(units)) == len(units) == (1 if status else 3)
    assert all(unit.startswith(sandbox._scope(str(staging))) and unit.endswith(".scope") for unit in units)
    assert [call[-1] for call in calls] == ["true", "configure", "make"]
    assert {call[0] for call in calls[1:]} == ({"configure", "make"} if status else {"systemd-run"})


def status_of(uid: int, gid: int = 0, state: str = "S (sleeping)", real: t.Optional[int] = None) -> str:
    """Return a /proc/PID/status."""
    real = uid if real is None else real
    return f"Name:\tx\nState:\t{state}\nUid:\t{real}\t{uid}\t{uid}\t{uid}\nGid:\t{gid}\t{gid}\t{gid}\t{gid}\n"


def make(proc: pathlib.Path, pid: int, status: str, cgroup: str = "0::/\n", cwd: t.Any = None) -> None:
    """Make a process in a made-up /proc."""
    directory = proc / str(pid)
    directory.mkdir()
    (directory / "status").write_text(status)
    (directory / "cgroup").write_text(cgroup)
    (directory / "root").symlink_to("/")
    if cwd:
        (directory / "cwd").symlink_to(cwd)


@pytest.fixture
def proc(tmp_path: pathlib.Path) -> pathlib.Path:
    """A /proc with nobody in it but this process."""
    directory = tmp_path / "proc"
    (directory / "self").mkdir(parents=True)
    (directory / "self" / "cgroup").write_text("0::/\n")
    return directory


def test_leftovers(staging: pathlib.Path, proc: pathlib.Path) -> None:
    work, build = staging / "tmp" / "work", FIRST + 3
    scope = f"0::/system.slice/{sandbox._scope(str(staging))}17-0.scope\n"
    make(proc, 1, status_of(0), cwd="/")
    make(proc, 2, status_of(0), cwd=work)
    make(proc, 3, status_of(build), cwd=work)
    make(proc, 4, status_of(build), scope, cwd="/")
    make(proc, 5, status_of(build), scope, cwd=staging / "gone")  # it cannot be looked into
    (proc / "99").mkdir()  # it ended
    assert sorted(sandbox.leftovers(str(staging), (0, *sandbox.USERS), str(proc))) == [2, 3, 4, 5]
    assert sorted(sandbox.leftovers(str(staging), sandbox.USERS, str(proc))) == [3, 4, 5]
    assert sandbox.leftovers(str(staging), sandbox.USERS, str(proc), pids=[4]) == [4]


def test_what_is_no_leftover(staging: pathlib.Path, proc: pathlib.Path, tmp_path: pathlib.Path) -> None:
    work, mine = staging / "tmp" / "work", f"{sandbox._scope(str(staging))}17-0.scope"
    make(proc, 1, status_of(1000), cwd=work)
    make(proc, 2, status_of(0, real=1000), cwd=work)  # a set-user-ID program of theirs
    make(proc, 3, status_of(1000), f"0::/user.slice/user-1000.slice/user@1000.service/app.slice/{mine}\n", cwd="/")
    make(proc, 4, status_of(0), f"0::/system.slice/other.service/{mine}\n", cwd="/")
    make(
        proc, 5, status_of(0), f"0::/docker/{'a' * 64}/system.slice/{mine}\n", cwd="/"
    )  # a container with such a store
    make(proc, 6, status_of(FIRST, state="Z (zombie)"), f"0::/system.slice/{mine}\n", cwd=work)
    make(proc, 7, status_of(0), "0::/system.slice/preload-jemalloc-build-0123456789ab-17-0.scope\n", cwd="/")
    make(proc, 8, status_of(0), cwd=f"{staging}-other")
    make(proc, 9, status_of(0), cwd=work)  # in a root directory of its own
    (proc / "9" / "root").unlink()
    (proc / "9" / "root").symlink_to(tmp_path)
    assert sandbox.leftovers(str(staging), (0, *sandbox.USERS), str(proc)) == []


def test_another_file_system_on_the_same_path(
    staging: pathlib.Path, proc: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = str(staging / "tmp" / "work")
    make(proc, 2, status_of(0), cwd="/proc")
    monkeypatch.setattr(os, "readlink", lambda _path: work)
    assert sandbox.leftovers(str(staging), [0], str(proc)) == []


def test_is_taken(tmp_path: pathlib.Path, proc: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(proc, 1, status_of(FIRST))
    make(proc, 2, status_of(0, gid=FIRST + 1))
    make(proc, 3, status_of(0, real=FIRST + 2))
    (tmp_path / "subuid").write_text(f"# none\nalice:{FIRST + 3}:2\nbob:100000:65536\n")
    (tmp_path / "subgid").write_text(f"alice:{FIRST + 5}:1")

    def known(number: int) -> t.Callable[[int], None]:
        def lookup(asked: int) -> None:
            if asked != number:
                raise KeyError(asked)

        return lookup

    monkeypatch.setattr(pwd, "getpwuid", known(FIRST + 6))
    monkeypatch.setattr(grp, "getgrgid", known(FIRST + 7))
    assert [user - FIRST for user in sandbox.USERS if not sandbox.is_taken(user, str(proc))] == [8, 9, 10, 11, 12, 13]


def test_end(staging: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = str(staging / "tmp" / "work")
    with subprocess.Popen(["sleep", "600"], cwd=work) as process:
        sandbox.end(str(staging))
        assert process.wait() == -signal.SIGKILL
    sandbox.end(str(staging))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(
        sandbox, "leftovers", lambda _staging, users, **_options: [2**22 + 1] if users == {1000} else []
    )
    with pytest.raises(JemallocError, match=f"do not end: {2**22 + 1}; end them"):
        sandbox.end(str(staging))


@pytest.mark.parametrize("pidfd", [True, False])
@pytest.mark.parametrize("same", [True, False])
def test_kill(monkeypatch: pytest.MonkeyPatch, pidfd: bool, same: bool) -> None:
    def missing(_pid: int) -> int:
        raise OSError(38, "Function not implemented")

    if not pidfd:
        monkeypatch.setattr(os, "pidfd_open", missing)
    with subprocess.Popen(["sleep", "600"]) as process:
        sandbox.kill(process.pid, lambda: same)
        if same:
            assert process.wait() == -signal.SIGKILL
        assert (process.poll() is None) != same
        process.kill()
    sandbox.kill(process.pid, lambda: True)  # gone


@pytest.mark.usefixtures("free")
def test_a_lock_that_another_run_has() -> None:
    descriptor = files.lock(sandbox.LOCK.format(FIRST))
    with sandbox._reserved() as user:
        assert user == FIRST + 1
    os.close(t.cast(int, descriptor))
