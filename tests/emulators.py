# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets this machine run programs for arm64, by QEMU, as long as a test takes."""

from __future__ import annotations

import contextlib
import subprocess
import typing as t
from pathlib import Path

import pytest

_KERNEL = Path("/proc/sys/fs/binfmt_misc")
_RULE = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
_RULE_OF_KERNEL = _KERNEL / "qemu-aarch64"


@contextlib.contextmanager
def arm64() -> t.Iterator[None]:
    """Let programs for arm64 run; a machine that does so already is left as it is."""
    if not (_KERNEL / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(_KERNEL)], check=False)
    if not (_KERNEL / "register").exists():
        pytest.skip(f"binfmt_misc cannot be mounted on {_KERNEL}")
    ours = not _RULE_OF_KERNEL.exists()
    if ours:
        (_KERNEL / "register").write_text(_RULE.read_text())
    yield
    if ours and _RULE_OF_KERNEL.exists():  # systemd-binfmt of whatever boots beside us takes all rules away
        _RULE_OF_KERNEL.write_text("-1")


@contextlib.contextmanager
def none() -> t.Iterator[None]:
    """Let no program for arm64 run meanwhile."""
    _RULE_OF_KERNEL.write_text("0")
    yield
    _RULE_OF_KERNEL.write_text("1")
