"""What systemd says of units and of itself, read from its own output and from its files; nothing is changed here."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import glob
import os
import re
import shlex
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

_PROPERTIES = "Id,LoadState,ActiveState,FragmentPath,DropInPaths,EnvironmentFiles"

# systemd.unit(5): letters, digits and :-_.\@ ; the type is what follows the last dot.
_SERVICE_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]+\.service")

# Where systemd reads its own settings, systemd-system.conf(5), in the order in which they count.
_MANAGER_FILES = ("usr/lib/systemd/system.conf", "etc/systemd/system.conf")
_MANAGER_DIRECTORIES = ("usr/lib/systemd/system.conf.d", "run/systemd/system.conf.d", "etc/systemd/system.conf.d")


@dataclass(frozen=True)
class Unit:
    """A service as systemd knows it; name is its own, not an alias; environment_files are those that must be heeded."""

    name: str
    active: str
    unit_files: t.Tuple[str, ...] = ()
    environment_files: t.Tuple[str, ...] = ()


def is_running(root: str = "/") -> bool:
    """Whether systemd is this host's init: the test of sd_booted(3)."""
    return os.path.isdir(os.path.join(root, "run/systemd/system"))


def unit_name(name: str) -> str:
    """Return the full name of a service: puma stands for puma.service."""
    full = name if name.endswith(".service") else f"{name}.service"
    if not _SERVICE_NAME.fullmatch(full) or "@." in full:
        raise JemallocError(f"services: {name!r} is not the name of a service; write it as in systemctl status NAME.")
    return full


def units(run: Run, names: t.Sequence[str]) -> t.List[Unit]:
    """Return the services of these names; one that systemd does not know, or that cannot start, is an error."""
    if not names:
        return []
    full = [unit_name(name) for name in names]
    if not is_running():
        raise JemallocError(
            f"services: {', '.join(names)} cannot be looked up, systemd is not the init of this host; run the command "
            "by jemalloc.sh instead."
        )
    status, output = run(["systemctl", "show", f"--property={_PROPERTIES}", "--", *full], None, None)
    if status:
        raise JemallocError(f"services: systemd answers {output.strip()!r} when asked for {', '.join(full)}.")
    found = [_unit(name, block) for name, block in zip(names, parse_show(output))]
    return list({unit.name: unit for unit in found}.values())


def _unit(name: str, block: t.Mapping[str, t.List[str]]) -> Unit:
    """Return the unit that a block of systemctl show describes."""
    state = block["LoadState"][0]
    if state != "loaded":
        what = "knows no such service" if state == "not-found" else f"says that it is {state}"
        raise JemallocError(
            f"services: systemd on this host {what}: {name}; 'systemctl list-unit-files' lists what it has."
        )
    environment_files = [entry.rsplit(" (", 1)[0] for entry in block.get("EnvironmentFiles", []) if entry]
    unit_files = [*block["FragmentPath"], *" ".join(block.get("DropInPaths", [])).split()]
    return Unit(
        block["Id"][0], block["ActiveState"][0], tuple(path for path in unit_files if path), tuple(environment_files)
    )


def parse_show(output: str) -> t.List[t.Dict[str, t.List[str]]]:
    """Return the units of systemctl show, in their order: each property with its values."""
    blocks = []
    for paragraph in output.strip().split("\n\n"):
        block: t.Dict[str, t.List[str]] = {}
        for line in paragraph.splitlines():
            name, _equals, value = line.partition("=")
            block.setdefault(name, []).append(value)
        blocks.append(block)
    return blocks


def setting(texts: t.Iterable[str], section: str, key: str, variable: str) -> str:
    """Return what a variable is set to by KEY= in a section of unit files, read in this order; empty when it is not.

    As in systemd an empty assignment forgets the earlier ones. Specifiers (%) are returned as they stand.
    """
    value = ""
    for text in texts:
        inside = False
        for line in text.replace("\\\n", " ").splitlines():
            line = line.strip()
            if line.startswith("["):
                inside = line == f"[{section}]"
            name, equals, rest = line.partition("=")
            if not inside or not equals or name.strip() != key:
                continue
            words = _words(rest)
            if not words:
                value = ""
            for word in words:
                if word.startswith(f"{variable}="):
                    value = word[len(variable) + 1 :]
    return value


def _words(text: str) -> t.List[str]:
    """Split as systemd does: blanks separate, quotes hold together; an unbalanced line counts for nothing there too."""
    try:
        return shlex.split(text)
    except ValueError:
        return []


def environment_file_value(text: str, variable: str) -> str:
    """Return what an EnvironmentFile= or /etc/environment sets a variable to; the last assignment counts."""
    value = ""
    for line in text.splitlines():
        name, equals, rest = line.strip().partition("=")
        if equals and name in (variable, f"export {variable}"):
            value = "".join(_words(rest)[:1])
    return value


def manager_texts(own: str, root: str = "/") -> t.List[str]:
    """Return the texts of systemd's own settings, in the order in which they count, without the file that is ours."""
    paths = [os.path.join(root, name) for name in _MANAGER_FILES]
    by_name = {}
    for directory in _MANAGER_DIRECTORIES:
        for path in glob.glob(os.path.join(root, directory, "*.conf")):
            by_name[os.path.basename(path)] = path
    paths += [by_name[name] for name in sorted(by_name) if name != own]
    return [text for text in map(files.read_text, paths) if text is not None]
