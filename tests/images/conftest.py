# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixtures of the tests of images."""

from __future__ import annotations

import typing as t

import pytest

from tests import sources
from tests.conftest import Run
from tests.images import lab


@pytest.fixture(scope="session")
def images(run: Run, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[lab.Images]:
    """A place for images; those that were started from stay for the next time.

    What was made in it goes before and afterwards: a run that was killed leaves images, and one that is there already
    is not made again.
    """
    directory = tmp_path_factory.mktemp("images")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_CONF", environment["CONTAINERS_CONF"])
        made = lab.Images(run, directory, lab.debian(run, directory, "bookworm", lab.BUILDER))
        remove(run, made)
        yield made
    remove(run, made)


def remove(run: Run, made: lab.Images) -> None:
    """Remove the images that tests made, and those that others replaced."""
    listed = run("podman", "images", "--format={{.Repository}}:{{.Tag}}")
    ours = [name for name in listed.split() if name.startswith(made.name("")) or name.endswith(":test")]
    if ours:
        run("podman", "rmi", "--force", *ours)
    replaced = ("--filter=dangling=true", "--filter=label=preload.jemalloc.recipe", "--quiet")
    for each in run("podman", "images", *replaced).split():
        run("podman", "rmi", each)


@pytest.fixture(scope="session")
def debian(run: Run, images: lab.Images, tmp_path_factory: pytest.TempPathFactory) -> t.Callable[[str], str]:
    """Return the image of a Debian release."""
    return lambda suite: lab.debian(run, tmp_path_factory.mktemp(suite), suite, lab.MINIMAL)


@pytest.fixture(scope="session")
def musl(run: Run, images: lab.Images, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image with musl."""
    return lab.musl(run, tmp_path_factory.mktemp("musl"))


@pytest.fixture(scope="session")
def release(tarball: t.Callable[[str], tuple[str, str]]) -> t.Callable[[str], dict[str, t.Any]]:
    """Return the variables of the playbook for a release that builds in no time."""

    def variables(version: str) -> dict[str, t.Any]:
        path, checksum = tarball(version)
        return {"jemalloc_version": version, "jemalloc_checksum": checksum, "jemalloc_origins": [path]}

    return variables


@pytest.fixture(scope="session")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, t.Any]:
    """The variables of the playbook for a release of jemalloc itself."""
    path = sources.fetch("5.3.0", tmp_path_factory.mktemp("genuine") / "jemalloc-5.3.0.tar.bz2")
    return {"jemalloc_version": "5.3.0", "jemalloc_origins": [str(path)]}
