# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixtures of the tests of actions."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from tests.unit.conftest import serving
from tests.unit.plugins.action.plays import Play
from tests.unit.plugins.action.releases import Handler


@pytest.fixture(scope="module")
def server() -> t.Iterator[str]:
    """Such a server; its address."""
    with serving(Handler) as address:
        yield address


@pytest.fixture
def play(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """A play of the action jemalloc."""
    return Play(tmp_path, monkeypatch)
