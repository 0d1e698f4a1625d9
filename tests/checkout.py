# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of this checkout, and what else ansible-test wants of the machine that it runs on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: How this machine reaches a package index, if that takes anything: a container has to do it in the same way.
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
INDEX = ("PIP_CERT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "http_proxy", "https_proxy", "no_proxy")


def names() -> list[str]:
    """Return the files that git knows or would take."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    found = subprocess.check_output(listing, cwd=ROOT, encoding="utf-8").split("\0")
    return [name for name in found if name and (ROOT / name).exists()]


def copy(directory: Path) -> Path:
    """Copy these files to the only kind of path that ansible-test accepts, below a directory; return that path."""
    target = directory / "ansible_collections" / "preload" / "jemalloc"
    for name in names():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    subprocess.check_call(["git", "init", "--quiet"], cwd=target)
    subprocess.check_call(["git", "add", "--all"], cwd=target)
    return target


def link_interpreters(directory: Path) -> Path:
    """Fill a directory with links to every Python of this machine that can be a target."""
    for minor in range(9, 15):
        for place in (Path.home() / ".pyenv" / "versions", Path("/usr/bin")):
            found = sorted([*place.glob(f"3.{minor}.*/bin/python3.{minor}"), *place.glob(f"python3.{minor}")])
            if found and not (directory / f"python3.{minor}").exists():
                (directory / f"python3.{minor}").symlink_to(found[-1])
    return directory


def bring_pip(ansible_test: Path, home: Path) -> None:
    """Put our bootstrap script for pip where ansible-test, a package, keeps the one that it would download."""
    requirements = (ansible_test / "_internal" / "python_requirements.py").read_text(encoding="utf-8")
    version = re.search(r"pip='([0-9.]+)'", requirements)
    if version is None:
        raise ValueError(f"{ansible_test} does not say which pip it wants.")
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / ".ci" / "get_pip.py", cache / f"get_pip_{version[1].replace('.', '_')}.py")


def index_options() -> list[str]:
    """Return the options of podman with which a container reaches a package index as this machine does."""
    options = [f"--env={key}={os.environ[key]}" for key in INDEX if key in os.environ]
    return [*options, *([f"--volume={AUTHORITIES}:{AUTHORITIES}:ro"] if AUTHORITIES.exists() else [])]
