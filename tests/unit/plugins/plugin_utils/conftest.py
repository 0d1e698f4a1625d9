# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real web server on this machine, which answers as a test says."""

from __future__ import annotations

import http.server
import threading
import typing as t

import pytest


class Server(http.server.ThreadingHTTPServer):
    """Serves texts by their paths; statuses has those that a path answers with first, one after the other."""

    def __init__(self) -> None:
        """Listen on a free port."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.statuses: dict[str, list[int]] = {}
        self.cut: list[str] = []
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers a request."""

    def do_GET(self) -> None:
        """Answer."""
        server = t.cast(Server, self.server)
        server.asked.append(self.path)
        statuses = server.statuses.get(self.path, [])
        status = statuses.pop(0) if statuses else 200 if self.path in server.files else 404
        data = server.files.get(self.path, b"")
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) if status == 200 else 0))
        self.end_headers()
        if status == 200:
            cut = self.path in server.cut
            self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                server.cut.remove(self.path)

    def log_message(self, *_arguments: t.Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> t.Iterator[Server]:
    """Such a server."""
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()
