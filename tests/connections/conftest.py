# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixtures of the tests of connections."""

from __future__ import annotations

import os
import shutil
import typing as t
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.connections import lab
from tests.images.lab import debian


@pytest.fixture(scope="session")
def reach(run: Run, tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> t.Iterator[Run]:
    """Run a command that finds the connection plugins, and podman's service where it is docker's."""
    with lab.reaching(run, tmp_path_factory.mktemp("collections"), environment) as reached:
        yield reached


@pytest.fixture(scope="session")
def image(run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image that the containers are of."""
    return debian(run, tmp_path_factory.mktemp("image"), "bookworm", lab.IMAGE)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The controller's directory, with its cache."""
    return tmp_path_factory.mktemp("controller")


@pytest.fixture(params=["podman", pytest.param("buildah", marks=pytest.mark.full)])
def container(request: pytest.FixtureRequest, reach: Run, shared: Path, image: str) -> t.Iterator[lab.Container]:
    """A container of each engine, as its image is; docker's command is answered by podman's service."""
    if not shutil.which(request.param):
        pytest.skip(f"this machine has no {request.param}")
    made = lab.Container(reach, shared, request.param, f"preload-jemalloc-{request.param}-{os.getpid()}", image)
    made.start()
    yield made
    made.remove()


@pytest.fixture
def release(tarball: t.Callable[[str], tuple[str, str]]) -> t.Callable[..., dict[str, t.Any]]:
    """Bring the source of a release that builds in no time to a container; return the role's variables for it."""

    def bring(container: lab.Container, version: str = "9.9.9") -> dict[str, t.Any]:
        path, checksum = tarball(version)
        container.bring(path, "/srv/")
        return {"jemalloc_version": version, "jemalloc_checksum": checksum, "jemalloc_origins": ["/srv"]}

    return bring
