# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The newest release, as upstream reports it: asked once for all hosts, and refused where the answer does not do."""

from __future__ import annotations

import pathlib
import sys
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _latest as latest
from tests.unit.plugins.action.releases import D, Handler


@pytest.mark.parametrize("wanted", [None, False, "no"])
def test_nothing_is_looked_up_unless_asked_for(tmp_path: pathlib.Path, wanted: t.Any) -> None:
    arguments = {"latest": wanted, "latest_url": "http://127.0.0.1:1/", "version": "5.1.0"}
    assert latest.with_latest(arguments, str(tmp_path)) == arguments


def test_latest(tmp_path: pathlib.Path, server: str) -> None:
    Handler.asked.clear()
    for _host in range(3):
        found = latest.with_latest({"latest": True, "latest_url": f"{server}/new", "keep": 1}, str(tmp_path))
        assert found == {
            "latest": False,
            "latest_url": f"{server}/new",
            "keep": 1,
            "version": "5.9.0",
            "checksum": f"sha256:{D}",
        }
    assert Handler.asked == ["new"]
    found = latest.with_latest({"latest": "yes", "latest_url": f"{server}/known"}, str(tmp_path))
    assert (found["version"], found.get("checksum")) == ("5.3.1", None)
    assert Handler.asked == ["new", "known"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "cannot be asked (403 Client Error: rate limit exceeded for url: "),
        ("page", "cannot be asked ("),
        ("undigested", "names no release with the digest of its .tar.bz2; name a version instead."),
        ("unpacked", "names no release"),
        ("tagged", "names no release"),
        ("list", "names no release"),
        ("forged", f"reports the digest {D} for jemalloc 5.3.1, where {catalogue.RELEASES['5.3.1'].sha256} is known"),
    ],
)
def test_an_answer_that_does_not_do(tmp_path: pathlib.Path, server: str, name: str, message: str) -> None:
    with pytest.raises(JemallocError) as caught:
        latest.with_latest({"latest": True, "latest_url": f"{server}/{name}"}, str(tmp_path))
    assert str(caught.value).startswith("latest: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_requests_is_missing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(JemallocError, match=r"^latest: the controller lacks the Python package requests \(.*\)\.$"):
        latest.with_latest({"latest": True}, str(tmp_path))


def test_an_address_with_a_password(tmp_path: pathlib.Path) -> None:
    with pytest.raises(JemallocError) as caught:
        latest.with_latest({"latest": True, "latest_url": "http://svc:s3cret@127.0.0.1:1/"}, str(tmp_path))
    assert str(caught.value).startswith("latest_url: a URL holds a user name or password")
    assert "s3cret" not in str(caught.value)
