# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads of the controller from a real server: what it gets after all, and why it does not."""

from __future__ import annotations

import pathlib
import sys
import typing as t

import pytest
import requests

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _download as downloading

DATA = bytes(range(256)) * 1000


def fetch(url: str, path: pathlib.Path, limit: int = 1 << 20) -> list[tuple[int, int]]:
    """Download; return the progress that was reported."""
    reported: list[tuple[int, int]] = []
    downloading.download(url, str(path), limit, lambda come, total: reported.append((come, total)))
    return reported


@pytest.mark.parametrize("statuses", [[], [503], [500, 429, 502]])
@pytest.mark.parametrize("cut", [False, True])
def test_what_comes_in_the_end(server: t.Any, tmp_path: pathlib.Path, statuses: list[int], cut: bool) -> None:
    server.files["/file"], server.statuses["/file"] = DATA, list(statuses)
    server.cut = ["/file"] if cut else []
    reported = fetch(f"{server.address}/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert reported[-1] == (len(DATA), len(DATA))
    assert len(server.asked) == 1 + len(statuses) + cut


@pytest.mark.parametrize(
    ("statuses", "reason"),
    [([404], "the server answers 404 Not Found"), ([500] * 9, "the server has been failing all the time")],
)
def test_an_answer_for_good(server: t.Any, tmp_path: pathlib.Path, statuses: list[int], reason: str) -> None:
    server.files["/file"], server.statuses["/file"] = DATA, statuses
    with pytest.raises(JemallocError) as caught:
        fetch(f"{server.address}/file", tmp_path / "file")
    assert str(caught.value) == reason


def test_a_server_that_always_cuts(server: t.Any, tmp_path: pathlib.Path) -> None:
    server.files["/file"], server.cut = DATA, ["/file"] * 9
    with pytest.raises(JemallocError, match=r"^the connection ended before all had come \(tried 3 times\)$"):
        fetch(f"{server.address}/file", tmp_path / "file")


def test_more_than_a_release(server: t.Any, tmp_path: pathlib.Path) -> None:
    server.files["/file"] = DATA * 10
    with pytest.raises(JemallocError, match=r"^it is larger than 1 MiB, too much for a release$"):
        fetch(f"{server.address}/file", tmp_path / "file")


def test_nobody_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(JemallocError, match=r"^Connection refused$"):
        fetch("http://127.0.0.1:1/file", tmp_path / "file")
    with pytest.raises(JemallocError, match=r"^Invalid URL"):
        fetch("http:///file", tmp_path / "file")


def test_requests_is_missing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(
        JemallocError, match=r"^the controller lacks the Python package requests \(python3 -m pip install requests, "
    ):
        fetch("http://127.0.0.1:1/file", tmp_path / "file")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (requests.exceptions.SSLError("x"), "its certificate is not accepted; REQUESTS_CA_BUNDLE names "),
        (requests.exceptions.ConnectTimeout("x"), "no connection within 10 s"),
        (requests.exceptions.ConnectionError("x"), "no connection"),
        (requests.exceptions.TooManyRedirects("Exceeded 30 redirects."), "Exceeded 30 redirects."),
        (requests.exceptions.InvalidURL(), "InvalidURL"),
    ],
)
def test_reasons(error: Exception, reason: str) -> None:
    assert downloading._reason(error).startswith(reason)


def test_a_full_disk_names_the_file(server: t.Any, tmp_path: pathlib.Path) -> None:
    server.files["/file"] = DATA
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        fetch(f"{server.address}/file", tmp_path / "full")
    assert caught.value.filename == str(tmp_path / "full")
