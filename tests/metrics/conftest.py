# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus' own tool, promtool, as the distribution's package has it, without installing that: it is a server."""

from __future__ import annotations

import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest

Promtool = t.Callable[..., str]


def _download(directory: Path) -> None:
    """Get the package; the lists of packages may be older than the archive, or not there yet."""
    command = ["apt-get", "download", "--quiet", "prometheus"]
    for update in (False, True):
        if update:
            subprocess.run(["apt-get", "update", "--quiet"], capture_output=True, check=False)
        done = subprocess.run(command, cwd=directory, capture_output=True, encoding="utf-8", check=False)
        if done.returncode == 0:
            return
    pytest.fail(f"These tests need promtool, and apt-get cannot get the package prometheus: {done.stderr}", False)


def _find(directory: Path) -> str:
    """Return the path of promtool, of this machine or out of the package."""
    found = shutil.which("promtool")
    if found:
        return found
    if not shutil.which("apt-get"):
        pytest.fail("These tests need promtool, which is neither on the PATH nor to be had by apt-get.", False)
    _download(directory)
    package = next(directory.glob("prometheus_*.deb"))
    subprocess.run(["dpkg-deb", "--extract", str(package), str(directory)], check=True)
    return str(directory / "usr/bin/promtool")


@pytest.fixture(scope="session")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> Promtool:
    """Call promtool with text on its standard input; it has to be content, without a word of advice."""
    path = _find(tmp_path_factory.mktemp("prometheus"))

    def call(*arguments: str, data: str = "") -> str:
        command = [path, *arguments]
        done = subprocess.run(command, input=data, capture_output=True, encoding="utf-8", check=False)
        said = f"{done.stdout}{done.stderr}"
        if done.returncode:
            pytest.fail(f"promtool {' '.join(arguments)} ended with {done.returncode}:\n{said}", False)
        return said

    return call
