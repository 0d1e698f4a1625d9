# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes down which tasks of the role changed which host, so that check mode can be held against the real run."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: changes
type: notification
short_description: Writes the changed tasks of a play to a file
description:
  - One line a host and task, in C(predicted) in check mode, else in C(changed), below the scenario's own directory.
  - The first real run after one in check mode counts, as the step C(idempotence) plays the same file again.
"""


class CallbackModule(CallbackBase):
    """Collects the changed tasks of the scenario's converge playbook."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "changes"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: t.Any) -> None:
        """Begin with nothing."""
        self._path = Path(playbook._file_name)
        self._lines: set[str] = set()
        self._check = False

    def v2_runner_on_ok(self, result: t.Any) -> None:
        """Note a changed task of the role."""
        task = result.task
        self._check = self._check or task.check_mode
        if result.is_changed() and task.get_name().startswith("preload.jemalloc.jemalloc : "):
            self._lines.add(f"{result.host.get_name()}: {task.get_name().partition(' : ')[2]}")

    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        """Write the file."""
        if self._path.stem != "converge":
            return
        directory = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
        predicted, changed = (directory / "predicted", directory / "changed")
        text = "".join(f"{line}\n" for line in sorted(self._lines))
        if self._check:
            predicted.write_text(text, encoding="utf-8")
            changed.unlink(missing_ok=True)
        elif not changed.exists():
            changed.write_text(text, encoding="utf-8")
