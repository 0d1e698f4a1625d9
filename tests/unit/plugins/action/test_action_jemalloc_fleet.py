# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who builds for whom in a run, and whose builds a host takes."""

from __future__ import annotations

import contextlib
import time
import typing as t

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.preload.jemalloc.plugins.action import jemalloc as action
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _display as display
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _fleet as fleet
from tests.unit import packed
from tests.unit.plugins.action.plays import BUNDLE, HOSTS, MISSING, Play


def test_no_host_takes_a_build_of_a_later_one(play: Play) -> None:
    for name in ("web2", "web1", "web3"):
        assert play.run(name)["changed"]
    assert play.builds() == ["web2", "web1"]
    assert play.said[-1] == "web3: installing jemalloc 5.3.1, built on web2"  # the older one of two that do
    assert [entry["builder"] for entry in play.cache().entries()] == ["web2", "web1"]


def test_each_host_for_itself(play: Play) -> None:
    for name in ("web1", "web2"):
        assert play.run(name, build="never", build_shared=False)["missing"]
    for name in ("web2", "web1"):
        assert play.run(name, build="chosen", missing=MISSING, build_shared="no")["changed"]
    assert play.run("web3", build_shared=False)["changed"]
    assert play.builds() == ["web2", "web1", "web3"]
    assert not any("waiting" in line for line in play.said)


def test_only_the_chosen_one_builds(play: Play) -> None:
    assert play.volunteer("web3", "web1", "web2") == dict.fromkeys(("web1", "web2", "web3"), MISSING)
    for check in (True, False):
        built = [play.run(name, check, build="chosen", missing=MISSING)["changed"] for name in ("web2", "web1", "web3")]
        assert built == [False, True, False]
    assert "web2, web3: waiting for that build" in play.said
    assert play.builds() == ["web1", "web1"]  # the first of which was in check mode
    calls = len(play.calls)
    assert [play.run(name, missing=MISSING)["changed"] for name in ("web2", "web3")] == [True, True]
    assert len(play.calls) == calls + 2


def test_a_host_uses_the_first_builder_that_fits(play: Play) -> None:
    play.needs = {"web1": {"libc_version": "2.41"}, "web2": {"libc_version": "2.36"}, "web3": {"libc_version": "2.41"}}
    play.answers = {"web1": {"bundle": packed.bundle(b"1")}, "web2": {"bundle": packed.bundle(b"2")}}
    needs = play.volunteer("web3", "web2", "web1")
    for name in ("web2", "web3", "web1"):  # whichever is done first
        play.run(name, build="chosen", missing=needs[name])
    assert play.builds() == ["web2", "web1"]
    assert play.run("web3", missing=needs["web3"])["changed"]
    assert play.said[-1] == "web3: installing jemalloc 5.3.1, built on web1"


def test_a_false_claim_reaches_nobody_before_it(play: Play) -> None:
    play.needs["web2"] = {"libc_version": "1.0"}
    play.answers["web2"] = {"bundle": packed.bundle(b"evil", platform=packed.platform(libc_lowest="1.0"))}
    needs = play.volunteer(*HOSTS)
    for name in HOSTS:
        play.run(name, build="chosen", missing=needs[name])
    for name in ("web3", "builder"):
        play.run(name, missing=needs[name])
    assert play.builds() == ["web1", "web2"]
    assert play.said[-2:] == [f"{name}: installing jemalloc 5.3.1, built on web1" for name in ("web3", "builder")]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"release": "5.3.0"}, "it holds jemalloc 5.3.0, not 5.3.1"),
        ({"source": {"sha256": "7" * 64}}, "it was built from another source"),
        ({"platform": packed.platform(libc_lowest="2.38")}, "it needs glibc 2.38, web1 has 2.36"),
    ],
)
def test_a_bundle_that_is_not_what_was_asked_for(play: Play, made: t.Dict[str, t.Any], reason: str) -> None:
    play.answers["web1"] = {"bundle": packed.bundle(**made)}
    needs = play.volunteer("web1", "web2")
    result = play.run("web1", build="chosen", missing=needs["web1"])
    assert result["failed"]
    assert result["msg"].startswith(f"cache: the bundle from web1 is refused: {reason}.")
    assert play.run("web2", missing=needs["web2"])["changed"]
    assert play.builds() == ["web1", "web2"]
    assert [entry["builder"] for entry in play.cache().entries()] == ["web2"]


