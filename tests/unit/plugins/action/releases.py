# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that answers as the API of releases does."""

from __future__ import annotations

import http.server
import json
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue

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
        answer = b"<html>" if name == "page" else ANSWERS[name]
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode("ascii"))

    def log_message(self, *_arguments: t.Any) -> None:
        """Say nothing."""
