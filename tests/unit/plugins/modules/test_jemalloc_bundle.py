# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc_bundle: what it refuses to pack."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_bundle as bundle_module

Call = t.Callable[..., t.Dict[str, t.Any]]
Install = t.Callable[..., None]


@pytest.fixture
def prefix(tmp_path: pathlib.Path) -> str:
    """Where the store is going to be."""
    return str(tmp_path / "store")


def test_bundles_that_cannot_be_packed(call: Call, prefix: str, installed: Install) -> None:
    def no_bundle(**arguments: t.Any) -> str:
        message: str = call(bundle_module, prefix=prefix, dist="/x", **arguments)["msg"]
        return message

    assert no_bundle() == (
        f"version: jemalloc (current) is not installed in {prefix}; install it first, or name one of those that are."
    )
    installed(prefix, "9.9.8", method="package")
    assert no_bundle(version="9.9.9").endswith("install it first, or name one of 9.9.8.")
    assert no_bundle(version="9.9.8").startswith(f"version: {prefix}/9.9.8 is a copy from the distribution's package ")
    pathlib.Path(prefix, "9.9.8", "lib", "libjemalloc.so.2").write_bytes(b"")
    assert no_bundle(version="9.9.8").endswith(
        "(lib/libjemalloc.so.2 is not what its receipt says); install it again first."
    )