def test_another_one_takes_over(play: Play) -> None:
    play.volunteer("web1", "web2", "web3")
    play.answers["web1"] = {"build": {"failed": True, "msg": "It burns."}}
    assert play.run("web1", build="chosen", missing=MISSING)["msg"] == "It burns."
    assert not play.run("web3", build="chosen", missing=MISSING)["changed"]
    for name in ("web2", "web3"):
        assert play.run(name, missing=MISSING)["changed"]
    assert play.builds() == ["web1", "web2"]


def test_a_host_that_is_gone_builds_nothing(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    play.volunteer("web1", "web2")

    def position(*_arguments: t.Any) -> t.NoReturn:
        raise AnsibleConnectionFailure("gone")

    with monkeypatch.context() as patch:
        patch.setattr(fleet, "position", position)
        with pytest.raises(AnsibleConnectionFailure):
            play.run("web1", build="chosen", missing=MISSING)
    assert play.run("web2", missing=MISSING)["changed"]
    assert play.builds() == ["web2"]


def test_the_next_one_builds_as_an_earlier_one_does_not_come(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    play.volunteer("web1", "web2")
    slept: t.List[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(slept))
    assert play.run("web2", missing=MISSING)["changed"]
    assert play.builds() == ["web2"]
    assert action.PATIENCE < sum(slept) < action.PATIENCE + 1


def test_a_host_waits_for_an_earlier_one_that_builds(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    play.volunteer("web1", "web2")
    cache, need = play.cache(), packed.need(sources=MISSING["sources"])
    other = contextlib.ExitStack()
    other.enter_context(cache.lock(need.lock("web1"), "web1"))

    def say(words: str, **_more: t.Any) -> None:
        play.said.append(words)
        if "waiting" in words:
            cache.add(BUNDLE, "web1")
            other.close()

    monkeypatch.setattr(display, "say", say)
    assert play.run("web2")["changed"]
    assert play.builds() == []
    assert play.said == [
        "web2: waiting for jemalloc 5.3.1 for x86_64-glibc, which web1 builds",
        "web2: installing jemalloc 5.3.1, built on web1",
    ]


BUILD: t.Dict[str, t.Any] = {"build": "chosen", "build_host": "old", "method": "source", "prefix": "/opt/x"}
INSTALL: t.Dict[str, t.Any] = {"build_host": "old", "method": "bundle", "missing": MISSING}


@pytest.fixture
def delegated(play: Play) -> Play:
    """A play with a group of build hosts, the first of which is for another architecture; a host of it asks."""
    play.groups = {"all": [*HOSTS, "arm", "new", "older"], "old": ["arm", "new", "older"]}
    play.needs = {
        "arm": {"architecture": "aarch64"},
        "new": {"libc_version": "2.41"},
        "older": {"libc_version": "2.31"},
    }
    lowest = {"new": "2.38", "older": "2.17"}
    play.answers = {
        name: {"bundle": packed.bundle(platform=packed.platform(libc_lowest=libc))} for name, libc in lowest.items()
    }
    return play


def ask_all(play: Play, name: str, check: bool = False, **arguments: t.Any) -> t.List[bool]:
    """Let the build hosts build one after the other, as the role does; return which of them changed."""
    found = []
    for builder in play.groups["old"]:
        result = play.run(name, check, _delegate=builder, **{**BUILD, "missing": MISSING, **arguments})
        assert not result.get("failed"), result
        found.append(result["changed"])
    return found


def test_a_group_of_build_hosts(delegated: Play) -> None:
    play = delegated
    play.volunteer("web1", "web2", build_host="old")
    play.said.clear()
    assert ask_all(play, "web2") == [False] * 3  # it is another one's turn
    assert (play.calls[2:], play.said) == ([], [])
    assert ask_all(play, "web1") == [False, True, True]
    assert play.builds() == ["new", "older"]
    assert play.said[:2] == [
        "web1: building jemalloc 5.3.1 for x86_64-glibc on new (1 of 1)",
        "web2: waiting for that build",
    ]
    for name in ("web2", "web1"):
        assert play.run(name, **INSTALL)["changed"]
        assert play.said[-1] == f"{name}: installing jemalloc 5.3.1, built on older"
    assert ask_all(play, "web1") == [False] * 3  # it is there


def test_check_mode_of_a_group_of_build_hosts(delegated: Play) -> None:
    play = delegated
    play.volunteer("web1", build_host="old")
    assert ask_all(play, "web1", True) == [False, True, True]
    assert play.run("web1", True, **INSTALL)["changed"]
    assert play.run("web1", True, **{**INSTALL, "missing": {}})["failed"]
    assert (play.cache().entries(), play.installed) == ([], set())


def test_check_mode_counts_a_build_once(delegated: Play) -> None:
    play = delegated
    play.groups["old"] = ["older", "new"]
    play.needs["web2"] = {"libc_version": "2.32"}
    play.volunteer("web1", "web2", build_host="old")
    missing = {**MISSING, "libc_version": "2.32"}
    for check, installed in ((True, set()), (False, {"older"})):
        assert ask_all(play, "web1", check) == [True, False]
        assert ask_all(play, "web2", check, missing=missing) == [False, False]  # its turn too, and it is there
        assert play.installed == installed


def test_a_build_host_that_has_it_already(delegated: Play) -> None:
    play = delegated
    play.installed.add("older")
    play.groups["old"] = ["older"]
    play.volunteer("web1", build_host="old")
    assert ask_all(play, "web1") == [False]
    assert play.builds() == []
    assert play.run("web1", **INSTALL)["changed"]
    assert play.said == ["web1: installing jemalloc 5.3.1, built on older"]


def test_a_build_host_that_fails(delegated: Play) -> None:
    play = delegated
    play.answers["older"] = {"look": {"failed": True, "msg": "No Python."}}
    play.volunteer("web1", build_host="old")
    result = play.run("web1", _delegate="older", **{**BUILD, "missing": MISSING})
    assert (result["failed"], result["msg"]) == (True, "No Python.")


def test_no_other_host_chooses_what_a_build_host_builds(delegated: Play) -> None:
    play = delegated
    asked: t.Dict[str, t.Any] = {"version": "5.3.1", "build_host": "old"}
    play.needs["web1"] = {"version": "5.3.0", "checksum": f"sha256:{'0' * 64}"}
    assert play.run("web1", build="never", **asked)["failed"]
    needs = play.volunteer("web2", **asked)
    lie = {**MISSING, **play.needs["web1"]}
    for each in ("old", "older"):
        assert play.run("web1", _delegate=each, **{**BUILD, **asked, "missing": lie})["failed"]
    assert play.builds() == []
    assert ask_all(play, "web2", **asked, missing=needs["web2"]) == [False, True, True]
    given = [arguments for name, _leaf, arguments in play.calls if name in ("new", "older") and "build" in arguments]
    assert {(each["version"], each.get("checksum")) for each in given} == {("5.3.1", None)}
    assert play.run("web1", **{**INSTALL, "missing": lie})["failed"]


def test_only_build_hosts_are_trusted_where_there_are_any(delegated: Play) -> None:
    play = delegated
    play.cache().add(BUNDLE, "web1")
    assert play.run("web2", build_host="old", method="bundle")["failed"]
    assert play.run("web2", build_host="old")["changed"]
    assert play.builds() == ["web2"]
    play.cache().add(BUNDLE, "older")
    assert play.run("web3", build_host="old")["changed"]
    assert play.said[-1] == "web3: installing jemalloc 5.3.1, built on older"


def test_a_host_outside_of_the_inventory_builds_for_itself(play: Play) -> None:
    assert play.run("web1")["changed"]
    assert play.run("localhost")["changed"]
    assert play.builds() == ["web1", "localhost"]
