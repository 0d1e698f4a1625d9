# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""make release, in a repository of its own: what it refuses, what it leaves, and an archive that works by itself."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests import checkout
from tests.conftest import Run

VERSION = "99.0.0"
ARCHIVE = f"preload-jemalloc-{VERSION}.tar.gz"
RELEASED = f"Not released: {VERSION} has been released already; raise the version in galaxy.yml.\n"

#: What a user of the archive needs; everything else stays out.
NEEDED = {
    *(
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "COPYING",
        "LICENSES",
        "README.md",
        "REUSE.toml",
        "changelogs",
        "docs",
        "meta",
    ),
    *("playbooks", "plugins", "roles", "FILES.json", "MANIFEST.json"),
}


@pytest.fixture
def repository(run: Run, tmp_path: Path) -> Path:
    """A repository with all that is here, committed, whose next version has not been released."""
    path = checkout.copy(tmp_path)
    galaxy = path / "galaxy.yml"
    lines = galaxy.read_text().splitlines()
    galaxy.write_text("".join(f"{f'version: {VERSION}' if line[:8] == 'version:' else line}\n" for line in lines))
    (path / "changelogs/fragments/0-test.yml").write_text("---\nbugfixes: [A release was tried.]\n")
    for key, value in {"user.name": "Test", "user.email": "test@example.org"}.items():
        run("git", "config", key, value, cwd=path)
    commit(run, path)
    return path


def commit(run: Run, path: Path) -> None:
    """Commit everything."""
    run("git", "add", "--all", cwd=path)
    run("git", "commit", "--quiet", "--message=Work", cwd=path)


def state(run: Run, path: Path) -> list[str]:
    """Return what a release changes: the commit, the tags, the worktrees, what is not committed or ignored."""
    commands = ("rev-parse HEAD", "tag --list", "worktree list", "status --porcelain --ignored")
    return [run("git", *command.split(), cwd=path) for command in commands]


def refused(run: Run, path: Path) -> str:
    """Try a release that cannot be; return what it said."""
    before = state(run, path)
    said = run(".ci/release", cwd=path, check=False)
    assert state(run, path) == before
    return said


def listing(archive: Path) -> list[tuple[str, str]]:
    """Return the files of an archive of a collection with their digests, in an order."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("FILES.json")
        assert member
        return sorted((each["name"], each["chksum_sha256"] or "") for each in json.load(member)["files"])


def test_work_that_is_not_committed(run: Run, repository: Path) -> None:
    (repository / "new").write_text("")
    assert refused(run, repository) == (
        "Not released: there is work that is not committed (git status shows it); commit it first.\n"
    )


def test_a_version_that_has_its_tag(run: Run, repository: Path) -> None:
    run("git", "tag", VERSION, cwd=repository)
    assert refused(run, repository) == RELEASED


def test_a_version_that_the_changelog_has(run: Run, repository: Path) -> None:
    (repository / "changelogs/changelog.yaml").write_text(f"---\nancestor: null\nreleases:\n  {VERSION}: {{}}\n")
    commit(run, repository)
    assert refused(run, repository) == RELEASED


def test_what_fails_later_leaves_everything(run: Run, repository: Path) -> None:
    (repository / "changelogs/fragments/1-bad.yml").write_text("---\nno_such_section: [Text.]\n")
    commit(run, repository)
    assert "no_such_section" in refused(run, repository)


def test_release(run: Run, repository: Path, tmp_path: Path) -> None:
    printed = run(".ci/release", cwd=repository).splitlines()
    assert "A process with jemalloc.sh maps: /opt/jemalloc/5.3.0/lib/libjemalloc.so.2" in printed
    assert printed[-2:] == [
        f"Released {VERSION}: the commit and the tag are made, and the archive is {ARCHIVE}.",
        f"To publish: git push --atomic origin HEAD {VERSION} && ansible-galaxy collection publish {ARCHIVE}",
    ]

    assert run("git", "log", "-1", "--format=%s", VERSION, cwd=repository) == f"Release {VERSION}\n"
    assert run("git", "status", "--porcelain", cwd=repository) == ""
    assert len(run("git", "worktree", "list", cwd=repository).splitlines()) == 1
    assert list(repository.glob("changelogs/fragments/*.yml")) == []
    assert "A release was tried" in (repository / "CHANGELOG.md").read_text()
    assert refused(run, repository) == RELEASED

    held = listing(repository / ARCHIVE)
    with tarfile.open(repository / ARCHIVE) as tar:
        assert {name.partition("/")[0] for name in tar.getnames()} == NEEDED
    assert [name for name, _digest in held if "changelogs/fragments/" in name or name.endswith(".pyc")] == []
    run("git", "clone", "--quiet", f"--branch={VERSION}", str(repository), str(tmp_path / "clone"))
    run("ansible-galaxy", "collection", "build", cwd=tmp_path / "clone")
    assert listing(tmp_path / "clone" / ARCHIVE) == held
