# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts registered, as plain values."""

from __future__ import annotations

import typing as t

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _answers as answers
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _registered as registered


class HostVars(t.Dict[str, t.Any]):
    """As much of Ansible's as is used."""

    def raw_get(self, host: str) -> t.Any:
        """Return the variables of a host."""
        return self[host]


def test_the_results_of_the_batch() -> None:
    known = HostVars({"web1": {"found": {"a": (1,)}}, "web2": {}, "web3": {"found": 1}})
    given = {"hostvars": known, "ansible_play_batch": ["web2", "web1"]}
    assert list(registered.results(given, "found").items()) == [("web2", None), ("web1", {"a": [1]})]


def test_values_lose_the_kinds_of_ansible() -> None:
    text = type("Tagged", (str,), {})("a")
    found = registered.plain({text: [text, (1, None)], "b": True})
    assert found == {"a": ["a", [1, None]], "b": True}
    assert {key.__class__ for key in (*found, found["a"][0])} == {str}


def test_what_is_nested_too_deep_is_left_out() -> None:
    deep: t.Any = 1
    for _level in range(900):
        deep = {"a": [deep]}
    found = registered.plain(deep)
    levels = 0
    while found:
        found = found["a"] if isinstance(found, dict) else found[0]
        levels += 1
    assert (found, levels) == (None, answers.MOST_LEVELS)
