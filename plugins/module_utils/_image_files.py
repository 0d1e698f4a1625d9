"""What an image is and can run, by its files as an export of them has them: nothing of it is run or unpacked."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import re
import tarfile
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _elf as elf
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._image_engine import Image

# The names of Go, which images have, and those of uname -m.
_MACHINES = {
    "386": "i686",
    "amd64": "x86_64",
    "arm": "armv7l",
    "arm64": "aarch64",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}

# The dynamic loaders, whose paths are part of each ABI: glibc's sysdeps/*/shlib-versions and musl's arch/*/reloc.h.
_LOADERS = {
    "aarch64": {"glibc": "/lib/ld-linux-aarch64.so.1", "musl": "/lib/ld-musl-aarch64.so.1"},
    "armv7l": {"glibc": "/lib/ld-linux-armhf.so.3", "musl": "/lib/ld-musl-armhf.so.1"},
    "i686": {"glibc": "/lib/ld-linux.so.2", "musl": "/lib/ld-musl-i386.so.1"},
    "ppc64le": {"glibc": "/lib64/ld64.so.2", "musl": "/lib/ld-musl-powerpc64le.so.1"},
    "riscv64": {"glibc": "/lib/ld-linux-riscv64-lp64d.so.1", "musl": "/lib/ld-musl-riscv64.so.1"},
    "s390x": {"glibc": "/lib/ld64.so.1", "musl": "/lib/ld-musl-s390x.so.1"},
    "x86_64": {"glibc": "/lib64/ld-linux-x86-64.so.2", "musl": "/lib/ld-musl-x86_64.so.1"},
}

# Where distributions have glibc, with and without a directory for the architecture.
_GLIBC = re.compile(r"(usr/)?lib(32|64|x32)?/([^/]+/)?libc\.so\.6")

# As the kernel has it: path_resolution(7).
_MOST_LINKS = 40


@dataclass(frozen=True)
class Found:
    """What an image is: the platform it offers to a library, its loader's path, and that loader itself."""

    here: platform.Here
    loader: str
    elf: elf.Elf


class Files:
    """The files of an image, by their paths."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._members = {os.path.normpath(member.name).lstrip("/"): member for member in tar}

    def resolve(self, path: str) -> str:
        """Return where a path leads in the image, all links followed; empty when that is nothing."""
        found, links = "", 0
        pending = path.split("/")[::-1]
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                found = os.path.dirname(found)
                continue
            name = f"{found}/{part}" if found else part
            member = self._members.get(name)
            if member is None:
                return ""
            if not member.issym():
                found = name
                continue
            links += 1
            if links > _MOST_LINKS:
                return ""
            found = "" if member.linkname.startswith("/") else found
            pending += member.linkname.split("/")[::-1]
        return found

    def read(self, path: str) -> t.Optional[bytes]:
        """Return the content of a file, None when there is none."""
        member = self._members.get(self.resolve(path))
        stream = self._tar.extractfile(member) if member and (member.isreg() or member.islnk()) else None
        return stream.read() if stream else None

    def matching(self, pattern: t.Pattern[str]) -> t.List[str]:
        """Return the paths that a pattern matches as a whole."""
        return sorted(name for name in self._members if pattern.fullmatch(name))

    def elf(self, path: str) -> t.Optional[elf.Elf]:
        """Return what an ELF file says of itself, None for what is none, or is not there."""
        try:
            return elf.parse(self.read(path) or b"")
        except JemallocError:
            return None

    def locate(self, command: str, path: t.Sequence[str]) -> str:
        """Return where a command is that is looked for in these directories; empty when it is nowhere."""
        places = [command] if command.startswith("/") else [f"{directory}/{command}" for directory in path]
        return next((place for place in places if self.resolve(place)), "")


def check_platform(platform: str) -> str:
    """Return a platform such as linux/arm64 as it is; JemallocError for what is none that this collection knows."""
    parts = platform.split("/")
    if platform and (len(parts) not in (2, 3) or parts[0] != "linux" or parts[1] not in _MACHINES or not all(parts)):
        raise JemallocError(
            f"platform: {platform!r} is none that this collection knows; write it like linux/arm64, with one of "
            f"{', '.join(_MACHINES)}."
        )
    return platform


def open_export(path: str) -> tarfile.TarFile:
    """Open the archive that an engine exported; JemallocError when it is none."""
    try:
        return tarfile.open(path, "r:")
    except (tarfile.TarError, EOFError) as error:
        raise JemallocError(f"base: the files that were exported cannot be read: {error}.") from error


def look(files: Files, image: Image, name: str, about: str = "base") -> Found:
    """Return what an image is; JemallocError for one into which nothing can be preloaded, or that is not known.

    It begins with what it is about.
    """
    machine = _MACHINES.get(image.architecture, "")
    if not machine:
        raise JemallocError(
            f"{about}: {name} is for {image.architecture}, which this collection does not know; it knows "
            f"{', '.join(_MACHINES)}."
        )
    there = {family: found for family, path in _LOADERS[machine].items() for found in [files.elf(path)] if found}
    if not there:
        raise JemallocError(
            f"{about}: {name} has no dynamic loader for {machine} ({' or '.join(_LOADERS[machine].values())}): what it "
            "runs is static, and nothing can be preloaded into that; take an image with a C library."
        )
    paths = {family: _LOADERS[machine][family] for family in there}
    family = _used(files, image, paths) if len(there) > 1 else next(iter(there))
    version = _glibc_version(files, there[family], f"{about}: {name}") if family == "glibc" else ""
    here = platform.Here(machine, family, version, platform.lg_page(machine))
    return Found(here, paths[family], there[family])


def _used(files: Files, image: Image, there: t.Mapping[str, str]) -> str:
    """Return whose loader the image's own programs ask for: its command's, else its shell's, else glibc's."""
    for command in (*image.entrypoint[:1], *image.command[:1], "/bin/sh"):
        found = files.elf(files.locate(command, image.path))
        for family, path in there.items():
            if found and found.interpreter and files.resolve(found.interpreter) == files.resolve(path):
                return family
    return "glibc"


def _glibc_version(files: Files, loader: elf.Elf, name: str) -> str:
    """Return the version of the glibc that belongs to a loader."""
    for path in files.matching(_GLIBC):
        found = files.elf(path)
        if found and (found.bits, found.order, found.machine) == (loader.bits, loader.order, loader.machine):
            version = platform.glibc_version(files.read(path) or b"")
            if version:
                return version
    raise JemallocError(
        f"{name} has the dynamic loader of glibc, but no libc.so.6 with a version below /lib, /lib64 or /usr; take an "
        "image that has the whole of it."
    )
