# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A profile from its beginning to its end, with a made-up /proc and a made-up systemctl, and what goes wrong in it."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import threading
import time
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _labels as labels
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile as profile
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile_session as session
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

CONF = "narenas:2,prof:true,log:a%%b"
PUMA = "puma.service"


class Fake:
    """A systemd whose service runs with what the drop-in of the profile says, and what a test lets happen to it."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root, self.proc = root, root / "proc"
        self.calls: t.List[str] = []
        self.answers: t.Dict[str, t.Tuple[int, str]] = {}
        self.broken_with, self.broken_without = False, False
        self.state, self.again, self.pid = "active", 0, 100
        self.environ = CONF.replace("%%", "%")
        self.at_look: t.Callable[[int], None] = lambda _number: None
        self.looks = 0
        self.plan = profile.Plan(
            restarts.Service(PUMA, "5.3.1"),
            restarts.Service(PUMA, None),
            CONF,
            "the drop-in\n",
            f"{root}/var/cache/{profile.NAME}",
            "jeprof",
            f"{root}/run/systemd/system/{PUMA}.d/{profile.DROP_IN}",
            "/opt/jemalloc",
            str(self.proc),
        )
        (root / "var" / "cache").mkdir(parents=True)
        self.start(None)

    def start(self, version: t.Optional[str]) -> None:
        """Let the service run as one process with a release."""
        shutil.rmtree(self.proc / str(self.pid), ignore_errors=True)
        self.pid += 1
        process = self.proc / str(self.pid)
        process.mkdir()
        (process / "cgroup").write_text(f"0::/system.slice/{PUMA}\n")
        path = f"/opt/jemalloc/{version}/lib/libjemalloc.so.2" if version else "/lib/libc.so.6"
        (process / "maps").write_text(f"7f00-7f01 r-xp 0 08:01 12   {path}\n")
        if version:
            (process / "environ").write_text(f"A=1\0MALLOC_CONF={self.environ}\0")
            (process / "root").symlink_to("/")
            os.makedirs(self.plan.directory, exist_ok=True)

    def __call__(
        self, arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
    ) -> t.Tuple[int, str]:
        """Answer a command."""
        self.calls.append(" ".join(arguments))
        if "show" in arguments:
            if "MainPID,NRestarts" in self.calls[-1]:
                self.looks += 1
                self.at_look(self.looks)
            shown = {"Names": PUMA, "ActiveState": self.state, "MainPID": self.pid, "NRestarts": self.again}
            return 0, "".join(f"{name}={value}\n" for name, value in shown.items())
        if "restart" in arguments:
            profiled = os.path.exists(self.plan.drop_in)
            if self.broken_with if profiled else self.broken_without:
                self.state = "failed"
                return 1, "Job failed.\n"
            self.state, self.again = "active", 0
            self.start("5.3.1" if profiled else None)
        return self.answers.get(arguments[0], (0, ""))

    def record(self, duration: int = 1, limit: int = 1 << 20) -> session.Outcome:
        """Make a profile."""
        with session.guarded(self, self.plan, duration, 1):
            return session.record(self, self.plan, duration, limit, 1)

    def failed(self) -> str:
        """Return how a profile fails, after which the service runs as before."""
        with pytest.raises(JemallocError) as error:
            self.record(600)
        self.check_as_before()
        return str(error.value)

    def check_as_before(self) -> None:
        """See that nothing of the profile is left but its dumps."""
        assert not os.path.lexists(os.path.dirname(self.plan.drop_in))
        assert "5.3.1" not in (self.proc / str(self.pid) / "maps").read_text()
        assert [signal.getsignal(number) for number in session._SIGNALS] == HANDLERS


HANDLERS = [signal.getsignal(number) for number in session._SIGNALS]


@pytest.fixture
def fake(root: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A service that runs without jemalloc."""
    monkeypatch.setattr(session, "LOCK", str(tmp_path / "profile.lock"))
    monkeypatch.setattr(session, "INTERVAL", 0)
    monkeypatch.setattr(restarts, "INTERVAL", 0)
    return Fake(root)


