# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that start at once on one host wait for each other, and each finds its work done or does it."""

from __future__ import annotations

from pathlib import Path

from lab import Lab, check_consistent

from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store

VERSIONS = [f"9.0.{number}" for number in range(10)]


def test_ten_releases_at_once(lab: Lab, tmp_path: Path) -> None:
    prefix = tmp_path / "jemalloc"
    answers = [lab.end(process) for process in [lab.start(prefix, version) for version in VERSIONS]]
    assert [answer.status for answer in answers] == [0] * 10, answers
    assert sorted(answer.result["version"] for answer in answers) == VERSIONS
    check_consistent(prefix)
    found = store.read(str(prefix))
    assert sorted(found.installations) == VERSIONS
    assert found.current in VERSIONS
    assert found.previous in VERSIONS
    assert found.previous != found.current


def test_one_release_at_once_is_built_once(lab: Lab, tmp_path: Path) -> None:
    prefix = tmp_path / "jemalloc"
    answers = [lab.end(process) for process in [lab.start(prefix, "9.9.9") for _run in range(5)]]
    assert [answer.status for answer in answers] == [0] * 5, answers
    assert sorted(answer.result["changed"] for answer in answers) == [False] * 4 + [True]
    check_consistent(prefix)


def test_removal_between_installations(lab: Lab, tmp_path: Path) -> None:
    prefix = tmp_path / "jemalloc"
    runs = []
    for version in VERSIONS[:4]:
        runs.append(lab.start(prefix, version))
        runs.append(lab.start(prefix, None, {"state": "absent"}))
    answers = [lab.end(process) for process in runs]
    assert [answer.status for answer in answers] == [0] * 8, answers
    check_consistent(prefix)
    assert lab.run(prefix, None, {"state": "absent"}).status == 0
    assert not prefix.exists()
