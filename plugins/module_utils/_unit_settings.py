"""Tell which settings of a unit keep the library from its processes, or the unit from a restart."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _environment as environment
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._changes import DROP_IN

_Properties = t.Mapping[str, t.Sequence[str]]

# An assignment among the words of a command.
_ASSIGNS = re.compile(r"""(?:^|[\s'"])LD_PRELOAD=([^\s'";]*)""")

# env(1) that passes on no environment, or not this variable.
_CLEARS = re.compile(
    r"argv\[\]=\S*/env (?:(?:-\S+|\w+=\S*) )*?(?:-i|-|--ignore-environment|-u ?LD_PRELOAD|--unset=LD_PRELOAD) "
)

# Stands for the text of our drop-in.
_DROP_IN = '[Service]\nEnvironment="LD_PRELOAD=ours"\n'


def reasons(unit: systemd.Unit, prefix: str) -> t.List[str]:
    """Return why a unit as it is configured cannot preload, or not be restarted; each a sentence without its end."""
    found = [
        _hidden(unit.properties, prefix),
        _not_executable(unit.properties, prefix),
        _unset(unit),
        _overridden(unit),
        _assigned(unit.properties, prefix),
        _not_restartable(unit),
    ]
    return [why for why in found if why]


def _words(properties: _Properties, name: str) -> t.List[str]:
    return [word.lstrip("-+") for word in " ".join(properties.get(name, [])).split()]


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def _nearest(prefix: str, paths: t.Iterable[str]) -> str:
    """Return the path that counts for a directory: the longest one above it; empty when there is none."""
    return max((path for path in paths if _is_below(prefix, path)), key=len, default="")


def _hidden(properties: _Properties, prefix: str) -> str:
    """Return which setting of a unit hides the store from its processes."""
    remedy = f"add BindReadOnlyPaths={prefix}"
    binds: t.Dict[str, str] = {}
    for name in ("BindPaths", "BindReadOnlyPaths"):
        for word in _words(properties, name):
            source, _colon, rest = word.partition(":")
            binds[rest.partition(":")[0] or source] = source
    nearest = _nearest(prefix, binds)
    if nearest:
        there = binds[nearest].rstrip("/") + prefix[len(nearest.rstrip("/")) :]
        return "" if _is_same(there, prefix) else f"{binds[nearest]} is bound over {nearest} there; {remedy}"
    for name in ("RootDirectory", "RootImage"):
        if [path for path in _words(properties, name) if path != "/"]:
            return f"{name}={_words(properties, name)[0]} hides {prefix} from it; {remedy}"
    for name in ("InaccessiblePaths", "TemporaryFileSystem"):
        for path in (word.partition(":")[0] for word in _words(properties, name)):
            if _is_below(prefix, path):
                return f"{name}={path} hides {prefix} from it; {remedy}"
    return ""


def _is_same(path: str, prefix: str) -> bool:
    """Whether a path is the store; one that is not there yet is taken by its name."""
    try:
        return os.path.samefile(path, prefix)
    except OSError:
        return os.path.normpath(path) == os.path.normpath(prefix)


def _not_executable(properties: _Properties, prefix: str) -> str:
    """Return what keeps the library's code from being executed: it would be mapped, and not run."""
    refused = _nearest(prefix, _words(properties, "NoExecPaths"))
    allowed = _nearest(prefix, _words(properties, "ExecPaths"))
    if refused and len(refused) > len(allowed):
        return f"NoExecPaths={refused} keeps the library from being executed there; add ExecPaths={prefix}"
    return ""


def _unset(unit: systemd.Unit) -> str:
    """Return what takes LD_PRELOAD out of the environment of a service, our own exclusion left out."""
    texts = [files.read_text(path) or "" for path in unit.foreign_files]
    values = environment.assigned(texts, "Service", "UnsetEnvironment")
    names = [word.partition("=") for value in values for word in environment.words(value)]
    if any(name == "LD_PRELOAD" and not value for name, _equals, value in names):
        return "UnsetEnvironment=LD_PRELOAD takes the library away from it; take that line out"
    return ""


def _overridden(unit: systemd.Unit) -> str:
    """Return which drop-in comes after ours and resets the environment, or sets LD_PRELOAD again."""
    later = [path for path in unit.foreign_files if path.endswith(".conf") and os.path.basename(path) > DROP_IN]
    for number, path in enumerate(later, 1):
        texts = [_DROP_IN, *(files.read_text(each) or "" for each in later[:number])]
        if environment.setting(texts, "Service", "Environment", "LD_PRELOAD") != "ours":
            return f"{path} comes after our drop-in and changes Environment=; give it a name before {DROP_IN}"
    return ""


def _assigned(properties: _Properties, prefix: str) -> str:
    """Return what ExecStart= itself does to LD_PRELOAD."""
    for value in properties.get("ExecStart", []):
        found = _ASSIGNS.search(value)
        if found and not found.group(1).startswith(f"{prefix}/"):
            return f"its ExecStart= sets LD_PRELOAD={found.group(1)} itself; take that out"
        if _CLEARS.search(value):
            return "its ExecStart= clears the environment by env; take that out"
    return ""


def _not_restartable(unit: systemd.Unit) -> str:
    """Return why systemd refuses to restart a service that runs."""
    if unit.active not in ("active", "activating", "reloading"):
        return ""
    for name in ("RefuseManualStop", "RefuseManualStart"):
        if unit.properties.get(name) == ["yes"]:
            return f"it runs, and {name}=yes lets nobody restart it"
    if unit.properties.get("CanStart") == ["no"]:
        return "it runs, and systemd cannot start it again (CanStart=no)"
    return ""
