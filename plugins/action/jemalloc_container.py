# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets containers preload jemalloc with the module of the same name, whose answer is checked on the controller."""

from __future__ import annotations

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _action as base


class ActionModule(base.PlainAction):
    """Runs the module."""

    NAME = "jemalloc_container"
