# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixtures of the tests of containers that a host runs."""

from __future__ import annotations

import typing as t

import pytest

from tests.conftest import Run
from tests.containers import lab
from tests.fleet.lab import Fleet
from tests.images import lab as images


@pytest.fixture(scope="session")
def host(run: Run, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Fleet]:
    """A host that has the images app:1 (Debian 12), old:1 (Debian 11) and musl:1."""
    directory = tmp_path_factory.mktemp("containers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_CONF", environment["CONTAINERS_CONF"])
        with lab.host(run, directory) as made:
            for suite, name in (("bookworm", "localhost/app:1"), ("bullseye", "localhost/old:1")):
                lab.load(run, directory, made, images.debian(run, directory, suite, images.MINIMAL), name)
            lab.load(run, directory, made, images.musl(run, directory), "localhost/musl:1")
            yield made
