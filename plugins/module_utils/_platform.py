"""What a build is good for: architecture, C library and its lowest version, page size."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import re
import typing as t
from dataclasses import dataclass

# 64 KiB pages are in use on these machines. A library works where the page is at most what it was built for, so
# it is built for the largest; elsewhere pages are 4 KiB.
_LARGE_PAGE_MACHINES = ("aarch64", "loongarch64", "mips64", "ppc64", "ppc64le")


def lg_page(machine: str) -> int:
    """Return the base-2 logarithm of the page size to build for on a machine (as uname -m names it)."""
    return 16 if machine in _LARGE_PAGE_MACHINES else 12


def libc() -> str:
    """Return the family of this host's C library, glibc or musl; only glibc answers CS_GNU_LIBC_VERSION."""
    try:
        return "glibc" if os.confstr("CS_GNU_LIBC_VERSION") else "musl"
    except (OSError, ValueError):
        return "musl"


def library_version(data: bytes) -> str:
    """Return the release that a library's bytes name (X.Y.Z-N-gCOMMIT stands there once), or nothing."""
    match = re.search(rb"(?<![0-9.])([0-9]+\.[0-9]+\.[0-9]+)-[0-9]+-g[0-9a-f]+", data)
    return match.group(1).decode("ascii") if match else ""


def lowest_glibc(data: bytes) -> str:
    """Return the highest GLIBC_ symbol version a library's bytes name: the lowest glibc that can load it."""
    found = re.findall(rb"GLIBC_([0-9]+(?:\.[0-9]+)+)\0", data)
    versions = {tuple(int(part) for part in version.split(b".")) for version in found}
    return ".".join(str(part) for part in max(versions)) if versions else ""


def linked_libc(needed: t.Iterable[str]) -> str:
    """Return the family of the C library that a library was linked to, by the libraries it needs; empty: to none.

    musl is called libc.so by its own compiler wrapper, and libc.musl-ARCHITECTURE.so.1 by distributions of it.
    """
    names = set(needed)
    if "libc.so.6" in names:
        return "glibc"
    return "musl" if any(name == "libc.so" or name.startswith("libc.musl-") for name in names) else ""


def glibc_version(data: bytes) -> str:
    """Return the version that the bytes of a libc.so.6 name: it prints this line when it is run, csu/version.c."""
    match = re.search(rb"GNU C Library [^\n\0]*release version ([0-9]+\.[0-9]+)", data)
    return match.group(1).decode("ascii") if match else ""


@dataclass(frozen=True)
class Here:
    """What this host offers to a library: architecture, C library and its version, log2 of the page size in use."""

    architecture: str
    libc: str
    libc_version: str
    lg_page: int


def here() -> Here:
    """Return what this host is."""
    family = libc()
    version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()[-1] if family == "glibc" else ""
    return Here(os.uname().machine, family, version, os.sysconf("SC_PAGE_SIZE").bit_length() - 1)


def name(receipt: t.Mapping[str, t.Any]) -> str:
    """Return the platform of a build as one word: x86_64-glibc2.34, and what was built in another way than usual."""
    made_for, options = receipt["platform"], receipt["options"]
    words = [made_for["architecture"], f"{made_for['libc']}{made_for['libc_lowest']}"]
    if made_for["lg_page"] != lg_page(made_for["architecture"]):
        words.append(f"page{1 << made_for['lg_page']}")
    return "-".join([*words, *(option for option in ("cxx", "prof") if options[option])])


def platform(data: bytes, machine: str, family: str, page: t.Optional[int]) -> t.Dict[str, t.Any]:
    """Return the platform of a library that was built for a machine and a C library, as its receipt holds it."""
    return {
        "architecture": machine,
        "libc": family,
        "libc_lowest": lowest_glibc(data),
        "lg_page": page or lg_page(machine),
    }
