# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status on the controller: printed once, and in the result."""

from __future__ import annotations

import json
import typing as t
from unittest import mock

import pytest

from ansible_collections.preload.jemalloc.plugins.action import jemalloc_status as action
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _display as display
from tests import fleets


class HostVars(t.Dict[str, t.Any]):
    """As much of Ansible's as the action uses."""

    def raw_get(self, host: str) -> t.Any:
        """Return the variables of a host."""
        return self[host]


@pytest.mark.parametrize(("full", "lines"), [(None, 4), ("false", 3)])
def test_the_status(monkeypatch: pytest.MonkeyPatch, full: t.Optional[str], lines: int) -> None:
    printed: list[str] = []
    monkeypatch.setattr(display, "say", printed.append)
    arguments = {"variable": "found", **({"full": full} if full else {})}
    task = mock.MagicMock(args=arguments, async_val=0, check_mode=False)
    plugin = action.ActionModule(task, mock.MagicMock(), mock.MagicMock(), mock.MagicMock(), mock.MagicMock(), None)
    answer = fleets.answer(fleets.START, [fleets.unit("puma.service", configured="5.3.1")])
    variables = HostVars({"web1": {"found": answer}, "web2": {"found": {"unreachable": True, "msg": "No route."}}})
    result = plugin.run(task_vars={"hostvars": variables, "ansible_play_batch": ["web1", "web2"]})
    json.dumps(result)
    assert printed == ["\n".join(result["lines"])]
    assert len(result["lines"]) == lines + 1
    assert result["changed"] is False
    assert result["msg"] == "2 hosts: 1 as configured, 1 unreachable"
    assert result["states"] == {"web1": "as configured", "web2": "unreachable"}
