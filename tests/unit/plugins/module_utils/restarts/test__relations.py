# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd restarts along with a service, and what is started again, with a made-up systemctl."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _relations as relations
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd

UNITS: t.Dict[str, t.Dict[str, str]] = {
    "db.service": {
        "ActiveState": "active",
        "RequiredBy": "web.service idle.service",
        "TriggeredBy": "db.socket db.path",
    },
    "db.socket": {"ActiveState": "active"},
    "db.path": {"ActiveState": "inactive"},
    "web.service": {"ActiveState": "active", "ConsistsOf": "log.service db.service", "BoundBy": "job.service"},
    "idle.service": {"ActiveState": "inactive", "RequisiteOf": "behind.service"},
    "behind.service": {"ActiveState": "active"},
    "log.service": {"ActiveState": "reloading"},
    "job.service": {"ActiveState": "activating"},
}
DB: relations.Owned = ("db.service", None)


class Fake:
    """A systemd that starts units, unless they are broken; a unit can take some looks until its start has ended."""

    def __init__(self, units: t.Mapping[str, t.Mapping[str, str]], broken: t.Collection[str] = ()) -> None:
        self.units = {name: dict(properties) for name, properties in units.items()}
        self.broken = broken
        self.calls: t.List[str] = []
        self.pending = 0

    def __call__(
        self, arguments: t.Sequence[str], _directory: t.Optional[str] = None, _data: t.Optional[str] = None
    ) -> t.Tuple[int, str]:
        """Answer a command."""
        self.calls.append(" ".join(arguments))
        if "show" in arguments:
            return 0, "\n".join(map(self._shown, arguments[arguments.index("--") + 1 :]))
        if "start" in arguments:
            if arguments[-1] in self.broken:
                return 1, "Job failed.\nSee the journal."
            self.units[arguments[-1]]["ActiveState"] = "active"
        return 0, ""

    def _shown(self, unit: str) -> str:
        if self.pending:
            self.pending -= 1
            return f"Names={unit}\nActiveState=inactive\nJob=7\n"
        return "".join(f"{name}={value}\n" for name, value in {"Names": unit, **self.units[unit]}.items())


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relations, "INTERVAL", 0)


def test_along_goes_through_what_is_active() -> None:
    fake = Fake(UNITS)
    assert relations.along(fake, [DB]) == {DB: ["job.service", "log.service", "web.service"]}
    assert len(fake.calls) == 3  # one question for each step
    assert relations.along(fake, []) == {}


def test_along_asks_the_systemd_of_the_user() -> None:
    fake = Fake(UNITS)
    own = ("web.service", 1000)
    found = relations.along(fake, [DB, own])
    assert found == {
        DB: ["job.service", "log.service", "web.service"],
        own: ["db.service", "job.service", "log.service"],
    }
    assert any("1000" in call for call in fake.calls)


def test_around_has_what_starts_it_and_no_job() -> None:
    assert relations.around(Fake(UNITS), [DB]) == {DB: ["log.service", "web.service", "db.socket"]}


def test_a_unit_that_systemd_does_not_know() -> None:
    def run(_arguments: t.Sequence[str], _directory: t.Any, _data: t.Any) -> t.Tuple[int, str]:
        return 1, ""

    assert relations.along(run, [DB]) == {DB: []}
    assert relations.around(run, [DB]) == {DB: []}


def test_what_is_down_is_started_again() -> None:
    fake = Fake(
        {**UNITS, "web.service": {"ActiveState": "failed"}, "db.socket": {"ActiveState": "inactive"}}, ["db.socket"]
    )
    before = {DB: ["log.service", "web.service", "db.socket", "other.service"]}
    fake.pending = 1
    ended = relations.start_again(fake, before, 5, [("other.service", None)])
    assert ended == [
        relations.Ended("web.service", DB, ""),
        relations.Ended("db.socket", DB, "Job failed."),
    ]
    assert str(ended[0]) == "web.service, which systemd stopped with db.service, was started again"
    assert str(ended[1]) == "db.socket, which systemd stopped with db.service, did not start again: Job failed."
    assert not any("start -- log.service" in call for call in fake.calls)


def test_what_does_not_start_in_time() -> None:
    def run(arguments: t.Sequence[str], _directory: t.Any, _data: t.Any) -> t.Tuple[int, str]:
        return (124, "") if "start" in arguments else (0, "Names=web.service\nActiveState=inactive\n")

    ended = relations.start_again(run, {DB: ["web.service"]}, 7, [])
    assert ended == [relations.Ended("web.service", DB, "that takes more than 7 s")]


def test_a_start_that_never_ends_is_left_when_the_time_is_over() -> None:
    fake = Fake({"web.service": {"ActiveState": "activating"}})
    assert relations.start_again(fake, {DB: ["web.service"]}, 0, []) == []


@pytest.mark.parametrize(
    ("properties", "down"),
    [
        ({"ActiveState": "failed"}, True),
        ({"ActiveState": "inactive", "Job": "0", "SubState": "dead"}, True),
        ({"ActiveState": "inactive", "Job": "12"}, False),
        ({"ActiveState": "inactive", "SubState": "dead-before-auto-restart"}, False),
        ({"ActiveState": "activating", "SubState": "auto-restart"}, False),
        ({"ActiveState": "active"}, False),
        ({}, False),
    ],
)
def test_down(properties: t.Mapping[str, str], down: bool) -> None:
    assert systemd.is_down(properties) is down
