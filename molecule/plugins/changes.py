# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes down which tasks of the role changed which host, so that check mode can be held against the real run."""

from __future__ import annotations

import os
from pathlib import Path

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: changes
type: notification
short_description: Writes the changed tasks of a play to a file
description: One line a host and task in a file named after the playbook, with C(check-) in front in check mode.
"""


class CallbackModule(CallbackBase):
    """Appends to a file below the scenario's own directory of molecule."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "changes"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook) -> None:
        """Begin an empty file."""
        self._name = Path(playbook._file_name).stem
        self._lines: set[str] = set()
        self._check = False

    def v2_runner_on_ok(self, result) -> None:
        """Note a changed task of the role."""
        task = result.task
        self._check = self._check or task.check_mode
        if result.is_changed() and task.get_name().startswith("preload.jemalloc.jemalloc : "):
            self._lines.add(f"{result.host.get_name()}: {task.get_name()}")

    def v2_playbook_on_stats(self, stats) -> None:
        """Write the file."""
        directory = os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY")
        if directory:
            path = Path(directory, f"{'check-' if self._check else ''}{self._name}.changes")
            # The first run counts: "idempotence" of molecule plays the same file again.
            if not path.exists():
                path.write_text("".join(f"{line}\n" for line in sorted(self._lines)), encoding="utf-8")