def test_a_profile(fake: Fake, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = []
    (tmp_path / "enforce").write_text("1")
    monkeypatch.setattr(labels, "_ENFORCE", str(tmp_path / "enforce"))

    def look(_number: int) -> None:
        texts.append(pathlib.Path(fake.plan.drop_in).read_text())
        assert "5.3.1" in (fake.proc / str(fake.pid) / "maps").read_text()

    fake.at_look = look
    began = time.time()
    outcome = fake.record(1)
    assert outcome.began >= began
    assert outcome.seconds >= 1
    assert outcome.early == ""
    assert set(texts) == {"the drop-in\n"}
    fake.check_as_before()
    guard = next(call for call in fake.calls if call.startswith("systemd-run"))
    assert f"{session.LOCK} 65 {fake.plan.drop_in} {os.path.dirname(fake.plan.drop_in)} {PUMA} {fake.root}/var" in guard
    assert fake.calls.index(guard) == 0
    assert f"restorecon -R {fake.plan.drop_in}" in fake.calls
    assert fake.calls[-1] == f"systemctl stop -- {session._GUARD}"
    assert f"systemctl reset-failed -- {PUMA}" in fake.calls  # what failed too often is not started again without it


def test_without_a_guard_nothing_changes(fake: Fake) -> None:
    fake.answers["systemd-run"] = (1, "no such thing\n")
    with pytest.raises(JemallocError, match=r"^Nothing was changed, as no guard .* could be started: no such thing\.$"):
        fake.record()
    fake.check_as_before()
    assert len(fake.calls) == 1


def test_a_service_that_does_not_start_with_profiling(fake: Fake) -> None:
    fake.broken_with = True
    fake.answers["journalctl"] = (0, "last words\n")
    assert fake.failed() == (
        "unit: puma.service: it did not start: Job failed.; its journal ends with: last words; it runs again as before."
    )


def test_a_service_that_does_not_map_it(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    start = fake.start
    monkeypatch.setattr(fake, "start", lambda _version: start(None))
    assert fake.failed() == (
        f"unit: puma.service: its process {fake.pid - 1} does not map jemalloc 5.3.1; it runs again as before."
    )


def test_another_setting_that_wins(fake: Fake) -> None:
    fake.environ = "zero:true"
    assert fake.failed() == (
        "unit: puma.service: another setting of MALLOC_CONF wins over that of the profile; it runs again as before."
    )


def test_a_directory_that_its_processes_do_not_see(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = fake.root / "elsewhere"
    start = fake.start

    def hidden(version: t.Optional[str]) -> None:
        start(version)
        process = fake.proc / str(fake.pid)
        if version:
            (process / "root").unlink()
            (process / "root").symlink_to(elsewhere)
            (process / "environ").unlink()  # a program may write over it

    monkeypatch.setattr(fake, "start", hidden)
    assert fake.failed() == (
        f"unit: puma.service: its processes cannot write to {fake.plan.directory} (No such file or directory); it runs "
        "again as before."
    )
    os.makedirs(f"{elsewhere}{fake.plan.directory}")
    assert fake.failed() == (
        f"unit: puma.service: its processes see another {fake.plan.directory} than the host; it runs again as before."
    )


@pytest.mark.parametrize(
    ("state", "again", "reason"),
    [
        ("failed", 0, "it ended meanwhile, it is failed"),
        ("", 0, "it ended meanwhile, it is not known"),
        ("activating", 2, "it ended meanwhile, systemd started it 2 times again"),
    ],
)
def test_a_service_that_ends_meanwhile(fake: Fake, state: str, again: int, reason: str) -> None:
    def look(number: int) -> None:
        if number == 3:
            fake.state, fake.again = state, again

    fake.at_look = look
    assert fake.record(600).early == reason
    fake.check_as_before()


def test_a_service_that_reads_its_settings_again_goes_on(fake: Fake) -> None:
    fake.at_look = lambda number: setattr(fake, "state", "reloading" if number == 3 else "active")
    assert fake.record(1).early == ""


def test_a_service_that_is_ending_is_looked_at_until_it_has_ended(fake: Fake) -> None:
    states = {3: "deactivating", 4: "deactivating", 5: "failed"}
    fake.at_look = lambda number: setattr(fake, "state", states.get(number, fake.state))
    assert fake.record(600).early == "it ended meanwhile, it is failed"


def test_dumps_stay_below_the_limit(fake: Fake) -> None:
    directory = pathlib.Path(fake.plan.directory)

    def look(number: int) -> None:
        if number == 2:
            for each in range(5):
                (directory / f"dump.7.{each}.i{each}.heap").write_bytes(b"1" * 1000)
        if number == 4:
            (directory / "dump.8.0.i0.heap").write_bytes(b"1" * 1000)

    fake.at_look = look
    assert fake.record(600, 3000).early == "what has to stay of its dumps took more than 0 MiB (size_limit)"
    assert sorted(os.listdir(directory)) == [f"dump.{each}.heap" for each in ("7.0.i0", "7.3.i3", "7.4.i4", "8.0.i0")]


def test_a_signal_ends_it(fake: Fake) -> None:
    fake.at_look = lambda number: os.kill(os.getpid(), signal.SIGTERM) if number == 3 else None
    assert fake.failed() == "unit: puma.service: signal 15 ended this run; it runs again as before."
    fake.at_look = lambda _number: os.kill(os.getpid(), signal.SIGHUP)  # while it is switched on
    assert fake.failed() == "unit: puma.service: signal 1 ended this run; it runs again as before."


def test_whatever_goes_wrong_it_is_switched_off(fake: Fake) -> None:
    def look(number: int) -> None:
        if number == 3:
            raise MemoryError("no memory")

    fake.at_look = look
    assert fake.failed() == "unit: puma.service: no memory; it runs again as before."


def test_a_service_that_does_not_come_back(fake: Fake) -> None:
    fake.broken_without = True
    with pytest.raises(JemallocError) as error:
        fake.record()
    assert str(error.value) == (
        "unit: puma.service was profiled, but then it does not run as before (it did not start: Job failed.)."
    )
    fake.broken_with, fake.broken_without = True, True
    with pytest.raises(JemallocError) as error:
        fake.record()
    assert str(error.value) == (
        "unit: puma.service: it did not start: Job failed.; it does not run as before (it did not start: Job failed.)."
    )


def test_a_drop_in_that_cannot_be_removed_is_left_to_the_guard(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: str) -> None:
        raise OSError(30, "Read-only file system", "drop-in")

    monkeypatch.setattr(session, "_remove", refuse)
    with pytest.raises(OSError, match="Read-only"):
        fake.record()
    assert f"systemctl stop -- {session._GUARD}" not in fake.calls


def test_a_drop_in_of_somebody_else_stays(fake: Fake) -> None:
    other = pathlib.Path(os.path.dirname(fake.plan.drop_in)) / "other.conf"
    other.parent.mkdir()
    other.write_text("theirs")
    fake.record()
    assert [path.name for path in other.parent.iterdir()] == ["other.conf"]


def test_clear(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    assert session.clear(fake, str(fake.root)) == []
    assert not [call for call in fake.calls if "daemon-reload" in call]
    path = pathlib.Path(fake.plan.drop_in)
    path.parent.mkdir()
    path.write_text("x")
    (path.parent / f".{path.name}{files.TEMPORARY_SUFFIX}").write_text("x")
    private = fake.root / "var/cache/private" / profile.NAME
    private.mkdir(parents=True)
    (private / "dump.1.1.i1.heap").write_text("x")
    os.symlink(f"private/{profile.NAME}", fake.plan.directory)
    assert session.clear(fake, str(fake.root)) == [PUMA]
    assert fake.calls[-2:] == ["systemctl daemon-reload", f"systemctl restart -- {PUMA}"]
    fake.check_as_before()
    assert profile.present_directories(str(fake.root)) == []

    def refuse(_path: str) -> None:
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(files, "remove_tree", refuse)
    assert session.remove_dumps(["a", "b"]) == ["a", "b"]


def test_the_lock(fake: Fake) -> None:
    with session.locked(fake):
        with pytest.raises(JemallocError, match=r"Another run has been making a profile .* for 0 s"), session.locked(
            fake, 0
        ):
            pass
        entered = threading.Event()

        def second() -> None:
            with session.locked(fake):
                entered.set()

        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        assert not entered.is_set()
    thread.join()
    assert entered.is_set()
    assert pathlib.Path(session.LOCK).read_text() == ""
