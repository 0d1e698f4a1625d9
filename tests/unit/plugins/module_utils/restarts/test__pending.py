# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which services have to be restarted, with a made-up /proc and a made-up systemctl."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _pending as pending
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from tests.unit.plugins.module_utils.restarts.conftest import PUMA, Fake


def entry(version: t.Optional[str], reason: str, before: t.Optional[str] = None) -> t.Dict[str, t.Any]:
    """Return what a service that needs a restart looks like in a result."""
    name = "puma.service"
    service = {"name": name, "version": version, "uid": None, "unit": name, "before": before, "written": None}
    return {**service, "reason": reason}


def needed(*arguments: t.Any, **more: t.Any) -> t.List[t.Dict[str, t.Any]]:
    """Return the services that have to be restarted."""
    return [each for each in pending.running(*arguments, **more) if each["reason"]]


def test_a_drop_in_that_changes_in_another_way_needs_a_restart_too(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use()
    fake.start("puma.service", "5.3.1")
    listed = [pending.Listed("puma.service", False, "5.3.1")]
    path = places.drop_in_path("puma.service")
    changed = needed(fake, listed, prefix, [changes_util.Change(path, "old", "new")])
    assert changed == [entry("5.3.1", "its drop-in is going to differ", "old")]
    assert needed(fake, listed, prefix, [changes_util.Change(path, None, "new")]) == []


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
    listed = [pending.Listed("puma.service", False, version)]
    assert needed(fake, listed, prefix, rebuilt=rebuilt) == expected


def test_a_service_of_which_only_zombies_are_left_does_not_run(use: t.Callable[..., Fake], prefix: str) -> None:
    fake = use()
    fake.start("puma.service", "5.1.0")
    (fake.proc / "100" / "maps").write_text("")
    assert pending.running(fake, [pending.Listed("puma.service", False, "5.3.1")], prefix) == []


@pytest.mark.parametrize("kill_mode", ["process", "none"])
def test_what_a_restart_spares_is_not_the_service(use: t.Callable[..., Fake], prefix: str, kill_mode: str) -> None:
    fake = use()
    listed = [pending.Listed("puma.service", False, "5.3.1")]
    fake.start("puma.service", "5.3.1", count=2)
    (fake.proc / "101" / "maps").write_text("7f00-7f01 r-xp 0 08:01 12   /bin/sleep\n")
    assert needed(fake, listed, prefix) == [entry("5.3.1", "1 of its 2 processes do not map jemalloc 5.3.1")]
    assert restarts.prove(fake, [PUMA], prefix, -1) == {PUMA: "its process 101 does not map jemalloc 5.3.1"}
    fake.kill_mode = kill_mode
    assert needed(fake, listed, prefix) == []
    assert restarts.prove(fake, [PUMA], prefix, 60) == {}
    (fake.proc / "100" / "maps").write_text("7f00-7f01 r-xp 0 08:01 12   /usr/sbin/cron\n")
    assert needed(fake, listed, prefix) == [entry("5.3.1", "1 of its 1 processes do not map jemalloc 5.3.1")]


def test_what_the_files_say(root: pathlib.Path, prefix: str) -> None:
    texts = {"puma": f"{prefix}/current/lib/x", "cron": f"{prefix}/5.1.0/lib/x:/foreign", "nginx": "UnsetEnvironment="}
    for name, text in texts.items():
        path = pathlib.Path(places.drop_in_path(f"{name}.service"))
        path.parent.mkdir(parents=True)
        path.write_text(text)
    changes = [
        changes_util.Change(places.drop_in_path("puma.service"), "x", None),
        changes_util.Change(places.drop_in_path("job@.service", user=True), None, f"{prefix}/current/lib/x"),
        changes_util.Change("/etc/environment", None, "x"),
    ]
    listed = [
        pending.Listed("cron.service", False, "5.1.0", texts["cron"]),
        pending.Listed("job@.service", True, "5.3.1", texts["puma"]),
        pending.Listed("nginx.service", False, None, texts["nginx"]),
    ]
    assert sorted(pending.by_files(changes, prefix, "5.3.1"), key=str) == [
        *listed,
        pending.Listed("puma.service", False, None),
    ]
    assert sorted(pending.by_files(changes, prefix, "5.3.1", host_wide=True), key=str) == [
        *listed,
        pending.Listed("puma.service", False, "any"),
    ]
