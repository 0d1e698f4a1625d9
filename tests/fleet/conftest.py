# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixtures of the tests of fleets."""

from __future__ import annotations

import os
import shutil
import typing as t

import pytest

from tests import sources as genuine
from tests.conftest import Run
from tests.fleet import lab

#: So many hosts in make test, and with --full.
SIZE, SIZE_IN_FULL = 4, 20


@pytest.fixture(scope="session")
def fleet(run: Run, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> t.Iterator[lab.Fleet]:
    """A fleet of all the Debian releases."""
    size = SIZE_IN_FULL if pytestconfig.getoption("full") else SIZE
    suites = [lab.SUITES[number % len(lab.SUITES)] for number in range(size)]
    with lab.fleet(run, tmp_path_factory.mktemp("fleet"), suites) as made:
        yield made


@pytest.fixture
def clean(fleet: lab.Fleet) -> lab.Fleet:
    """The fleet without anything of ours, and an empty cache."""
    fleet.play("site", jemalloc_state="absent")
    for each in fleet.hosts:
        fleet.shell(each, "rm -rf /opt/jemalloc-build")
    shutil.rmtree(fleet.cache, ignore_errors=True)
    return fleet


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[lab.Sources]:
    """A server of the genuine source of 5.3.0, which the archive of this machine's distribution has."""
    directory = tmp_path_factory.mktemp("sources")
    genuine.fetch("5.3.0", directory / "jemalloc-5.3.0.tar.bz2")
    os.environ["NO_PROXY"] = "127.0.0.1"
    with lab.serving(directory) as server:
        yield server


@pytest.fixture
def cached(clean: lab.Fleet, tarball: t.Callable[[str], tuple[str, str]]) -> tuple[lab.Fleet, dict[str, t.Any]]:
    """A fleet whose controller has a bundle in its cache, that one of its hosts built, and what asks for it."""
    path, checksum = tarball("9.9.9")
    clean.run("podman", "cp", path, f"{clean.oldest}:/root/")
    wanted: dict[str, t.Any] = {"jemalloc_version": "9.9.9", "jemalloc_checksum": checksum}
    clean.play("site", jemalloc_hosts=clean.oldest, jemalloc_origins=["/root"], **wanted)
    clean.play("site", jemalloc_hosts=clean.oldest, jemalloc_state="absent")
    return clean, {**wanted, "jemalloc_services": ["cron"], "jemalloc_method": "bundle"}
