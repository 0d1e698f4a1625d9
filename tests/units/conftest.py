# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixtures of the tests of units as they really are."""

from __future__ import annotations

import typing as t

import pytest

from tests.conftest import Run
from tests.operators import lab
from tests.units.lab import Units


@pytest.fixture(scope="session", params=["bookworm", pytest.param("trixie", marks=pytest.mark.full)])
def host(
    request: pytest.FixtureRequest,
    run: Run,
    tmp_path_factory: pytest.TempPathFactory,
    tarball: t.Callable[[str], tuple[str, str]],
) -> t.Iterator[lab.Operator]:
    """A host with a release that nobody preloads yet."""
    with lab.operator(run, tmp_path_factory.mktemp("units"), tarball, request.param) as made:
        assert not made.site().failed
        yield made


@pytest.fixture
def units(host: lab.Operator) -> t.Iterator[Units]:
    """Units of the host, which go afterwards."""
    made = Units(host)
    yield made
    made.remove()
