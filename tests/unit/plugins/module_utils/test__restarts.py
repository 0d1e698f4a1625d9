# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarts, the proof and the way back, with a made-up /proc and a made-up systemctl."""

from __future__ import annotations

import itertools
import os
import pathlib
import time
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _preload as preload
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd

PUMA = restarts.Service("puma.service", "5.3.1")


class Fake:
    """A systemd whose service runs with what its drop-in says, as far as that library lets it start."""

    def __init__(self, root: pathlib.Path, prefix: str, broken: t.Collection[str] = ()) -> None:
        self.root, self.prefix, self.broken = root, prefix, broken
        self.proc = root / "proc"
        self.pids = itertools.count(100)
        self.states: t.Dict[str, str] = {}
        self.kill_mode, self.again = "control-group", 0
        self.stopped = (0, "")
        self.calls: t.List[str] = []
        self.journal = (0, "")
        self.restarted = (0, "")

    def start(self, unit: str, version: t.Optional[str], count: int = 1) -> None:
        """Let a service run with a release."""
        for directory in self.proc.iterdir():
            if unit in (directory / "cgroup").read_text():
                (directory / "cgroup").write_text("0::/\n")
        for _number in range(count):
            directory = self.proc / str(next(self.pids))
            directory.mkdir()
            (directory / "cgroup").write_text(f"0::/system.slice/{unit}\n")
            path = f"{self.prefix}/{version}/lib/libjemalloc.so.2" if version else "/lib/libc.so.6"
            (directory / "maps").write_text(f"7f00-7f01 r-xp 0 08:01 12   {path}\n")
        self.states[unit] = "active"

    def __call__(
        self, arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
    ) -> t.Tuple[int, str]:
        """Answer a command."""
        self.calls.append(" ".join(arguments))
        unit = arguments[-1]
        if "restart" in arguments:
            return self._restart(unit)
        if "show" in arguments:
            state, main_pid = self.states.get(unit, ""), self.main_pid(unit)
            return 0, f"KillMode={self.kill_mode}\nNRestarts={self.again}\nActiveState={state}\nMainPID={main_pid}\n"
        if "stop" in arguments:
            return self.stopped
        return self.journal if arguments[0] == "journalctl" else (0, "")

    def main_pid(self, unit: str) -> str:
        """Return the main process of a service."""
        return min((d.name for d in self.proc.iterdir() if unit in (d / "cgroup").read_text()), default="0")

    def _restart(self, unit: str) -> t.Tuple[int, str]:
        drop_in = pathlib.Path(places.drop_in_path(systemd.template_of(unit) or unit))
        version = None
        if drop_in.exists():
            name = drop_in.read_text().split(f"{self.prefix}/")[1].split("/")[0]
            version = os.readlink(f"{self.prefix}/current") if name == "current" else name
        self.start(unit, version)
        if version in self.broken:
            self.states[unit] = "failed"
            return self.restarted
        return 0, ""


@pytest.fixture
def prefix(root: pathlib.Path, installed: t.Callable[..., None]) -> str:
    """A store with 5.1.0 and, current, 5.3.1."""
    for version in ("5.1.0", "5.3.1"):
        installed(f"{root}/store", version)
    (root / "store" / "current").symlink_to("5.3.1")
    return f"{root}/store"


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, root: pathlib.Path, prefix: str) -> t.Callable[..., Fake]:
    """Make a fake systemd that the functions use together with its /proc."""

    def make(*broken: str) -> Fake:
        fake = Fake(root, prefix, broken)
        monkeypatch.setattr(restarts, "INTERVAL", 0)
        return fake

    return make


def drop_in(prefix: str, unit: str = "puma.service") -> pathlib.Path:
    """Write a drop-in as the collection does."""
    path = pathlib.Path(places.drop_in_path(unit))
    path.parent.mkdir(parents=True)
    path.write_text(
        f"# preload.jemalloc\n[Service]\nEnvironment=LD_PRELOAD={prefix}/current/lib/libjemalloc.so:/a.so\n"
    )
    return path


