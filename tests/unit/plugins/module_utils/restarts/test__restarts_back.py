# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back of services for which the proof does not come."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _managers as managers
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _relations as relations
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from tests.unit.plugins.module_utils.restarts.conftest import PUMA, Fake, drop_in


def test_all_goes_well(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use()
    drop_in(prefix)
    assert restarts.restart_and_prove(fake, [PUMA], prefix, 1, fake.warnings.append) == (["puma.service"], [])


def test_a_release_that_does_not_start_goes_back_to_the_one_before(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use("5.3.1")
    path = drop_in(prefix)
    fake.start("puma.service", "5.1.0")
    fake.restarted, fake.journal = (1, "Job failed.\n"), (0, "jemalloc: bad\n")
    proved, failures = restarts.restart_and_prove(fake, [PUMA], prefix, 1, fake.warnings.append)
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
    proved, failures = restarts.restart_and_prove(fake, [PUMA, cron], prefix, 1, fake.warnings.append)
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
        fake, [PUMA, restarts.Service("sidekiq.service", "5.3.1"), others], prefix, 1, fake.warnings.append
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


@pytest.mark.parametrize(
    ("refuses", "told"),
    [
        (False, "it does not run with jemalloc 5.1.0 as before either"),
        (True, "it is active, but not verified with jemalloc 5.1.0 as before"),
    ],
)
def test_a_service_that_was_broken_before_too(
    use: t.Callable[..., Fake], prefix: str, monkeypatch: pytest.MonkeyPatch, refuses: bool, told: str
) -> None:
    fake = use("5.1.0", "5.3.1")
    drop_in(prefix)
    fake.start("puma.service", "5.1.0")
    fake.restarted = (1, "")
    if refuses:
        monkeypatch.setattr(fake, "_restart", lambda _unit: (1, ""))
    _proved, failures = restarts.restart_and_prove(fake, [PUMA], prefix, 1, fake.warnings.append)
    assert [str(failure) for failure in failures] == [
        f"puma.service: it did not start: 1; {told} (it did not start: 1)"
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
    _proved, failures = restarts.restart_and_prove(fake, [service], prefix, 1, fake.warnings.append)
    assert failures[0].back == "it runs again with jemalloc 5.1.0 as before"
    assert path.read_text() == before


@pytest.mark.parametrize("starts", [False, True])
def test_all_instances_of_a_template_go_back(use: t.Callable[..., Fake], prefix: str, starts: bool) -> None:
    fake = use("5.3.1")
    path = drop_in(prefix, "job@.service")
    fake.restarted = (0 if starts else 1, "")
    services = [restarts.Service(f"job@{name}.service", "5.3.1", unit="job@.service") for name in "ab"]
    _proved, failures = restarts.restart_and_prove(fake, services, prefix, 1, fake.warnings.append)
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
    assert fake.calls[0].startswith("timeout --kill-after=1 7 setpriv --reuid=65534 --regid=")
    assert "XDG_RUNTIME_DIR=/run/user/65534 systemctl --user restart -- agent.service" in fake.calls[0]
    assert fake.calls[2].endswith("_SYSTEMD_USER_UNIT=agent.service")
    assert fake.calls[3].endswith("--user-unit=agent.service")
    assert str(service) == "agent.service of user 65534"
    assert service.drop_in.endswith("/etc/systemd/user/agent.service.d/zz-preload-jemalloc.conf")
    assert managers.command(4242)[:6] == [
        *("timeout", "--kill-after=1", "5s", "setpriv"),
        *("--reuid=4242", "--regid=4242"),
    ]


def test_what_stops_with_a_service_is_started_again(
    use: t.Callable[..., Fake], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = use("5.3.1")
    drop_in(prefix)
    cron = restarts.Service("cron.service", None)
    fake.start("cron.service", None)
    asked: t.List[t.Any] = []
    around = {PUMA.owned: ["web.service"], cron.owned: ["log.service", "at.service"]}
    ended = {
        "web.service": relations.Ended("web.service", PUMA.owned, ""),
        "log.service": relations.Ended("log.service", cron.owned, ""),
        "at.service": relations.Ended("at.service", cron.owned, "Job failed."),
    }

    def start_again(_run: t.Any, before: t.Mapping[t.Any, t.Sequence[str]], _timeout: int, failed: t.Any) -> t.Any:
        asked.append((before, list(failed)))
        return [ended.pop(name) for names in before.values() for name in names if name in ended]

    monkeypatch.setattr(relations, "around", lambda _run, _services: around)
    monkeypatch.setattr(relations, "start_again", start_again)
    fake.restarted, fake.journal = (1, "Job failed.\n"), (0, "")
    proved, failures = restarts.restart_and_prove(fake, [PUMA, cron], prefix, 1, fake.warnings.append)
    assert proved == ["cron.service"]
    assert asked == [({PUMA.owned: ["web.service"]}, [PUMA.owned]), (around, [PUMA.owned])]
    assert fake.warnings == ["log.service, which systemd stopped with cron.service, was started again."]
    assert [str(failure) for failure in failures] == [
        "puma.service: it did not start: Job failed.; it runs again without the library as before; web.service, which "
        "systemd stopped with puma.service, was started again",
        "at.service: systemd stopped it with cron.service, and it did not start again: Job failed.",
    ]
