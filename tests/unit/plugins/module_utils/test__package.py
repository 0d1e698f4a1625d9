# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What package managers print of the package that holds the library; texts as real ones print them."""

from __future__ import annotations

import os
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _package as package

DPKG = "/.\n/usr/lib/x86_64-linux-gnu\n/usr/lib/x86_64-linux-gnu/libjemalloc.so.2\n/usr/share/doc/libjemalloc2\n"
APK = "usr/lib/libjemalloc.so.2\n"


@pytest.mark.parametrize(
    ("manager", "answer", "command", "expected"),
    [
        (
            "apt-get",
            (0, DPKG),
            ["dpkg-query", "--listfiles", "libjemalloc2"],
            "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
        ),
        ("apk", (0, APK), ["apk", "info", "-qL", "jemalloc"], "/usr/lib/libjemalloc.so.2"),
        ("dnf", (1, "package jemalloc is not installed\n"), ["rpm", "-ql", "jemalloc"], None),
        ("zypper", (0, "/usr/bin/jeprof\n"), ["rpm", "-ql", "libjemalloc2"], None),
    ],
)
def test_library(
    monkeypatch: pytest.MonkeyPatch,
    manager: str,
    answer: t.Tuple[int, str],
    command: t.List[str],
    expected: t.Optional[str],
) -> None:
    monkeypatch.setattr(os.path, "isfile", lambda _path: True)
    assert package.library(lambda arguments, _d, _i: answer if arguments == command else (9, ""), manager) == expected


POLICY = """libjemalloc2:
  Installed: 5.2.1-3
  Candidate: 5.3.0-1
  Version table:
     5.3.0-1 500
"""


@pytest.mark.parametrize(
    ("manager", "output", "expected"),
    [
        ("apt-get", POLICY, "5.3.0"),
        ("apt-get", POLICY.replace("5.3.0-1\n  V", "(none)\n  V"), None),
        ("apt-get", "", None),
        ("dnf", "5.3.0\n", "5.3.0"),
        ("apk", "jemalloc policy:\n  5.3.0-r6:\n    lib/apk/db/installed\n", "5.3.0"),
        ("zypper", "Information for package libjemalloc2:\nVersion        : 5.3.0-1.10\n", "5.3.0"),
        ("zypper", "package 'libjemalloc2' not found.\n", None),
    ],
)
def test_candidate(manager: str, output: str, expected: t.Optional[str]) -> None:
    assert package.candidate(lambda _a, _d, _i: (0, output), manager) == expected
    assert package.candidate(lambda _a, _d, _i: (1, output), manager) is None
