"""Can this service preload at all? What is known to be in the way is said before it is tried."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import glob
import mmap
import os
import re
import shutil
import stat
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _elf as elf
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils import _unit_settings as unit_settings
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

# Where systemd looks for a program that is named without its directory.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# A script that starts a script that starts a script ... is not followed further, as in execve(2).
_MOST_INTERPRETERS = 4

# What the bytes of a program hold that brings an allocator of its own.
_ALLOCATORS = {
    b"libjemalloc.so": "jemalloc of its own",
    b"<jemalloc>: ": "jemalloc of its own",
    b"libtcmalloc": "tcmalloc",
    b"TCMALLOC_": "tcmalloc",
    b"mimalloc: ": "mimalloc",
    b"PartitionAlloc": "PartitionAlloc",
}

# Before it, PHP loads its extensions with RTLD_DEEPBIND, so that they free by the C library what jemalloc gave them.
_PHP_WITHOUT_DEEPBIND = (8, 5)
_PHP = re.compile(rb"PHP/([0-9]{1,2})\.([0-9]{1,2})\.")

# Where Debian's clusters of PostgreSQL are, by version and name.
_POSTGRESQL = "etc/postgresql"

_APPARMOR = "sys/kernel/security/apparmor/profiles"


class Verdict(t.NamedTuple):
    """Why a service cannot preload, and what to know of one that can; each a sentence without its end."""

    refused: t.List[str]
    noted: t.List[str]


def judge(unit: systemd.Unit, library: elf.Elf, prefix: str, root: str = "/") -> Verdict:
    """Return what is known of a service before it is tried."""
    refused = unit_settings.reasons(unit, prefix)
    noted = [_confined(unit, prefix, root)]
    for path in _programs(unit.properties):
        program, words = _program(path, root)
        refused.append(_emptied(unit, path, prefix, root))
        user = " ".join(unit.properties.get("User", [])) not in ("", "root", "0")
        if program:
            why, what = _judge_program(program, library, user)
            refused.append(why)
            noted.append(what)
        if os.path.basename(path).startswith("mysqld_safe"):
            noted.append(f"{path} takes libraries of its own only from system directories; the drop-in is not its way")
        noted += [words] if words else []
    return Verdict([why for why in refused if why], [what for what in noted if what])


def _emptied(unit: systemd.Unit, path: str, prefix: str, root: str) -> str:
    """Return which files have to name the library: Debian's PostgreSQL is started with nothing but what they say."""
    if os.path.basename(path) != "pg_ctlcluster":
        return ""
    instance = unit.name.partition("@")[2].rpartition(".")[0]
    clusters = glob.glob(os.path.join(root, _POSTGRESQL, instance.replace("-", "/", 1) or "*/*"))
    paths = [os.path.join(cluster, "environment") for cluster in sorted(clusters)]
    ours = re.compile(rf"^\s*LD_PRELOAD[\s=].*{re.escape(prefix)}/", re.MULTILINE)
    lacking = [path for path in paths if not ours.search(files.read_text(path) or "")]
    library = store.library(prefix, unit.wanted.version or "current")
    what = f"{path} gives it no environment but that of {', '.join(lacking)}; add LD_PRELOAD = '{library}' there"
    return what if lacking else ""


def _programs(properties: t.Mapping[str, t.Sequence[str]]) -> t.List[str]:
    """Return the programs that ExecStart= names, as systemctl show prints it."""
    found = (re.match(r"\{ path=(.*?) ; argv\[\]=", value) for value in properties.get("ExecStart", []))
    return [match.group(1) for match in found if match]


def _program(path: str, root: str) -> t.Tuple[str, str]:
    """Return the file that is executed in the end, an interpreter where a script is named; or why there is none."""
    for _level in range(_MOST_INTERPRETERS):
        where = os.path.join(root, path.lstrip("/")) if os.path.isabs(path) else shutil.which(path, path=_PATH)
        if not where or not os.path.isfile(where):
            return "", f"{path} is not there (yet)"
        with open(where, "rb") as stream:
            line = stream.readline(256)
        if not line.startswith(b"#!"):
            return where, ""
        words = line[2:].decode("utf-8", "replace").split()
        if words and os.path.basename(words[0]) == "env":
            words = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        if not words:
            break
        path = words[0]
    return "", ""


def _judge_program(path: str, library: elf.Elf, user: bool) -> t.Tuple[str, str]:
    """Return why a program cannot preload, and what to know of it."""
    with open(path, "rb") as stream:
        try:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            return "", ""
    with data:
        why = _unfit(path, t.cast(bytes, data), library) or _secure(path, user)
        version = _PHP.search(data) if os.path.basename(path).startswith("php-fpm") else None
        if version and (int(version.group(1)), int(version.group(2))) < _PHP_WITHOUT_DEEPBIND:
            why = why or (
                f"{path} is PHP {version.group(1).decode()}.{version.group(2).decode()}, which crashes with a "
                "preloaded allocator (RTLD_DEEPBIND) before 8.5"
            )
        own = next((name for mark, name in _ALLOCATORS.items() if data.find(mark) >= 0), "")
    return why, f"{path} brings {own}, which the library may or may not take the place of" if own else ""


def _unfit(path: str, data: bytes, library: elf.Elf) -> str:
    """Return why a program's format is in the way."""
    if not elf.is_elf(data[:4]):
        return ""
    try:
        program = elf.parse(data)
    except JemallocError:
        return ""
    if (program.bits, program.order, program.machine) != (library.bits, library.order, library.machine):
        return f"{path} is a program of {program.bits} bits for another machine than the library is for"
    if not program.interpreter:
        return f"{path} is linked statically, so that nothing can be preloaded"
    musl = ("musl" in program.interpreter, any("musl" in name for name in library.needed))
    if musl[0] != musl[1]:
        return f"{path} runs with another C library than the library is for"
    return ""


def _secure(path: str, user: bool) -> str:
    """Return what makes the dynamic linker ignore LD_PRELOAD, ld.so(8), for a program; root's processes are spared."""
    mode = os.stat(path).st_mode
    if mode & (stat.S_ISUID | stat.S_ISGID) and user:
        return f"{path} is set-user-ID or set-group-ID, for which the dynamic linker ignores LD_PRELOAD"
    try:
        capabilities = os.getxattr(path, "security.capability")
    except OSError:  # it has none, or the file system knows none
        return ""
    if capabilities and user:
        return f"{path} has file capabilities, for which the dynamic linker ignores LD_PRELOAD"
    return ""


def _confined(unit: systemd.Unit, prefix: str, root: str) -> str:
    """Return which AppArmor profile may keep a service from reading the store, with the rule that lets it."""
    names = [*(word.lstrip("-") for word in unit.properties.get("AppArmorProfile", []) if word)]
    names += _programs(unit.properties)
    for line in (files.read_text(os.path.join(root, _APPARMOR)) or "").splitlines():
        name, _space, mode = line.rpartition(" ")
        if name in names and mode == "(enforce)":
            local = f"/etc/apparmor.d/local/{name.lstrip('/').replace('/', '.')}"
            return f"AppArmor confines it by {name}; if it may not read the library, add '{prefix}/** mr,' to {local}"
    return ""