def test_wanted(root: pathlib.Path) -> None:
    gone = preload.Change(places.drop_in_path("cron.service"), "x", None)
    others = [
        preload.Change(places.drop_in_path("puma.service"), None, "x"),
        preload.Change(f"{root}/etc/systemd/system.conf.d/{preload.DROP_IN}", "x", None),
        preload.Change("/usr/local/bin/jemalloc.sh", "x", None, link=True),
    ]
    units = {systemd.Unit("puma.service", "active"): "5.3.1"}
    puma, cron = restarts.Listed("puma.service", False, "5.3.1"), restarts.Listed("cron.service", False, None)
    assert restarts.wanted(units, [gone, *others], False) == [puma, cron]
    assert restarts.wanted(units, others, False) == [puma]
    assert restarts.wanted({}, [gone], True) == [restarts.Listed("cron.service", False, "any")]
    own = preload.Change(places.drop_in_path("own.service", user=True), "x", None)
    assert restarts.wanted({}, [own], False) == [restarts.Listed("own.service", True, None)]


def entry(version: t.Optional[str], reason: str, before: t.Optional[str] = None) -> t.Dict[str, t.Any]:
    """Return what a service that needs a restart looks like in a result."""
    name = "puma.service"
    return {"name": name, "version": version, "uid": None, "unit": name, "before": before, "reason": reason}


def needed(*arguments: t.Any, **more: t.Any) -> t.List[t.Dict[str, t.Any]]:
    """Return the services that have to be restarted."""
    return [each for each in restarts.running(*arguments, **more) if each["reason"]]


def test_a_drop_in_that_changes_in_another_way_needs_a_restart_too(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use()
    fake.start("puma.service", "5.3.1")
    listed = [restarts.Listed("puma.service", False, "5.3.1")]
    path = places.drop_in_path("puma.service")
    changed = needed(fake, listed, prefix, [preload.Change(path, "old", "new")])
    assert changed == [entry("5.3.1", "its drop-in is going to differ", "old")]
    assert needed(fake, listed, prefix, [preload.Change(path, None, "new")]) == []


@pytest.mark.parametrize(
    ("runs", "version", "rebuilt", "reason"),
    [
        ([], "5.3.1", None, None),
        (["5.3.1", "5.3.1"], "5.3.1", None, None),
        (["5.3.1", "5.1.0", None], "5.3.1", None, "2 of its 3 processes do not map jemalloc 5.3.1"),
        (["5.3.1", "5.3.1"], "5.3.1", "5.3.1", "2 of its 2 processes do not map jemalloc 5.3.1"),
        (["5.3.1"], "5.3.1", "5.1.0", None),
        ([], "5.3.1", "5.3.1", None),
        ([None], None, None, None),
        ([None], None, "5.3.1", None),
        (["5.3.1", None], None, None, "1 of its 2 processes still map jemalloc"),
    ],
)
def test_running(
    use: t.Callable[..., Fake],
    prefix: str,
    runs: t.List[t.Optional[str]],
    version: t.Optional[str],
    rebuilt: t.Optional[str],
    reason: t.Optional[str],
) -> None:
    fake = use()
    for number, release in enumerate(runs):
        fake.start(f"{number}.service", release)
    for directory in fake.proc.iterdir():
        (directory / "cgroup").write_text("0::/system.slice/puma.service\n")
    expected = [] if reason is None else [entry(version, reason)]
    listed = [restarts.Listed("puma.service", False, version)]
    assert needed(fake, listed, prefix, rebuilt=rebuilt) == expected


@pytest.mark.parametrize("kill_mode", ["process", "none"])
def test_what_a_restart_spares_is_not_the_service(use: t.Callable[..., Fake], prefix: str, kill_mode: str) -> None:
    fake = use()
    listed = [restarts.Listed("puma.service", False, "5.3.1")]
    fake.start("puma.service", "5.3.1", count=2)
    (fake.proc / "101" / "maps").write_text("7f00-7f01 r-xp 0 08:01 12   /bin/sleep\n")
    assert needed(fake, listed, prefix) == [entry("5.3.1", "1 of its 2 processes do not map jemalloc 5.3.1")]
    assert restarts.prove(fake, [PUMA], prefix, -1) == {PUMA: "its process 101 does not map jemalloc 5.3.1"}
    fake.kill_mode = kill_mode
    assert needed(fake, listed, prefix) == []
    assert restarts.prove(fake, [PUMA], prefix, 60) == {}
    (fake.proc / "100" / "maps").write_text("7f00-7f01 r-xp 0 08:01 12   /usr/sbin/cron\n")
    assert needed(fake, listed, prefix) == [entry("5.3.1", "1 of its 1 processes do not map jemalloc 5.3.1")]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [("5.1.0", "5.1.0"), ("5.3.1", None), (None, None), ("5.2.0", None), (processes.DELETED, None)],
)
def test_before(use: t.Callable[..., Fake], prefix: str, runs: t.Optional[str], expected: t.Optional[str]) -> None:
    fake = use()
    assert restarts.before(PUMA, prefix) is None
    fake.start("puma.service", runs)
    assert restarts.before(PUMA, prefix) == expected


