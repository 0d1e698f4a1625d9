# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that were taken over: what they answer is refused by one sentence, and the controller does nothing of it."""

from __future__ import annotations

import os
import typing as t

import pytest

from tests.unit import packed
from tests.unit.plugins.action.plays import MISSING, Play
from tests.unit.plugins.action.releases import D

REFUSED = "web1: the answer of its module jemalloc is refused, missing"
FORM = "is not of the form that it has to have"
OTHER = "is not what this task asks for"


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"sources": ["{planted}"]}, f".sources {FORM}"),
        ({"sources": ["/dev/zero"]}, f".sources {FORM}"),
        ({"sources": [5]}, f".sources {FORM}"),
        ({"sources": "x"}, f".sources {FORM}"),
        ({"sources": ["a\0b"]}, f".sources {FORM}"),
        ({"sources": ["0" * 64]}, f".sources {OTHER}"),
        ({"sources": []}, f".sources {OTHER}"),
        ({"archives": ["http://127.0.0.1:1/admin/delete?all=1&x="]}, f" {FORM}"),
        ({"architecture": "\x1b[2J\x1b]0;x\a"}, f".architecture {FORM}"),
        ({"libc_version": "1.x"}, f".libc_version {FORM}"),
        ({"lg_page": "12"}, f".lg_page {FORM}"),
        ({"version": "5.1.0"}, f".version {OTHER}"),
        ({"checksum": f"sha256:{D}"}, f".checksum {OTHER}"),
        ({"options": {"cxx": True, "prof": False, "lg_page": None}}, f".options {OTHER}"),
    ],
)
def test_what_a_host_says_is_missing_and_cannot_be(
    play: Play, early: bool, change: t.Dict[str, t.Any], wrong: str
) -> None:
    planted = play.directory / "authorized_keys"
    planted.write_text("key")
    play.needs["web1"] = {**change, "sources": [str(planted)]} if change.get("sources") == ["{planted}"] else change
    if early:
        result = play.run("web1")
    else:  # as the role hands on what an earlier task registered
        missing = {**MISSING, **play.needs["web1"]}
        result = play.run("web1", _delegate="builder", build="chosen", missing=missing, method="source")
    assert (result["failed"], set(result)) == (True, {"failed", "msg"})
    assert result["msg"].startswith(f"{REFUSED}{wrong}. Nothing of it was used. ")
    assert planted.read_text() == "key"
    assert not (play.directory / "cache").exists()
    assert play.builds() == []
    assert play.run("web2")["changed"]  # the others go on


def test_missing_that_is_no_mapping(play: Play) -> None:
    for missing, wrong in (("x", ""), ([1], ""), ({"version": 1}, ".version")):
        result = play.run("web1", missing=missing)
        assert result["msg"].startswith(f"{REFUSED}{wrong} {FORM}. ")
    assert play.calls == []


def test_a_build_host_that_lies(play: Play) -> None:
    play.volunteer("web1", build_host="builder")
    play.needs["builder"] = {"sources": ["0" * 64]}
    wanted: t.Dict[str, t.Any] = {"build": "chosen", "method": "source", "build_host": "builder", "missing": MISSING}
    result = play.run("web1", _delegate="builder", **wanted)
    assert result["msg"].startswith(f"{REFUSED.replace('web1', 'builder')}.sources {OTHER}. ")
    assert play.builds() == []


@pytest.mark.parametrize("arguments", [{"method": "package"}, {"version": "previous"}, {"state": "absent"}])
def test_what_is_missing_where_nothing_can_be(play: Play, arguments: t.Dict[str, t.Any]) -> None:
    result = play.run("web1", **arguments)
    assert result["msg"].startswith(f"{REFUSED} is set where this task leaves nothing to build. ")
    assert play.builds() == []


def test_options_as_a_play_may_write_them(play: Play) -> None:
    options = {"cxx": True, "prof": False, "lg_page": 16}
    play.needs["web1"] = {"options": options}
    play.answers["web1"] = {"bundle": packed.bundle(options=options)}
    assert play.run("web1", options={"cxx": "yes", "lg_page": "16"})["changed"]
    result = play.run("web2", options={"cxx": "perhaps"})
    assert result["msg"].startswith("options: ")


def test_a_bundle_that_is_none(play: Play) -> None:
    play.answers["packed"] = {"content": "eA=="}
    result = play.run("web1")
    assert result["msg"].startswith("web1: the answer of its module jemalloc_bundle is refused, content is no bundle")
    assert os.listdir(str(play.directory / "cache" / "bundles")) == []
