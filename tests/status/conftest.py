# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixtures of the tests of the status and of ways back."""

from __future__ import annotations

import typing as t

import pytest

from tests.conftest import Run
from tests.status import lab


@pytest.fixture(scope="session")
def machine(run: Run, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[lab.Host]:
    """The container."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_CONF", environment["CONTAINERS_CONF"])
        with lab.host(run, tmp_path_factory.mktemp("status"), environment) as made:
            yield made


@pytest.fixture
def host(machine: lab.Host) -> t.Iterator[lab.Host]:
    """The container without anything of this collection."""
    yield machine
    machine.reset()


@pytest.fixture(scope="session")
def releases(machine: lab.Host, tarball: t.Callable[[str], tuple[str, str]]) -> dict[str, dict[str, t.Any]]:
    """The variables for two releases that build in no time, whose sources the container has."""
    found = {}
    for version in ("9.9.8", "9.9.9"):
        path, checksum = tarball(version)
        machine.run("podman", "cp", path, f"{lab.NAME}:/root/")
        found[version] = {"jemalloc_version": version, "jemalloc_checksum": checksum, "jemalloc_origins": ["/root"]}
    return found
