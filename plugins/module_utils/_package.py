"""The distribution's own package of jemalloc: what it is called, which release it has, and where its library is."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import re
import typing as t

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run


#: The package that holds the library, by package manager.
NAMES = {"apt-get": "libjemalloc2", "dnf": "jemalloc", "zypper": "libjemalloc2", "apk": "jemalloc"}

# What prints the files of a package that is installed, and what prints the version that could be.
_FILES = {
    "apt-get": ("dpkg-query", "--listfiles"),
    "dnf": ("rpm", "-ql"),
    "zypper": ("rpm", "-ql"),
    "apk": ("apk", "info", "-qL"),
}
_CANDIDATE = {
    "apt-get": ("apt-cache", "policy"),
    "dnf": ("dnf", "-q", "repoquery", "--queryformat", "%{version}\n"),
    "zypper": ("zypper", "-q", "info"),
    "apk": ("apk", "policy"),
}


def library(run: Run, manager: str) -> t.Optional[str]:
    """Return the path of the library of the installed package, None when the package is not installed."""
    status, output = run([*_FILES[manager], NAMES[manager]], None, None)
    if status:
        return None
    paths = (f"/{line.strip().lstrip('/')}" for line in output.splitlines())
    found = [path for path in paths if re.search(r"/libjemalloc\.so\.[0-9]+$", path) and os.path.isfile(path)]
    return found[0] if found else None


def candidate(run: Run, manager: str) -> t.Optional[str]:
    """Return the release that the package manager would install, None when it knows none."""
    status, output = run([*_CANDIDATE[manager], NAMES[manager]], None, None)
    if status:
        return None
    if manager == "apt-get":  # it prints the installed version, the candidate, and a table of all
        output = "".join(line for line in output.splitlines() if line.strip().startswith("Candidate:"))
    match = re.search(r"(?<![0-9.])[0-9]+\.[0-9]+\.[0-9]+", output)
    return match.group(0) if match else None
