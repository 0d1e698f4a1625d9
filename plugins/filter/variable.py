# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter variable: one variable converted, for keywords of a play that count before its first task."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _variables as variables_util


def convert(value: t.Any, name: str) -> t.Any:
    """Return the value of a variable, converted."""
    if name not in variables_util.KNOWN:
        raise AnsibleFilterError(f"variable: there is no variable {name!r}; docs/variables.md lists all.")
    try:
        return variables_util.value_of(name, variables_util.plain(value))
    except JemallocError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        """Return them by name."""
        return {"variable": convert}
