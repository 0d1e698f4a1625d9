# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archives of the controller's own distribution."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _apt as apt

Program = t.Callable[[str, str], pathlib.Path]

PRINTED = """http://deb.example.com/debian main
https://user:s3cret@example.com/debian main
file:/srv/debian main
https://security.example.com/debian main
"""


def test_archive_roots(program: Program) -> None:
    log = program("apt-get", f"echo 'W: a b c' >&2\ncat <<EOF\n{PRINTED}EOF\n")
    assert apt.archive_roots() == [
        "http://deb.example.com/debian/pool/main",
        "https://security.example.com/debian/pool/main",
    ]
    assert log.read_text() == (
        "indextargets --no-release-info --format $(REPO_URI) $(COMPONENT) Created-By: Packages\n"
    )


@pytest.mark.parametrize("script", ["exit 1", "echo a b c", "exec sleep 60"])
def test_no_archives(program: Program, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(apt, "TIMEOUT", 0.5)
    program("apt-get", script)
    assert apt.archive_roots() == []


def test_no_apt(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert apt.archive_roots() == []
