# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module of this collection as a process that can be killed: its name, its arguments as JSON."""

from __future__ import annotations

import importlib
import json
import sys

from ansible.module_utils.testing import patch_module_args

if __name__ == "__main__":
    module = importlib.import_module(f"ansible_collections.preload.jemalloc.plugins.modules.{sys.argv[1]}")
    with patch_module_args(json.loads(sys.argv[2])):
        module.main()
