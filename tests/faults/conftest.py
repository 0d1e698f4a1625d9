# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixtures of the tests of faults."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

pytest.register_assert_rewrite("crowd", "hosts", "lab")

from hosts import PREFIX, Host  # noqa: E402 # what they assert is shown in full only if pytest knows before
from lab import Lab  # noqa: E402 # likewise


@pytest.fixture
def lab(tmp_path: Path, tarball: t.Callable[[str], tuple[str, str]]) -> Lab:
    """A place for stores, on a file system of this machine."""
    return Lab(tmp_path, tarball)


@pytest.fixture(scope="session")
def container(tmp_path_factory: pytest.TempPathFactory, library: Path) -> t.Iterator[Host]:
    """A container in which jemalloc 9.9.9 is installed and nobody preloads it."""
    host = Host(tmp_path_factory.mktemp("files"))
    host.ask("install", prefix=PREFIX, version="9.9.9", library=host.give(library))
    host.ask("keep", name="installed")
    yield host
    host.close()


@pytest.fixture
def host(container: Host) -> t.Iterator[Host]:
    """The container, and afterwards what it was before, whatever a test left in it."""
    yield container
    container.ask("settle")
    container.ask("restore", name="installed")
