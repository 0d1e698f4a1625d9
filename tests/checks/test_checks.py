# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Linters, Ansible's own sanity tests, and what Galaxy asks of a collection: each has to be without findings."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import ansible_test
import pytest
import yaml

from tests import checkout
from tests.checkout import ROOT
from tests.conftest import Run


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git knows or would take, at the only kind of path that ansible-test accepts."""
    return checkout.copy(tmp_path_factory.mktemp("tree"))


def test_ruff(run: Run) -> None:
    run("ruff", "check", ".")
    run("ruff", "format", "--check", "--diff", ".")


def test_mypy(run: Run, tree: Path) -> None:
    options = ["--strict", "--ignore-missing-imports", "--namespace-packages", "--explicit-package-bases"]
    # ansible-core has no types of its own
    options += ["--disable-error-code=misc", "--disable-error-code=no-any-return"]
    places = f"{tree.parents[2]}:{tree}/tests/faults"
    run("mypy", *options, "-p", "ansible_collections.preload.jemalloc.plugins", cwd=tree.parents[2], MYPYPATH=places)
    run(
        "mypy",
        *options,
        "tests",
        "bench",
        "molecule/plugins/changes.py",
        "docs/conf.py",
        ".ci/get_pip.py",
        cwd=tree,
        MYPYPATH=places,
    )


def test_yamllint(run: Run) -> None:
    run("yamllint", "--strict", ".")


def test_ansible_lint(run: Run, tree: Path) -> None:
    run("ansible-lint", "--strict", "--nocolor", cwd=tree, ANSIBLE_COLLECTIONS_PATH=str(tree.parents[2]))


def test_ansible_test_sanity(run: Run, tree: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    # ansible-test downloads a bootstrap script for pip unless it finds one in its cache
    checkout.bring_pip(Path(ansible_test.__file__).parent, Path.home())
    interpreters = checkout.link_interpreters(tmp_path)
    path = f"{Path(sys.executable).parent}:{interpreters}:{environment['PATH']}"
    run("ansible-test", "sanity", "--color", "no", cwd=tree, PATH=path)


def test_documentation(run: Run, tree: Path) -> None:
    run(
        *("antsibull-docs", "lint-collection-docs", "--plugin-docs", "--skip-rstcheck", "."),
        cwd=tree,
        ANSIBLE_COLLECTIONS_PATH=str(tree.parents[2]),
    )


def test_changelog(run: Run, tree: Path) -> None:
    run("antsibull-changelog", "lint", cwd=tree)


def test_galaxy_importer(run: Run, tree: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    run(".ci/venv", ".venv-importer", "requirements-importer.txt")
    programs = ROOT / ".venv-importer" / "bin"
    run("ansible-galaxy", "collection", "build", "--output-path", str(tmp_path), ".", cwd=tree)
    (archive,) = tmp_path.glob("*.tar.gz")
    importer = (str(programs / "python"), "-m", "galaxy_importer.main", str(archive))
    # ansible-lint has a test of its own, which does not end after a time
    more = {"PATH": f"{programs}:{environment['PATH']}", "GALAXY_IMPORTER_RUN_ANSIBLE_LINT": "false"}
    said = run(*importer, cwd=tmp_path, **more)
    assert "Importer processing completed successfully" in said
    assert [line for line in said.splitlines() if line.startswith(("WARNING", "ERROR"))] == []


def test_licences(run: Run, tree: Path) -> None:
    run("reuse", "lint", "--lines", cwd=tree)


def test_markdown(run: Run) -> None:
    names = [name for name in checkout.names() if name.endswith(".md") and name != "CHANGELOG.md"]  # that is generated
    run("pymarkdown", "scan", *names)


@pytest.mark.parametrize(("schema", "pattern"), [("github-workflows", "workflows/*.yml"), ("dependabot", "*.yml")])
def test_workflows(run: Run, schema: str, pattern: str) -> None:
    paths = sorted(str(path) for path in (ROOT / ".github").glob(pattern))
    run("check-jsonschema", f"--builtin-schema=vendor.{schema}", *paths)


def test_workflows_call_what_is_there(run: Run) -> None:
    workflows = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}
    jobs = {name: job for workflow in workflows.values() for name, job in workflow["jobs"].items()}
    commands = [step["run"] for job in jobs.values() for step in job.get("steps", []) if "run" in step]
    targets = {target for command in commands for target in re.findall(r'(?:^|PATH" )make (\w+)', command)}
    assert targets == {"matrix", "release", "unit"}
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for only in jobs["matrix"]["strategy"]["matrix"]["only"]:
        run(sys.executable, "-m", "tests.matrix", "--list", "--only", only)


def test_shellcheck(run: Run) -> None:
    shebangs = (b"#!/usr/bin/env bash", b"#!/bin/bash", b"#!/bin/sh")
    scripts = [name for name in checkout.names() if (ROOT / name).read_bytes().startswith(shebangs)]
    assert {".ci/run", ".ci/release"} <= set(scripts)
    run("shellcheck", *scripts)
