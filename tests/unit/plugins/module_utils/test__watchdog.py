# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watchdog over a file that stands for /etc/ld.so.preload, with trials that fail by what stands in it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes
from ansible_collections.preload.jemalloc.plugins.module_utils import _fence as fence
from ansible_collections.preload.jemalloc.plugins.module_utils import _watchdog as watchdog
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

LIBRARY = "/lib/libx.so"
TRIALS = watchdog.trials


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    """The file that is watched over."""
    (tmp_path / "list").write_text("/foreign.so\n")
    return tmp_path / "list"


@pytest.fixture(autouse=True)
def lock(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[changes.Lock]:
    """The lock of the run."""
    monkeypatch.setattr(changes, "LOCK", str(tmp_path_factory.mktemp("run") / "lock"))
    with changes.locked() as lock:
        yield lock


def activate(path: pathlib.Path, content: str, lock: changes.Lock) -> str:
    """Let the watchdog give a file this content."""
    change = changes.Change(str(path), path.read_text() if path.exists() else None, content)
    return watchdog.activate(change, LIBRARY, True, lock)


def mandate(lock: changes.Lock, seconds: float = 60) -> watchdog.Mandate:
    """Return a mandate for so many seconds."""
    return watchdog.Mandate(lock, fence.now() + seconds)


@pytest.fixture(autouse=True)
def _trials(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that end badly, or not at all, when the file says so; and one that always fails."""

    def made(_library: str, _systemd: bool) -> t.List[watchdog.Trial]:
        return [
            watchdog.Trial("a program", ("/bin/sh", "-c", f"! grep -qs bad {path}")),
            watchdog.Trial("a shell", ("/bin/sh", "-c", f"! grep -qs ugly {path} || {{ echo no >&2; exit 3; }}")),
            watchdog.Trial("a login", ("/bin/sh", "-c", f"! grep -qs hang {path} || sleep 60")),
            watchdog.Trial("a service", ("/bin/sh", "-c", f"! grep -qs deaf {path} || echo ERROR: ld.so: ignored")),
            watchdog.Trial("su", ("/bin/false",)),
        ]

    monkeypatch.setattr(watchdog, "trials", made)
    monkeypatch.setattr(watchdog.attempt, "__defaults__", (1.0,))


def test_what_works_stays(path: pathlib.Path, lock: changes.Lock) -> None:
    assert activate(path, "good\n", lock) == ""
    assert path.read_text() == "good\n"
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("bad", "a program: exit status 1"),
        ("ugly", "a shell: exit status 3: no"),
        ("bad ugly", "a program: exit status 1; a shell: exit status 3: no"),
        ("hang", "a login: it does not end within 1 s"),
        ("deaf", "a service: exit status 0: ERROR: ld.so: ignored"),
    ],
)
@pytest.mark.parametrize("before", [None, "", "/foreign.so"])
def test_what_does_not_work_goes_back(
    path: pathlib.Path, lock: changes.Lock, content: str, reason: str, before: t.Optional[str]
) -> None:
    if before is None:
        path.unlink()
    else:
        path.write_text(before)
    verdict = activate(path, content, lock)
    assert sorted(verdict.split("; ")) == sorted(reason.split("; "))
    assert (path.read_text() if path.exists() else None) == before
    assert os.listdir(str(path.parent)) == ([] if before is None else ["list"])


def test_a_file_that_cannot_be_written(path: pathlib.Path, lock: changes.Lock) -> None:
    (path.parent / "missing").write_text("no directory")
    change = changes.Change(str(path.parent / "missing" / "list"), None, "good")
    assert watchdog.watch(change, [], LIBRARY, mandate(lock)).startswith("[Errno ")
    assert sorted(os.listdir(str(path.parent))) == ["list", "missing"]


@pytest.mark.parametrize(("program", "verdict", "left"), [("true", "", "good"), ("false", "x: exit status 1", None)])
def test_watch(path: pathlib.Path, lock: changes.Lock, program: str, verdict: str, left: t.Optional[str]) -> None:
    change = changes.Change(str(path.parent / "new"), None, "good")
    assert watchdog.watch(change, [watchdog.Trial("x", (program,))], LIBRARY, mandate(lock)) == verdict
    assert ((path.parent / "new").read_text() if (path.parent / "new").exists() else None) == left


USER = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print(flush=True); sys.stdin.read()"


@pytest.mark.parametrize(
    ("reason", "limit", "ended"),
    [
        ("it does not end within 1 s", 4, True),
        ("it does not end within 1 s", -900, False),  # it was stopped itself
        ("exit status 1", 4, False),
    ],
)
def test_what_hangs_with_the_library_is_ended(
    path: pathlib.Path,
    lock: changes.Lock,
    library: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
    limit: float,
    ended: bool,
) -> None:
    users: t.List[subprocess.Popen[bytes]] = []

    def start(*_chosen: t.Any, **environment: str) -> t.Dict[watchdog.Trial, str]:
        command = [sys.executable, "-c", USER, str(library)]
        environment = {**os.environ, **environment}
        users.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment))
        output = users[-1].stdout
        assert output
        output.readline()
        return {watchdog.Trial("x", ("true",)): reason}

    def others(*_chosen: t.Any) -> t.Dict[watchdog.Trial, str]:
        start(LD_PRELOAD=str(library))
        return start()

    start()
    monkeypatch.setattr(watchdog, "attempt", others)
    monkeypatch.setattr(watchdog, "TIME_LIMIT", limit)
    change = changes.Change(str(path), "/foreign.so\n", "good")
    assert watchdog.watch(change, [], str(library), mandate(lock)) == f"x: {reason}"
    if ended:
        assert users[2].wait() == -signal.SIGKILL
    assert [user.poll() for user in users] == [None, None, -signal.SIGKILL if ended else None]
    for user in users:
        user.kill()
        user.communicate()


def test_a_watchdog_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_PATIENCE", 0.01)
    reader, writer = os.pipe()
    os.write(writer, b"half a sentence")
    said = "the process that watched over it was killed, as it did not answer for 0.01 s"
    assert watchdog._listen(reader) == (False, said)
    os.close(writer)


def test_whatever_a_trial_prints_counts(tmp_path: pathlib.Path) -> None:
    noisy = watchdog.Trial("a program", ("/bin/sh", "-c", "echo one; echo two"))
    assert watchdog.attempt([noisy]) == {noisy: "exit status 0: one two"}
    assert watchdog.attempt([dataclasses.replace(noisy, silent=False)]) == {}


def test_what_a_trial_has_started_ends_with_it(tmp_path: pathlib.Path) -> None:
    note = tmp_path / "pid"
    script = f"setsid sh -c 'echo $$ > {note}; exec sleep 600' & sleep 600"
    trial = watchdog.Trial("a login", ("/bin/sh", "-c", script))
    assert watchdog.attempt([trial], 1.0) == {trial: "it does not end within 1 s"}
    pid = int(note.read_text())
    while os.path.exists(f"/proc/{pid}") and "Z" not in pathlib.Path(f"/proc/{pid}/stat").read_text():
        time.sleep(0.01)


@pytest.mark.parametrize(("content", "left"), [("good\n", "good\n"), ("hang\n", "/foreign.so\n")])
def test_it_outlives_the_module(path: pathlib.Path, lock: changes.Lock, content: str, left: str) -> None:
    module = os.fork()
    if module == 0:
        try:
            os.setsid()
            activate(path, content, lock)
        finally:
            os._exit(0)
    while path.read_text() == "/foreign.so\n":
        time.sleep(0.005)
    os.killpg(module, signal.SIGKILL)
    os.waitpid(module, 0)
    deadline = time.monotonic() + 20
    while path.read_text() != left and time.monotonic() < deadline:
        time.sleep(0.05)
    assert path.read_text() == left
    time.sleep(1.5)
    assert path.read_text() == left


@pytest.mark.parametrize("before", [None, "/foreign.so\n"])
@pytest.mark.parametrize("at", ["trial", "end"])
def test_a_watchdog_that_is_killed(
    path: pathlib.Path, lock: changes.Lock, monkeypatch: pytest.MonkeyPatch, at: str, before: t.Optional[str]
) -> None:
    def end(*_arguments: t.Any) -> t.NoReturn:
        os._exit(1)

    module, attempt = os.getpid(), watchdog.attempt
    if before is None:
        path.unlink()
    if at == "trial":
        monkeypatch.setattr(watchdog, "attempt", lambda *given: attempt(*given) if os.getpid() == module else end())
    else:
        monkeypatch.setattr(watchdog, "_report", end)
    assert activate(path, "good", lock) == "the process that watched over it was killed"
    assert (path.read_text() if path.exists() else None) == before
    assert os.listdir(str(path.parent)) == ([] if before is None else ["list"])


def test_it_has_nothing_open_that_is_the_modules(
    path: pathlib.Path, lock: changes.Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, attempt = os.getpid(), watchdog.attempt

    def opened(chosen: t.Sequence[watchdog.Trial]) -> t.Dict[watchdog.Trial, str]:
        if os.getpid() == module:
            return attempt(chosen)
        return {chosen[0]: open_files()}

    def open_files() -> str:
        links = []
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the one that lists them
                links.append(os.readlink(f"/proc/self/fd/{name}"))
        return " ".join(links)

    monkeypatch.setattr(watchdog, "attempt", opened)
    reader, writer = os.pipe()
    pipe = os.readlink(f"/proc/self/fd/{writer}")
    said = activate(path, "good\n", lock)
    os.close(reader)
    os.close(writer)
    assert said.count(os.devnull) == 3
    assert pipe not in said


def test_a_program_that_is_not_there() -> None:
    trial = watchdog.Trial("x", ("/missing",))
    assert watchdog.attempt([trial]) == {trial: "it does not start (No such file or directory)"}


def test_the_trials_of_this_host() -> None:
    assert [trial.kind for trial in TRIALS(LIBRARY, False)][:3] == ["a program", "a shell", "Python"]
    assert {trial.kind for trial in TRIALS(LIBRARY, True)} >= {trial.kind for trial in TRIALS(LIBRARY, False)}
    ordinary = [trial for trial in TRIALS(LIBRARY, False) if trial.kind != "a login"]
    assert watchdog.attempt(ordinary, 30.0) == {}
    proving = [watchdog._proving(trial) for trial in ordinary if trial.kind == "Python"]
    assert list(watchdog.attempt(proving, 30.0).values()) == ["exit status 1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_a_trial_of_a_user_has_no_rights() -> None:
    command = ("/bin/sh", "-c", '[ "$(id -u):$(id -G)" = 65534:65534 ]')
    trials = [watchdog.Trial("of root", command), watchdog.Trial("of a user", command, unprivileged=True)]
    assert [trial.kind for trial in watchdog.attempt(trials)] == ["of root"]


def test_a_mandate(lock: changes.Lock) -> None:
    mandate(lock).check()
    with pytest.raises(JemallocError) as caught:
        mandate(lock, -1).check()
    assert str(caught.value) == "The watchdog was not ready within 30 s, so all files are as before."
    os.unlink(changes.LOCK)
    with pytest.raises(JemallocError) as caught:
        mandate(lock).check()
    assert str(caught.value) == f"Somebody removed {changes.LOCK}, so all files are as before."


def test_what_a_trial_prints_anyway_does_not_count(path: pathlib.Path) -> None:
    script = f"echo 'ERROR: ld.so: gone'; echo $$; ! grep -qs bad {path} || echo ERROR: ld.so: new"
    noisy = watchdog.Trial("a program", ("/bin/sh", "-c", script))
    (usable,) = watchdog.usable(
        [noisy, watchdog.Trial("a service", ("/bin/false",)), watchdog.Trial("x", ("/missing",))]
    )
    assert usable.kind == "a program"
    assert watchdog.attempt([usable]) == {}
    path.write_text("bad")
    assert watchdog.attempt([usable]) == {usable: "exit status 0: ERROR: ld.so: new"}
