# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The newest release as the action looks it up, from a real server on this machine."""

from __future__ import annotations

import http.server
import json
import pathlib
import threading
import typing as t
from unittest import mock

import pytest

from ansible_collections.preload.jemalloc.plugins.action import jemalloc as action
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _latest as latest

D = "d" * 64
ANSWERS: t.Dict[str, t.Any] = {
    "new": {"tag_name": "5.9.0", "assets": [{"name": "jemalloc-5.9.0.tar.bz2", "digest": f"sha256:{D}"}]},
    "known": {
        "tag_name": "5.3.1",
        "assets": [{"name": "jemalloc-5.3.1.tar.bz2", "digest": f"sha256:{catalogue.RELEASES['5.3.1'].sha256}"}],
    },
    "forged": {"tag_name": "5.3.1", "assets": [{"name": "jemalloc-5.3.1.tar.bz2", "digest": f"sha256:{D}"}]},
    "undigested": {"tag_name": "5.9.0", "assets": [{"name": "jemalloc-5.9.0.tar.bz2"}]},
    "unpacked": {"tag_name": "5.9.0", "assets": []},
    "tagged": {"tag_name": "v5.9.0-rc1", "assets": []},
    "list": [],
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as a releases API does."""

    asked: t.ClassVar[t.List[str]] = []

    def do_GET(self) -> None:
        """Answer."""
        name = self.path[1:]
        self.asked.append(name)
        if name not in ANSWERS and name != "page":
            self.send_error(403, "rate limit exceeded")
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>" if name == "page" else json.dumps(ANSWERS[name]).encode("ascii"))

    def log_message(self, *_arguments: t.Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> t.Iterator[str]:
    """Such a server; its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.mark.parametrize("latest", [None, False, "no"])
def test_nothing_is_looked_up_unless_asked_for(tmp_path: pathlib.Path, latest: t.Any) -> None:
    arguments = {"latest": latest, "latest_url": "http://127.0.0.1:1/", "version": "5.1.0"}
    assert action.with_latest(arguments, str(tmp_path)) == arguments


def test_latest(tmp_path: pathlib.Path, server: str) -> None:
    Handler.asked.clear()
    for _host in range(3):
        found = action.with_latest({"latest": True, "latest_url": f"{server}/new", "keep": 1}, str(tmp_path))
        assert found == {
            "latest": False,
            "latest_url": f"{server}/new",
            "keep": 1,
            "version": "5.9.0",
            "checksum": f"sha256:{D}",
        }
    assert Handler.asked == ["new"]
    found = action.with_latest({"latest": "yes", "latest_url": f"{server}/known"}, str(tmp_path))
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
        action.with_latest({"latest": True, "latest_url": f"{server}/{name}"}, str(tmp_path))
    assert str(caught.value).startswith("latest: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_requests_is_missing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latest, "HAS_REQUESTS", False)
    with pytest.raises(JemallocError, match="latest: the controller needs the Python package requests"):
        action.with_latest({"latest": True}, str(tmp_path))


def run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, **arguments: t.Any) -> t.Tuple[t.Any, t.List[t.Any]]:
    """Run the action; return its result and the arguments that the module got."""
    calls: t.List[t.Any] = []

    def execute(_self: t.Any, module_name: str, module_args: t.Any, task_vars: t.Any) -> t.Dict[str, t.Any]:
        calls.append((module_name, module_args, task_vars))
        return {"changed": True}

    monkeypatch.setattr(action.ActionModule, "_execute_module", execute)
    monkeypatch.setattr(action.constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    task = mock.MagicMock(args=arguments, async_val=0, check_mode=False)
    plugin = action.ActionModule(task, mock.MagicMock(), mock.MagicMock(), mock.MagicMock(), mock.MagicMock(), None)
    return plugin.run(task_vars={"x": 1}), calls


def test_the_action(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, calls = run(tmp_path, monkeypatch, version="5.1.0")
    assert result["changed"]
    assert calls == [("preload.jemalloc.jemalloc", {"version": "5.1.0"}, {"x": 1})]
    result, calls = run(tmp_path, monkeypatch, version="5.1.0", latest=True)
    assert result["failed"]
    assert result["msg"] == "latest: it excludes version and checksum; leave out the one or the other."
    assert calls == []
