"""Linters, Ansible's own sanity tests, and what Galaxy asks of a collection: each has to be without findings."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Run


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git knows or would take, at the only kind of path that ansible-test accepts."""
    target = tmp_path_factory.mktemp("tree") / "ansible_collections" / "preload" / "jemalloc"
    names = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, encoding="utf-8"
    )
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    subprocess.check_call(["git", "init", "--quiet"], cwd=target)
    subprocess.check_call(["git", "add", "--all"], cwd=target)
    return target


@pytest.fixture(scope="module")
def interpreters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of links to every Python of this machine that can be a target, for ansible-test."""
    directory = tmp_path_factory.mktemp("interpreters")
    for minor in range(9, 15):
        for place in (Path.home() / ".pyenv" / "versions", Path("/usr/bin")):
            found = sorted([*place.glob(f"3.{minor}.*/bin/python3.{minor}"), *place.glob(f"python3.{minor}")])
            if found and not (directory / f"python3.{minor}").exists():
                (directory / f"python3.{minor}").symlink_to(found[-1])
    return directory


def test_ruff(run: Run) -> None:
    run("ruff", "check", ".")
    run("ruff", "format", "--check", "--diff", ".")


def test_mypy(run: Run, tree: Path) -> None:
    package = "ansible_collections.preload.jemalloc.plugins"
    options = ["--strict", "--ignore-missing-imports", "--namespace-packages", "--explicit-package-bases"]
    # ansible-core has no types of its own
    options += ["--disable-error-code=misc", "--disable-error-code=no-any-return"]
    run("mypy", *options, "-p", package, cwd=tree.parents[2], MYPYPATH=str(tree.parents[2]))


def test_yamllint(run: Run) -> None:
    run("yamllint", "--strict", ".")


def test_ansible_lint(run: Run, tree: Path) -> None:
    run("ansible-lint", "--strict", "--nocolor", cwd=tree, ANSIBLE_COLLECTIONS_PATH=str(tree.parents[2]))


def test_ansible_test_sanity(run: Run, tree: Path, interpreters: Path, environment: dict[str, str]) -> None:
    # ansible-test downloads a bootstrap script for pip unless it finds one in its cache, under pip's version
    import ansible_test

    requirements = Path(ansible_test.__file__).parent / "_internal" / "python_requirements.py"
    version = re.search(r"pip='([0-9.]+)'", requirements.read_text(encoding="utf-8"))
    assert version
    cache = Path.home() / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / ".ci" / "get_pip.py", cache / f"get_pip_{version[1].replace('.', '_')}.py")
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


def test_build(run: Run, tree: Path, tmp_path: Path) -> None:
    run("ansible-galaxy", "collection", "build", "--output-path", str(tmp_path), ".", cwd=tree)
    listing = run("tar", "--list", "--file", str(next(tmp_path.glob("*.tar.gz"))))
    unwanted = [name for name in listing.split() if name.startswith((".", "tests", "molecule", "Makefile", "site.yml"))]
    assert unwanted == []
    wanted = {"README.md", "COPYING", "plugins/modules/jemalloc.py", "playbooks/site.yml"}
    page = "plugins/plugin_utils/report"
    assert wanted | {f"{page}/page.html.j2", f"{page}/page.js", f"{page}/uplot/LICENSE"} <= set(listing.split())


def test_shellcheck(run: Run) -> None:
    scripts = [
        path for path in sorted((ROOT / ".ci").iterdir()) if path.read_bytes().startswith(b"#!/usr/bin/env bash")
    ]
    run("shellcheck", *map(str, scripts))
