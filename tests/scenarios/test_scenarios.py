# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The molecule scenarios, each a way of use on real systemd hosts: prepare, check, converge, idempotence, verify."""

from __future__ import annotations

from typing import Iterator

import pytest

from tests.checkout import ROOT
from tests.conftest import Run

SCENARIOS = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml") if path.parent.name != "default")
#: Only with --full: they install many servers on three or four releases of Debian, preload boots them twice too.
LONG = ("info", "preload")
MOLECULE = {"MOLECULE_GLOB": "molecule/*/molecule.yml"}


@pytest.fixture(scope="module")
def hosts(run: Run) -> Iterator[None]:
    """The containers, the same for all scenarios."""
    run("molecule", "destroy", "--scenario-name", "default", **MOLECULE)
    run("molecule", "create", "--scenario-name", "default", **MOLECULE)
    yield
    run("molecule", "destroy", "--scenario-name", "default", **MOLECULE)


@pytest.mark.usefixtures("hosts")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(run: Run, pytestconfig: pytest.Config, scenario: str) -> None:
    if scenario in LONG and not pytestconfig.getoption("full"):
        pytest.skip("it takes up to ten minutes; make molecule ARGS=--full runs it")
    run("molecule", "reset", "--scenario-name", scenario, **MOLECULE)
    try:
        run("molecule", "test", "--scenario-name", scenario, "--destroy", "never", **MOLECULE)
    except pytest.fail.Exception:
        if not pytestconfig.getoption("usepdb"):  # the hosts are those of the other scenarios too
            run("molecule", "cleanup", "--scenario-name", scenario, check=False, **MOLECULE)
        raise
