# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarts, the proof and the way back, with a made-up /proc and a made-up systemctl."""

from __future__ import annotations

import os
import pathlib
import time
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _pending as pending
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from tests.unit.plugins.module_utils.restarts.conftest import PUMA, Fake


@pytest.mark.parametrize(
    ("runs", "expected"),
    [("5.1.0", "5.1.0"), ("5.3.1", None), (None, None), ("5.2.0", None), (processes.DELETED, None)],
)
def test_before(use: t.Callable[..., Fake], prefix: str, runs: t.Optional[str], expected: t.Optional[str]) -> None:
    fake = use()
    assert restarts.releases_before([PUMA], prefix) == {PUMA: None}
    fake.start("puma.service", runs)
    assert restarts.releases_before([PUMA], prefix) == {PUMA: expected}


def test_before_with_two_releases_at_once(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use()
    fake.start("puma.service", "5.1.0", count=2)
    (fake.proc / "100" / "maps").write_text("")
    assert restarts.releases_before([PUMA], prefix) == {PUMA: "5.1.0"}
    (fake.proc / "100" / "maps").write_text((fake.proc / "101" / "maps").read_text().replace("5.1.0", "5.3.1"))
    assert restarts.releases_before([PUMA], prefix) == {PUMA: None}


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
    properties = "Names,ActiveState,SubState,Job,MainPID,KillMode,NRestarts"
    assert fake.calls == [f"systemctl show --property={properties} -- puma.service cron.service"] * 2


MANY = [restarts.Service(f"s{number}.service", "5.3.1") for number in range(20)]


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch, root: pathlib.Path) -> t.List[str]:
    """What is listed of /proc, from now on."""
    found: t.List[str] = []
    listdir = os.listdir

    def counted(path: str = ".") -> t.List[str]:
        if str(path).startswith(f"{root}/proc"):
            found.append(str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", counted)
    return found


def test_many_services_take_one_scan_and_one_question(
    use: t.Callable[..., Fake], prefix: str, scans: t.List[str]
) -> None:
    fake = use()
    for service in MANY:
        fake.start(service.name, "5.1.0")
    scans.clear()
    assert restarts.releases_before(MANY, prefix) == dict.fromkeys(MANY, "5.1.0")
    assert (len(scans), len(fake.calls)) == (1, 0)
    listed = [pending.Listed(service.name, False, "5.3.1") for service in MANY]
    assert all(each["reason"] for each in pending.running(fake, listed, prefix))
    assert (len(scans), len(fake.calls)) == (2, 1)
    for service in MANY:
        fake.start(service.name, "5.3.1")
    scans.clear()
    assert restarts.prove(fake, MANY, prefix, 60) == {}
    assert (len(scans), len(fake.calls)) == (2, 3)
    assert restarts.prove_health(fake, MANY, prefix, 60, 1 << 20) == {}
    assert (len(scans), len(fake.calls)) == (5, 5)


def test_each_systemd_is_asked_for_its_own_services(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use()
    users = [restarts.Service("own.service", "5.3.1", uid) for uid in (65533, None, 65534)]
    services = [*users, restarts.Service("other.service", "5.3.1", 65533)]
    assert set(restarts.prove(fake, services, prefix, -1)) == set(services)
    asked = [call.partition(" -- ")[2] for call in fake.calls]
    assert asked == ["own.service other.service", "own.service", "own.service"] * 2
    assert ["XDG_RUNTIME_DIR" in call for call in fake.calls[:3]] == [True, False, True]


GOOD, MOVED, BAD, AGAIN, ENDED = (
    restarts.Look("", "1"),
    restarts.Look("", "2"),
    restarts.Look("it is bad", "1"),
    restarts.Look("", "3", "systemd started it again"),
    restarts.Look("it is failed", "0", final=True),
)


@pytest.mark.parametrize(
    ("takes", "looks", "reason"),
    [
        (100, [GOOD, GOOD], ""),
        (1, [GOOD, MOVED, MOVED], ""),
        (1, [GOOD, BAD, GOOD, GOOD], ""),
        (1, [BAD, BAD, BAD, GOOD, GOOD], ""),
        # nothing better is to be waited for
        (1, [GOOD, ENDED], "it is failed"),
        (1, [AGAIN._replace(final=True), AGAIN], ""),
        # the time is over when the second one begins
        (100, [BAD, GOOD, GOOD], ""),
        (100, [BAD, GOOD, BAD], "it is bad"),
        (100, [BAD, BAD], "it is bad"),
        (100, [GOOD, BAD], "it is bad"),
        (100, [GOOD, MOVED], "it does not stay up, its main process changes"),
        (100, [GOOD, AGAIN], "systemd started it again"),
        # a look takes so long that others are over before it
        (6, [BAD, BAD, GOOD, GOOD], ""),
        (6, [BAD, BAD, BAD], "it is bad"),
    ],
)
def test_the_clock_alone_fails_nobody(
    monkeypatch: pytest.MonkeyPatch, takes: int, looks: t.List[restarts.Look], reason: str
) -> None:
    now, made = [0.0], [0]

    def look(names: t.Sequence[str]) -> t.Dict[str, restarts.Look]:
        now[0] += takes
        made[0] += 1
        return {name: looks[made[0] - 1] if name == "a" else GOOD for name in names}

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    assert restarts.unsettled(look, ["b", "a", "b"], 10) == ({"a": reason} if reason else {})
    assert made[0] == len(looks)


def test_those_that_fail_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([{"a": BAD, "b": GOOD}, {"a": GOOD, "b": BAD}, {"a": BAD}])
    monkeypatch.setattr(restarts, "INTERVAL", 0)
    assert list(restarts.unsettled(lambda _names: next(looks), ["a", "b"], -1)) == ["a", "b"]


def test_each_failure_is_told_at_once_and_takes_no_time_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [0.0], []
    looks = iter([{"a": BAD, "b": ENDED}, {"a": BAD}, {"a": GOOD}, {"a": GOOD}])

    def failed(name: str, reason: str) -> None:
        told.append((name, reason, now[0]))
        now[0] += 100

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    reasons = restarts.unsettled(lambda _names: next(looks), ["a", "b"], 10, failed)
    assert (reasons, told) == ({"b": "it is failed"}, [("b", "it is failed", 0)])


@pytest.mark.parametrize(("again", "state", "reason"), [(3, "activating", "3 times again"), (2, "failed", "2 times")])
def test_a_service_that_does_not_come_up_is_not_waited_for(
    use: t.Callable[..., Fake], prefix: str, monkeypatch: pytest.MonkeyPatch, again: int, state: str, reason: str
) -> None:
    fake = use()
    fake.states["puma.service"] = "activating"

    def sleep(_seconds: float) -> None:
        fake.again, fake.states["puma.service"] = again, state

    monkeypatch.setattr(time, "sleep", sleep)
    assert reason in restarts.prove(fake, [PUMA], prefix, 1000)[PUMA]


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
    times = iter([0.0, 1.0, 99.0])
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
    assert fake.calls == ["timeout 5 journalctl --sync", *(asked[:1] if expected else asked)]
