# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a download makes of answers; tests/faults asks real servers."""

from __future__ import annotations

import io
import pathlib
import socket
import ssl
import time
import typing as t
from email.message import Message
from urllib.error import HTTPError, URLError

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _download as module
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError


class Answer(io.BytesIO):
    """An HTTP response."""

    def __init__(self, body: bytes, status: int = 200, **headers: str) -> None:
        super().__init__(body)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Server:
    """Gives the answers one after the other; remembers what was asked."""

    def __init__(self, *answers: t.Union[Answer, Exception]) -> None:
        self.answers = list(answers)
        self.ranges: t.List[t.Optional[str]] = []

    def __call__(self, _url: str, headers: t.Dict[str, str], _timeout: int) -> Answer:
        """Answer."""
        self.ranges.append(headers.get("Range"))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def refused(code: int, reason: str = "No") -> HTTPError:
    """Return the error of urllib for an answer."""
    return HTTPError("http://x", code, reason, Message(), io.BytesIO())


def fetch(tmp_path: pathlib.Path, *answers: t.Union[Answer, Exception]) -> t.Tuple[t.Union[bytes, str], Server]:
    """Return what was downloaded, or why nothing was."""
    server = Server(*answers)
    try:
        module.download("http://x", str(tmp_path / "to"), 100, server)
    except JemallocError as error:
        return str(error), server
    return (tmp_path / "to").read_bytes(), server


def test_at_once(tmp_path: pathlib.Path) -> None:
    found, server = fetch(tmp_path, Answer(b"whole", Content_Length="5"))
    assert (found, server.ranges) == (b"whole", [None])


def test_the_rest_is_asked_for(tmp_path: pathlib.Path) -> None:
    half = Answer(b"who", Content_Length="5")
    found, server = fetch(tmp_path, half, Answer(b"le", 206, Content_Length="2", Content_Range="bytes 3-4/5"))
    assert (found, server.ranges) == (b"whole", [None, "bytes=3-"])


@pytest.mark.parametrize("answer", [Answer(b"whole"), Answer(b"whole", 206, Content_Range="bytes 0-4/5")])
def test_a_server_that_knows_no_rest_sends_the_whole(tmp_path: pathlib.Path, answer: Answer) -> None:
    found, _server = fetch(tmp_path, Answer(b"who", Content_Length="5"), answer)
    assert found == b"whole"


def test_a_rest_that_is_none(tmp_path: pathlib.Path) -> None:
    found, server = fetch(tmp_path, Answer(b"who", Content_Length="5"), refused(416), Answer(b"whole"))
    assert (found, server.ranges) == (b"whole", [None, "bytes=3-", None])


@pytest.mark.parametrize(
    "failure",
    [refused(503), refused(429), URLError(ConnectionRefusedError(111, "refused")), TimeoutError("timed out")],
)
def test_what_passes_is_tried_again(tmp_path: pathlib.Path, failure: Exception) -> None:
    assert fetch(tmp_path, failure, failure, Answer(b"whole"))[0] == b"whole"
    message, server = fetch(tmp_path, *[failure] * 3)
    assert len(server.ranges) == 3
    assert str(message).endswith(" (tried 3 times)")


UNKNOWN = ssl.SSLCertVerificationError(1, "certificate verify failed")
UNKNOWN.verify_message = "unable to get local issuer certificate"


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (refused(404, "Not Found"), "the server answers 404 Not Found"),
        (refused(302, "a loop.\nThe last error was:"), "the server answers 302 a loop."),
        (refused(410, ""), "the server answers 410"),
        (URLError(socket.gaierror(socket.EAI_NONAME, "Name or service not known")), "Name or service not known"),
        (
            URLError(UNKNOWN),
            "its certificate is not accepted (unable to get local issuer certificate); name the authority behind it "
            "by ca_path",
        ),
        (ValueError("no URL"), "no URL"),
        (Answer(b"x" * 101), "it is larger than 0 MiB, too much for a release"),
    ],
)
def test_what_lasts_is_not_tried_again(
    tmp_path: pathlib.Path, failure: t.Union[Answer, Exception], message: str
) -> None:
    found, server = fetch(tmp_path, failure)
    assert (found, len(server.ranges)) == (message, 1)


def test_time_is_limited(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 0, 1, 5, 5, 1000])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert fetch(tmp_path, Answer(b"whole"))[0] == b"whole"
    assert fetch(tmp_path, Answer(b"whole"))[0] == "it took more than 300 s"


def test_no_attempt_begins_after_the_time(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 0, 1000])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert fetch(tmp_path, refused(503))[0] == "the server answers 503 No (tried 1 times)"


def test_a_full_disk_is_no_fault_of_the_server() -> None:
    server = Server(Answer(b"x" * 99))
    with pytest.raises(OSError, match="No space left on device"):
        module.download("http://x", "/dev/full", 100, server)
    assert server.ranges == [None]


def test_a_full_disk_that_shows_in_the_middle(tmp_path: pathlib.Path) -> None:
    server = Server(Answer(b"x" * 100_000))
    with pytest.raises(OSError, match="No space left on device"):
        module.download("http://x", "/dev/full", 1 << 20, server)
    assert server.ranges == [None]
