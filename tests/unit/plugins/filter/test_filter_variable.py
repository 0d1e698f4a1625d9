# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter variable."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.preload.jemalloc.plugins.filter import variable


def test_a_variable() -> None:
    convert = variable.FilterModule().filters()["variable"]
    assert convert("1,100%", "jemalloc_serial") == ["1", "100%"]
    with pytest.raises(AnsibleFilterError, match=r"^jemalloc_serial: true is not a list. Nothing was changed. Write"):
        convert(True, "jemalloc_serial")
    with pytest.raises(AnsibleFilterError, match=r"^variable: there is no variable 'serial'; docs/variables.md lists"):
        convert(1, "serial")
