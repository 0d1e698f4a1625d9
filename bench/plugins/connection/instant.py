# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to hosts that are not there: each module is answered at once, so that only the controller works."""

from __future__ import annotations

import json
import typing as t

from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: instant
short_description: Answers modules at once
description: Answers as a host would on which nothing has to be changed.
options: {}
"""

#: What a host answers on which all is as it should be.
_SCOPES: dict[str, t.Any] = {"changed": False, "files": [], "before": {}, "foreign": [], "services": [], "restarts": []}
_INSTALLED = {"changed": False, "version": "5.3.1", "built": None, "missing": None}
ANSWERS: dict[bytes, dict[str, t.Any]] = {
    b"plugins.modules.jemalloc_preload'": _SCOPES,
    b"plugins.modules.jemalloc'": {**_INSTALLED, "scopes": _SCOPES},
    b"": {"changed": False, "ping": "pong"},
}


class Connection(ConnectionBase):
    """Answers by the name of the module that it is given."""

    transport = "instant"
    has_pipelining = True

    def _connect(self) -> Connection:
        return self

    def exec_command(self, cmd: str, in_data: t.Any = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Answer a module; its name stands near the beginning of what carries it."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        text = in_data or b""
        answer = next(answer for name, answer in ANSWERS.items() if name in text[:20000])
        return 0, json.dumps(answer).encode(), b""

    def put_file(self, in_path: str, out_path: str) -> None:
        """Take a file."""

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Give no file."""

    def close(self) -> None:
        """End."""
