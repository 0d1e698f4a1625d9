# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarts that an earlier run did not come to are owed by the next one, whatever that one is asked for."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host
from tests.unit.plugins.modules.jemalloc_preload.test_jemalloc_preload import running

Call = t.Callable[..., t.Dict[str, t.Any]]

REASON = "1 of its 1 processes still map jemalloc"


def owed(found: t.Dict[str, t.Any]) -> t.List[t.Tuple[str, t.Optional[str], str, str]]:
    """Return the restarts of a result."""
    return [(each["name"], each["version"], each["reason"], each["written"]) for each in found["restarts"]]


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    "arguments", [{}, {"services": ["cron"]}, {"services": [], "host": False}, {"state": "absent"}]
)
def test_a_service_that_was_taken_off_the_list_by_an_earlier_run(
    scopes: Call, root: pathlib.Path, prefix: str, arguments: t.Dict[str, t.Any], check: bool
) -> None:
    scopes(services=["puma"])
    running(root, f"{prefix}/9.9.9/lib/libjemalloc.so.2")
    scopes(services=[])
    found = scopes(_check=check, **arguments)
    assert owed(found) == [("puma.service", None, REASON, "absent")]
    assert found["remaining"] == []


def test_where_the_whole_host_wants_it_nothing_is_owed(scopes: Call, root: pathlib.Path, prefix: str) -> None:
    running(root, f"{prefix}/9.9.9/lib/libjemalloc.so.2")
    for check in (True, False):
        assert owed(scopes(_check=check, host=True)) == []
    predicted = scopes(_check=True, host=False)
    done = scopes(host=False)
    assert owed(predicted) == owed(done) == [("puma.service", None, REASON, "absent")]


def test_what_is_left_to_the_operator(
    scopes: Call, root: pathlib.Path, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: t.List[str] = []
    monkeypatch.setattr(host.Host, "warn", lambda _self, message: warnings.append(message))
    running(root, f"{prefix}/9.9.9/lib/libjemalloc.so.2")
    (root / "proc/100/cgroup").write_text("0::/user.slice/user-1000.slice/session-3.scope\n")
    assert scopes()["remaining"] == []
    assert warnings == []
    expected = [{"unit": "session-3.scope", "uid": None, "processes": 1, "why": "it is no service"}]
    for check in (True, False):
        found = scopes(_check=check, state="absent")
        assert (found["remaining"], found["restarts"]) == (expected, [])
    text = (
        "Not restarted, and still with jemalloc: session-3.scope (1 process; it is no service). When the library is "
        "gone, programs that they start print ERROR: ld.so. Restart or end them, or reboot."
    )
    assert warnings == [text] * 2
