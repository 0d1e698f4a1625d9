# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixtures of the tests of what operators type."""

from __future__ import annotations

import typing as t

import pytest

from tests.conftest import Run
from tests.operators import lab


@pytest.fixture(scope="session")
def host(
    run: Run, tmp_path_factory: pytest.TempPathFactory, tarball: t.Callable[[str], tuple[str, str]]
) -> t.Iterator[lab.Operator]:
    """The host."""
    with lab.operator(run, tmp_path_factory.mktemp("operators"), tarball) as made:
        yield made


@pytest.fixture
def operator(host: lab.Operator) -> lab.Operator:
    """The host without anything of ours."""
    assert not host.play("site", "-e", "jemalloc_state=absent").failed
    return host


@pytest.fixture
def enabled(operator: lab.Operator) -> lab.Operator:
    """The host with a release and a service that a playbook of the operator names."""
    (operator.directory / "site.yml").write_text(SITE)
    release = operator.releases["9.9.8"]
    done = operator.play("site.yml", *(word for key, value in release.items() for word in ("-e", f"{key}={value}")))
    assert not done.failed, done.output
    assert operator.mapped() == {"app": "9.9.8", "other": ""}
    return operator


#: What the README shows: the variables stand in the playbook.
SITE = """
- hosts: web
  gather_facts: false
  roles:
    - role: preload.jemalloc.jemalloc
      vars:
        jemalloc_services: [app]
"""
