# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases of each old generation, beside each other on the oldest and the newest Debian: built, and run by a process.

Their sources are those that a package on Python's package index carries along: a release of its own for each.
"""

from __future__ import annotations

import json
import re
import typing as t
from dataclasses import dataclass
from pathlib import Path

import ansible
import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from tests import sources
from tests.checkout import ROOT
from tests.conftest import Run


@dataclass(frozen=True)
class Source:
    """A release of jemalloc, the release that carries its source with that one's digest, and what comes out of it."""

    version: str
    carrier: str
    sha256: str
    library: str
    tools: frozenset[str]


OURS = frozenset({"jemalloc.sh", "no-jemalloc.sh"})
# The first two are upstream's files as they stand in git, without configure and VERSION. The last is a release with
# both, changed for the database in some functions.
SOURCES = [
    Source(
        "3.6.0",
        "3.0.296",
        "95347f4d50af3c4ff19a01c5779915890b0934a8d28a7e038ef0f76e406beef2",
        "libjemalloc.so.1",
        OURS | {"pprof"},
    ),
    Source(
        "4.0.3",
        "3.2.311",
        "120c4e2a95bef3a83d6efa07d1be13650c853f0c3d640c9bbd86f6ef0fe71229",
        "libjemalloc.so.2",
        OURS | {"jemalloc-config", "jeprof"},
    ),
    Source(
        "5.1.0",
        "6.2.912183",
        "40642495cc53bd5ca3cc186355a7235795ef4b36dd167cb77c7e6837d23e5dd6",
        "libjemalloc.so.2",
        OURS | {"jemalloc-config", "jeprof"},
    ),
]

Shell = t.Callable[..., str]


@pytest.fixture(scope="module")
def tarballs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of jemalloc's own tarballs, as those of a release."""
    directory = tmp_path_factory.mktemp("tarballs")
    for source in SOURCES:
        sources.carried(source.version, (source.carrier, source.sha256), directory)
    return directory


@pytest.fixture
def shell(run: Run, suite: str, tarballs: Path) -> t.Iterator[Shell]:
    """Runs a command on a fresh container of that Debian release, which has no compiler yet."""
    name = f"preload-jemalloc-releases-{suite}"
    image = run(str(ROOT / ".ci" / "build-image"), suite).splitlines()[-1]
    packages = Path(ansible.__file__).parent
    volumes = [
        f"--volume={tarballs}:/tarballs:ro",
        f"--volume={packages}:/packages/ansible:ro",
        f"--volume={ROOT}:/packages/ansible_collections/preload/jemalloc:ro",
    ]
    run("podman", "run", "--detach", "--replace", f"--name={name}", *volumes, image, "sleep", "infinity")
    yield lambda *command, **variables: run(
        *("podman", "exec", *(f"--env={key}={value}" for key, value in variables.items()), name, *command)
    )
    run("podman", "rm", "--force", "--time=0", name)


def install(shell: Shell, tarballs: Path, source: Source, cxx: bool) -> dict[str, t.Any]:
    """Run the module jemalloc on the container, by its own Python; return its result."""
    arguments = {
        "version": source.version,
        "origins": [f"/tarballs/{source.version}.tar.bz2"],
        "checksum": f"sha256:{files.sha256(str(tarballs / f'{source.version}.tar.bz2'))}",
        "options": {"cxx": cxx},
    }
    runner = "/packages/ansible_collections/preload/jemalloc/tests/faults/run_module.py"
    printed = shell("python3", runner, "jemalloc", json.dumps(arguments), PYTHONPATH="/packages")
    result: dict[str, t.Any] = json.loads(printed.splitlines()[-1])
    return result


# With C++, which 5.x alone has, on the newest: its compiler takes that part only by our help.
@pytest.mark.parametrize(("suite", "cxx"), [pytest.param("bullseye", False, marks=pytest.mark.full), ("forky", True)])
def test_old_releases(shell: Shell, tarballs: Path, cxx: bool) -> None:
    installed: list[str] = []
    for source in SOURCES:
        result = install(shell, tarballs, source, cxx)
        assert (result["changed"], result["built"]) == (True, source.version)
        assert (result["current"], result["previous"]) == (source.version, installed[-1] if installed else None)
        installed.append(source.version)
        assert result["installations"] == installed
        assert not install(shell, tarballs, source, cxx)["changed"]

    for source in SOURCES:
        directory = f"/opt/jemalloc/{source.version}"
        assert set(shell("ls", f"{directory}/bin").split()) == source.tools

        preloaded = ["/opt/jemalloc/current/bin/jemalloc.sh", "grep", "-o", "/opt/jemalloc/.*", "/proc/self/maps"]
        mapped = set(shell(*preloaded, JEMALLOC_VERSION=source.version).split())
        assert mapped == {f"{directory}/lib/{source.library}"}

        preloaded[1:] = ["true"]
        statistics = shell(*preloaded, JEMALLOC_VERSION=source.version, MALLOC_CONF="stats_print:true")
        assert re.findall(r"Version: \"?([0-9.]+)-", statistics) == [source.version]

        dynamic = shell("readelf", "--dynamic", "--wide", f"{directory}/lib/{source.library}")
        assert f"Library soname: [{source.library}]" in dynamic
        # the initial-exec model, which 3.6.0 does not find out by itself
        assert "STATIC_TLS" in dynamic
        assert ("libstdc++.so" in dynamic) == (cxx and source.version.startswith("5"))
