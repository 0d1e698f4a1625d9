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
            return 0, f"ActiveState={self.states.get(unit, '')}\nMainPID={self.main_pid(unit)}\n"
        return self.journal if arguments[0] == "journalctl" else (0, "")

    def main_pid(self, unit: str) -> str:
        """Return the main process of a service."""
        return min((d.name for d in self.proc.iterdir() if unit in (d / "cgroup").read_text()), default="0")

    def _restart(self, unit: str) -> t.Tuple[int, str]:
        drop_in = pathlib.Path(preload.drop_in_path(unit))
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
    path = pathlib.Path(preload.drop_in_path(unit))
    path.parent.mkdir(parents=True)
    path.write_text(
        f"# preload.jemalloc\n[Service]\nEnvironment=LD_PRELOAD={prefix}/current/lib/libjemalloc.so:/a.so\n"
    )
    return path


def test_wanted(root: pathlib.Path) -> None:
    gone = preload.Change(preload.drop_in_path("cron.service"), "x", None)
    others = [
        preload.Change(preload.drop_in_path("puma.service"), None, "x"),
        preload.Change(f"{root}/etc/systemd/system.conf.d/{preload.DROP_IN}", "x", None),
        preload.Change("/usr/local/bin/jemalloc.sh", "x", None, link=True),
    ]
    units = [systemd.Unit("puma.service", "active")]
    cron = restarts.Service("cron.service", None)
    assert restarts.wanted(units, "5.3.1", [gone, *others], host_wide=False) == [PUMA, cron]
    assert restarts.wanted(units, "5.3.1", others, host_wide=False) == [PUMA]
    assert restarts.wanted([], "5.3.1", [gone], host_wide=True) == [restarts.Service("cron.service", "5.3.1")]
    assert restarts.wanted([], None, [gone], host_wide=False) == [cron]


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
def test_needed(
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
    expected = [] if reason is None else [{"name": "puma.service", "version": version, "reason": reason}]
    assert restarts.needed([restarts.Service("puma.service", version)], prefix, rebuilt) == expected


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
        f"systemctl show --property=ActiveState,MainPID -- {unit}" for unit in ("puma.service", "cron.service") * 2
    ]


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


def test_prove_a_service_that_is_started_over_and_over(
    use: t.Callable[..., Fake], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = use()
    fake.start("puma.service", "5.3.1")
    times = iter([0.0, 1.0, 2.0, 99.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    monkeypatch.setattr(time, "sleep", lambda _seconds: fake.start("puma.service", "5.3.1"))
    reason = "it does not stay up, its main process changes"
    assert restarts.prove(fake, [PUMA], prefix, 10) == {PUMA: reason}


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
    assert fake.calls == ["journalctl --no-pager --quiet --output=cat --lines=3 --unit=puma.service"]


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
    pathlib.Path(preload.drop_in_path("cron.service")).unlink()
    proved, failures = restarts.restart_and_prove(fake, [PUMA, cron], prefix, 1)
    assert proved == ["cron.service"]
    assert [str(failure) for failure in failures] == [
        "puma.service: it did not start within 1 s; it runs again without the library as before"
    ]
    assert not path.parent.exists()


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
