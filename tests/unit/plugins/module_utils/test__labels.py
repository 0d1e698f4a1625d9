# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels are restored where there are any; no host of these tests has SELinux, so that restorecon is a stand-in."""

from __future__ import annotations

import pathlib
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _labels as labels


def restored(root: pathlib.Path, paths: t.Sequence[str]) -> t.List[t.Sequence[str]]:
    """Return the commands that restoring labels runs."""
    commands: t.List[t.Sequence[str]] = []

    def run(command: t.Sequence[str], *_how: t.Any) -> t.Tuple[int, str]:
        commands.append(command)
        return 0, ""

    labels.restore(run, paths, str(root))
    return commands


def test_with_selinux(tmp_path: pathlib.Path) -> None:
    (tmp_path / "sys/fs/selinux").mkdir(parents=True)
    (tmp_path / "sys/fs/selinux/enforce").write_text("1")
    assert restored(tmp_path, ["/opt/jemalloc/5.3.1"]) == [["restorecon", "-R", "/opt/jemalloc/5.3.1"]]
    assert restored(tmp_path, []) == []


def test_without_selinux(tmp_path: pathlib.Path) -> None:
    (tmp_path / "sys/fs/selinux").mkdir(parents=True)
    assert restored(tmp_path, ["/opt/jemalloc/5.3.1"]) == []
