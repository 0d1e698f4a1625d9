# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills a play when a task begins, counted by the environment variable INTERRUPT_AT from 1."""

from __future__ import annotations

import os
import signal
import typing as t

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: interrupt
type: notification
short_description: Kill a play when a task begins
description: For a test.
"""


class CallbackModule(CallbackBase):
    """Counts the tasks that begin, those of handlers too."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "interrupt"
    CALLBACK_NEEDS_ENABLED = True

    _begun = 0

    def _begin(self) -> None:
        self._begun += 1
        if self._begun == int(os.environ["INTERRUPT_AT"]):
            os.kill(os.getpid(), signal.SIGKILL)

    def v2_playbook_on_task_start(self, task: t.Any, is_conditional: bool) -> None:
        """Count a task."""
        self._begin()

    def v2_playbook_on_handler_task_start(self, task: t.Any) -> None:
        """Count a handler."""
        self._begin()