def test_before_with_two_releases_at_once(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use()
    fake.start("puma.service", "5.1.0", count=2)
    (fake.proc / "100" / "maps").write_text("")
    assert restarts.before(PUMA, prefix) == "5.1.0"
    (fake.proc / "100" / "maps").write_text((fake.proc / "101" / "maps").read_text().replace("5.1.0", "5.3.1"))
    assert restarts.before(PUMA, prefix) is None


@pytest.mark.parametrize(
    ("status", "output", "expected"),
    [
        (0, "", ""),
        (0, "a warning", ""),
        (124, "", "it did not start within 7 s"),
        (1, "", "it did not start: 1"),
        (1, "\n", "it did not start: 1"),
        (1, "Job for puma.service failed.\nSee more\n", "it did not start: Job for puma.service failed."),
    ],
)
def test_restart(status: int, output: str, expected: str) -> None:
    calls = []

    def run(arguments: t.Sequence[str], *_more: t.Any) -> t.Tuple[int, str]:
        calls.append(" ".join(arguments))
        return status, output

    assert restarts.restart(run, PUMA, 7) == expected
    assert calls == ["timeout 7 systemctl restart -- puma.service"]


def test_prove(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use()
    fake.start("puma.service", "5.3.1", count=3)
    fake.start("cron.service", None)
    assert restarts.prove(fake, [PUMA, restarts.Service("cron.service", None)], prefix, 60) == {}
    assert fake.calls == [
        f"systemctl show --property=ActiveState,MainPID,KillMode,NRestarts -- {unit}"
        for unit in ("puma.service", "cron.service") * 2
    ]


def test_prove_health(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use()
    fake.start("puma.service", "5.3.1", count=2)
    for pid in ("100", "101"):
        (fake.proc / pid / "smaps_rollup").write_text("00 ---p\nRss:  9999 kB\nPss:  1024 kB\nPss_Anon:  512 kB\n")
    for limit in (None, 2 << 20):
        assert restarts.prove_health(fake, [PUMA], prefix, 60, limit) == {}
    assert restarts.prove_health(fake, [PUMA], prefix, 60, 1 << 20) == {PUMA: "its processes take 2 MiB, more than 1"}
    fake.states["puma.service"] = "failed"
    assert restarts.prove_health(fake, [PUMA], prefix, -1, 1) == {PUMA: "it is failed"}


def test_prove_nobody(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use()
    assert restarts.prove(fake, [], prefix, 60) == {}
    assert fake.calls == []


@pytest.mark.parametrize(
    ("version", "runs", "state", "reason"),
    [
        ("5.3.1", "5.1.0", "active", "its process 100 does not map jemalloc 5.3.1"),
        ("5.3.1", None, "active", "its process 100 does not map jemalloc 5.3.1"),
        (None, "5.1.0", "active", "its process 100 still maps jemalloc"),
        ("5.3.1", "5.3.1", "activating", "it is activating"),
        ("5.3.1", "5.3.1", "failed", "it is failed"),
        ("5.3.1", "5.3.1", "", "it is not known to systemd"),
    ],
)
def test_prove_what_is_not_so(
    use: t.Callable[..., Fake],
    prefix: str,
    version: t.Optional[str],
    runs: t.Optional[str],
    state: str,
    reason: str,
) -> None:
    fake = use()
    fake.start("puma.service", runs)
    fake.states["puma.service"] = state
    service = restarts.Service("puma.service", version)
    assert restarts.prove(fake, [service], prefix, -1) == {service: reason}


def test_prove_a_service_without_processes(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use()
    fake.states["puma.service"] = "active"
    assert restarts.prove(fake, [PUMA], prefix, -1) == {PUMA: "it has no process"}


def test_prove_a_service_that_systemd_starts_over_and_over(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use()
    fake.start("puma.service", None)
    fake.again = 3
    assert restarts.prove(fake, [PUMA], prefix, -1) == {PUMA: "it does not stay up, systemd started it 3 times again"}
    fake.start("puma.service", "5.3.1")
    assert restarts.prove(fake, [PUMA], prefix, 60) == {}


@pytest.mark.parametrize(
    ("again", "reason"), [(0, "its main process changes"), (2, "systemd started it 2 times again")]
)
def test_prove_a_service_whose_main_process_changes(
    use: t.Callable[..., Fake], prefix: str, monkeypatch: pytest.MonkeyPatch, again: int, reason: str
) -> None:
    fake = use()
    fake.again = again
    fake.start("puma.service", "5.3.1")
    times = iter([0.0, 1.0, 2.0, 99.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    monkeypatch.setattr(time, "sleep", lambda _seconds: fake.start("puma.service", "5.3.1"))
    assert restarts.prove(fake, [PUMA], prefix, 10) == {PUMA: f"it does not stay up, {reason}"}


def test_prove_a_service_that_takes_its_time(
    use: t.Callable[..., Fake], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = use()
    fake.states["puma.service"] = "activating"
    monkeypatch.setattr(
        time, "sleep", lambda _seconds: fake.start("puma.service", "5.3.1") if len(fake.calls) == 2 else None
    )
    assert restarts.prove(fake, [PUMA], prefix, 60) == {}
    assert len(fake.calls) == 4


@pytest.mark.parametrize(
    ("answer", "expected"), [((0, "a\n\n b \n"), "a / b"), ((0, ""), ""), ((1, "No journal files were found."), "")]
)
def test_journal(use: t.Callable[..., Fake], answer: t.Tuple[int, str], expected: str) -> None:
    fake = use()
    fake.journal = answer
    assert restarts.journal(fake, PUMA) == expected
    command = "journalctl --no-pager --quiet --output=cat --lines=3"
    asked = [f"{command} _SYSTEMD_UNIT=puma.service", f"{command} --unit=puma.service"]
    assert fake.calls == (asked[:1] if expected else asked)


def test_all_goes_well(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use()
    drop_in(prefix)
    assert restarts.restart_and_prove(fake, [PUMA], prefix, 1) == (["puma.service"], [])


def test_a_release_that_does_not_start_goes_back_to_the_one_before(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use("5.3.1")
    path = drop_in(prefix)
    fake.start("puma.service", "5.1.0")
    fake.restarted, fake.journal = (1, "Job failed.\n"), (0, "jemalloc: bad\n")
    proved, failures = restarts.restart_and_prove(fake, [PUMA], prefix, 1)
    assert proved == []
    assert [str(failure) for failure in failures] == [
        "puma.service: it did not start: Job failed.; it runs again with jemalloc 5.1.0 as before; its journal ends "
        "with: jemalloc: bad"
    ]
    assert f"LD_PRELOAD={prefix}/5.1.0/lib/libjemalloc.so:/a.so\n" in path.read_text()
    assert fake.states["puma.service"] == "active"
    assert [call for call in fake.calls if "reset" in call or "reload" in call] == [
        "systemctl daemon-reload",
        "systemctl reset-failed -- puma.service",
    ]


def test_a_service_that_ran_without_it_goes_back_to_that(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use("5.3.1")
    path = drop_in(prefix)
    drop_in(prefix, "cron.service")
    fake.start("puma.service", None)
    fake.restarted = (124, "")
    cron = restarts.Service("cron.service", None)
    pathlib.Path(places.drop_in_path("cron.service")).unlink()
    proved, failures = restarts.restart_and_prove(fake, [PUMA, cron], prefix, 1)
    assert proved == ["cron.service"]
    assert [str(failure) for failure in failures] == [
        "puma.service: it did not start within 1 s; it runs again without the library as before"
    ]
    assert not path.parent.exists()


def test_one_that_does_not_start_goes_back_before_the_others_are_waited_for(
    use: t.Callable[..., Fake], prefix: str
) -> None:
    fake = use("5.3.1")
    for unit in ("puma.service", "sidekiq.service"):
        drop_in(prefix, unit)
    fake.restarted = (124, "")
    others = restarts.Service("cron.service", None)
    fake.start("cron.service", None)
    _proved, failures = restarts.restart_and_prove(
        fake, [PUMA, restarts.Service("sidekiq.service", "5.3.1"), others], prefix, 1
    )
    assert [failure.service.name for failure in failures] == ["puma.service", "sidekiq.service"]
    done = [call.split()[-1] for call in fake.calls if "restart" in call]
    assert done == ["puma.service", "puma.service", "sidekiq.service", "sidekiq.service", "cron.service"]


@pytest.mark.parametrize(("state", "stopped", "ends"), [("activating", 124, 2), ("activating", 0, 1), ("active", 0, 0)])
def test_a_start_that_hangs_is_ended(
    use: t.Callable[..., Fake], prefix: str, state: str, stopped: int, ends: int
) -> None:
    fake = use()
    drop_in(prefix)
    fake.states["puma.service"], fake.stopped = state, (stopped, "")
    assert restarts.go_back(fake, PUMA, prefix, None, 1) == "it runs again without the library as before"
    stop, kill = "timeout 5 systemctl stop -- puma.service", "systemctl kill --signal=SIGKILL -- puma.service"
    assert [call for call in fake.calls if "stop" in call or "kill" in call] == [stop, kill][:ends]


def test_a_service_that_was_broken_before_too(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use("5.1.0", "5.3.1")
    drop_in(prefix)
    fake.start("puma.service", "5.1.0")
    fake.restarted = (1, "")
    _proved, failures = restarts.restart_and_prove(fake, [PUMA], prefix, 1)
    assert [str(failure) for failure in failures] == [
        "puma.service: it did not start: 1; it does not run with jemalloc 5.1.0 as before either (it did not start: 1)"
    ]


@pytest.mark.parametrize("version", ["5.3.1", None])
def test_nothing_of_ours_to_take_back(use: t.Callable[..., Fake], prefix: str, version: t.Optional[str]) -> None:
    fake = use()
    if version is None:
        drop_in(prefix)
    service = restarts.Service("puma.service", version)
    assert restarts.go_back(fake, service, prefix, "5.1.0", 1) == "there is nothing of ours to take back"
    assert fake.calls == []


def test_a_drop_in_that_was_there_before_comes_back(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use("5.3.1")
    path = drop_in(prefix)
    before = path.read_text().replace("current", "5.1.0").replace(":/a.so", ":/b.so")
    fake.start("puma.service", "5.1.0")
    fake.restarted = (1, "")
    service = restarts.Service("puma.service", "5.3.1", before=before)
    _proved, failures = restarts.restart_and_prove(fake, [service], prefix, 1)
    assert failures[0].back == "it runs again with jemalloc 5.1.0 as before"
    assert path.read_text() == before


@pytest.mark.parametrize("starts", [False, True])
def test_all_instances_of_a_template_go_back(use: t.Callable[..., Fake], prefix: str, starts: bool) -> None:
    fake = use("5.3.1")
    path = drop_in(prefix, "job@.service")
    fake.restarted = (0 if starts else 1, "")
    services = [restarts.Service(f"job@{name}.service", "5.3.1", unit="job@.service") for name in "ab"]
    _proved, failures = restarts.restart_and_prove(fake, services, prefix, 1)
    back = "it runs again without the library as before"
    expected = [f"job@{name}.service: it is failed; {back}" for name in "ab"]
    if not starts:
        expected = [
            f"job@a.service: it did not start: 1; {back}",
            "job@b.service: another instance of job@.service failed; it runs as before",
        ]
    assert [str(failure) for failure in failures] == expected
    assert not path.parent.exists()


def test_a_service_of_a_user(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use()
    service = restarts.Service("agent.service", "5.3.1", 65534)
    restarts.restart(fake, service, 7)
    restarts.journal(fake, service)
    assert fake.calls[0].startswith("timeout 7 setpriv --reuid=65534 --regid=")
    assert "XDG_RUNTIME_DIR=/run/user/65534 systemctl --user restart -- agent.service" in fake.calls[0]
    assert fake.calls[1].endswith("_SYSTEMD_USER_UNIT=agent.service")
    assert fake.calls[2].endswith("--user-unit=agent.service")
    assert str(service) == "agent.service of user 65534"
    assert service.drop_in.endswith("/etc/systemd/user/agent.service.d/zz-preload-jemalloc.conf")
    assert systemd.command(4242)[1:3] == ["--reuid=4242", "--regid=4242"]


def test_what_the_files_say(root: pathlib.Path, prefix: str) -> None:
    texts = {"puma": f"{prefix}/current/lib/x", "cron": f"{prefix}/5.1.0/lib/x:/foreign", "nginx": "UnsetEnvironment="}
    for name, text in texts.items():
        path = pathlib.Path(places.drop_in_path(f"{name}.service"))
        path.parent.mkdir(parents=True)
        path.write_text(text)
    changes = [
        preload.Change(places.drop_in_path("puma.service"), "x", None),
        preload.Change(places.drop_in_path("job@.service", user=True), None, f"{prefix}/current/lib/x"),
        preload.Change("/etc/environment", None, "x"),
    ]
    assert sorted(restarts.by_files(changes, prefix, "5.3.1"), key=str) == [
        restarts.Listed("cron.service", False, "5.1.0"),
        restarts.Listed("job@.service", True, "5.3.1"),
        restarts.Listed("nginx.service", False, None),
        restarts.Listed("puma.service", False, None),
    ]
