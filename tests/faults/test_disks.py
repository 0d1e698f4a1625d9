# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file system that is really full, and one that is really read-only."""

from __future__ import annotations

import os
import re
import subprocess
import typing as t
from pathlib import Path

import pytest
from lab import OPERATIONS, Lab, check_consistent, names

ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]


@pytest.fixture
def disk(tmp_path: Path) -> t.Iterator[Path]:
    """A file system of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run([*ROOT, "mount", "-t", "tmpfs", "-o", "size=8m,mode=1777", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run([*ROOT, "umount", str(path)], check=True)


def remount(disk: Path, option: str) -> None:
    """Change an option of the file system."""
    subprocess.run([*ROOT, "mount", "-o", f"remount,{option}", str(disk)], check=True)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_disk_that_is_full(lab: Lab, disk: Path, pytestconfig: pytest.Config, operation: t.Any) -> None:
    prefix = disk / "jemalloc"
    outcomes = set()
    for free in range(0, 160, 4 if pytestconfig.getoption("full") else 40):  # KiB
        lab.store(operation, prefix)
        before = names(prefix)
        filler = disk / "filler"
        space = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        filler.write_bytes(b"\0" * max(0, space - free * 1024))
        answer = lab.run(prefix, operation.version, operation.arguments)
        outcomes.add(answer.status)
        check_consistent(prefix)
        if answer.status:
            # an echo of dash, in a makefile, has only these words for it
            assert re.search("No space left on device|I/O error", answer.sentence())
            assert [name for name in names(prefix) if name != ".lock"] == [name for name in before if name != ".lock"]
        filler.unlink()
        again = lab.run(prefix, operation.version, operation.arguments) if answer.status else answer
        assert (again.status, again.result["changed"]) == (0, True)
    assert 0 in outcomes


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_disk_that_is_read_only(lab: Lab, disk: Path, operation: t.Any) -> None:
    prefix = disk / "jemalloc"
    lab.store(operation, prefix)
    before = names(prefix)
    remount(disk, "ro")
    message = lab.run(prefix, operation.version, operation.arguments).sentence()
    assert message.startswith(f"{prefix}")
    assert "Read-only file system" in message
    assert names(prefix) == before
    remount(disk, "rw")
    assert lab.run(prefix, operation.version, operation.arguments).result["changed"]
