# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the module jemalloc share: no network, and a store that is going to be."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.modules import jemalloc as module

Call = t.Callable[..., t.Dict[str, t.Any]]
Tarball = t.Callable[[str], t.Tuple[str, str]]


@pytest.fixture(autouse=True)
def _alone(alone: None, root: pathlib.Path) -> None:
    """Keep the tests off the network and off what this machine has."""


@pytest.fixture
def prefix(tmp_path: pathlib.Path) -> str:
    """Where the store is going to be."""
    return str(tmp_path / "store")


@pytest.fixture
def build_of(prefix: str, tarball: Tarball) -> t.Callable[[str], t.Dict[str, t.Any]]:
    """The arguments for a release that is built from a small source."""

    def arguments(version: str) -> t.Dict[str, t.Any]:
        path, checksum = tarball(version)
        return {"prefix": prefix, "version": version, "checksum": checksum, "origins": [path]}

    return arguments


def wrong(call: Call, **arguments: t.Any) -> str:
    """Run what has to fail, in check mode and for real; return the message, which is one line."""
    found = [call(module, _check=check, **arguments) for check in (True, False)]
    assert found[0] == found[1]
    assert found[0]["failed"]
    message: str = found[0]["msg"]
    assert "\n" not in message
    return message
