"""Where the files of scopes stand, which of them are there, and which refer to an installation."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import glob
import os
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _container_files as container_files
from ansible_collections.preload.jemalloc.plugins.module_utils import _contents as contents
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils._changes import DROP_IN
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

# No script of ours that starts another program is as long.
_MOST_OF_A_SCRIPT = 4096

_UNITS = "etc/systemd/system"
_USER_UNITS = "etc/systemd/user"
_MANAGER = f"etc/systemd/system.conf.d/{DROP_IN}"
_ENVIRONMENT = "etc/environment"
_PROFILE = "etc/profile.d/jemalloc.sh"
_COMMANDS = "usr/local/bin"
_LD_SO_PRELOAD = "etc/ld.so.preload"

#: What /etc/ld.so.preload would hold without us: services and commands that are kept out see this in its place.
_LD_SO_PRELOAD_WITHOUT = "etc/ld.so.preload.without-jemalloc"

#: The wrappers that are on the PATH as links into the current installation.
WRAPPERS = ("jemalloc.sh", "no-jemalloc.sh")


def drop_in_path(unit: str, user: bool = False, root: str = "/") -> str:
    """Return the path of our drop-in of a unit, or of one that users' own systemd runs."""
    return os.path.join(root, _USER_UNITS if user else _UNITS, f"{unit}.d", DROP_IN)


def present_drop_ins(root: str = "/") -> t.List[str]:
    """Return the paths of our drop-ins that are there."""
    found = [glob.glob(os.path.join(root, units, "*.service.d", DROP_IN)) for units in (_UNITS, _USER_UNITS)]
    return sorted(path for paths in found for path in paths)


def unit_of_drop_in(path: str) -> str:
    """Return the unit that a drop-in belongs to."""
    return os.path.basename(os.path.dirname(path))[: -len(".d")]


def is_user_drop_in(path: str) -> bool:
    """Whether a drop-in belongs to a unit that users' own systemd runs."""
    return os.path.dirname(os.path.dirname(path)).endswith(_USER_UNITS)


def manager_path(root: str = "/") -> str:
    """Return the path of our settings of systemd itself."""
    return os.path.join(root, _MANAGER)


def login_path(root: str = "/") -> str:
    """Return the path of the environment of logins, the file itself where it is a link."""
    return os.path.realpath(os.path.join(root, _ENVIRONMENT))


def profile_path(root: str = "/") -> str:
    """Return the path of our script of login shells."""
    return os.path.join(root, _PROFILE)


def list_name(root: str = "/") -> str:
    """Return the path by which the dynamic linker opens its list."""
    return os.path.join(root, _LD_SO_PRELOAD)


def list_path(root: str = "/") -> str:
    """Return the path of the list of the dynamic linker, the file itself where it is a link."""
    return os.path.realpath(list_name(root))


def without_path(root: str = "/") -> str:
    """Return the path of what the list of the dynamic linker would be without us."""
    return os.path.join(root, _LD_SO_PRELOAD_WITHOUT)


def host_files(root: str = "/") -> t.Dict[str, str]:
    """Return the paths of the files for more than one service that can be ours, or in part, each with its scope."""
    kinds = {_MANAGER: "host", _ENVIRONMENT: "login", _PROFILE: "login", _LD_SO_PRELOAD: "ld_so_preload"}
    kinds[_LD_SO_PRELOAD_WITHOUT] = "ld_so_preload"
    return {os.path.realpath(os.path.join(root, path)): kind for path, kind in kinds.items()}


def commands_directory(root: str = "/") -> str:
    """Return the directory on the PATH in which our commands stand."""
    return os.path.join(root, _COMMANDS)


def command_path(name: str, root: str = "/") -> str:
    """Return the path of the script that stands in front of a command."""
    return os.path.join(commands_directory(root), name)


def present_commands(root: str = "/") -> t.List[str]:
    """Return the paths of commands that we keep out: scripts of ours that start the program by no-jemalloc.sh."""
    found = []
    for path in glob.glob(command_path("*", root)):
        if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) < _MOST_OF_A_SCRIPT:
            found += (
                [path]
                if f"# Managed by the Ansible collection {contents.MARK};" in (files.read_text(path) or "")
                else []
            )
    return sorted(found)


def find_command(name: str, path: str, root: str = "/") -> str:
    """Return the program that a command is, which is the first on a PATH that is not ours; empty when there is none."""
    ours = commands_directory(root)
    directories = [directory for directory in path.split(":") if directory and os.path.realpath(directory) != ours]
    found = (os.path.join(directory, name) for directory in directories)
    return next((each for each in found if os.path.isfile(each) and os.access(each, os.X_OK)), "")


def wrapper_links(prefix: str, root: str = "/") -> t.List[str]:
    """Return the links of ours to wrappers on the PATH."""
    paths = {name: command_path(name, root) for name in WRAPPERS}
    targets = {path: f"{prefix}/current/bin/{name}" for name, path in paths.items() if os.path.islink(path)}
    return [path for path, target in targets.items() if os.readlink(path) == target]


def check_one_store(prefix: str, root: str = "/") -> None:
    """Refuse another store than the one that the wrappers on the PATH lead to: one command cannot lead to two."""
    for name in WRAPPERS:
        path, end = command_path(name, root), f"/current/bin/{name}"
        target = os.readlink(path) if os.path.islink(path) else ""
        other = target[: -len(end)] if target.endswith(end) else ""
        if other and os.path.isdir(f"{other}/current") and os.path.realpath(other) != os.path.realpath(prefix):
            raise JemallocError(
                f"prefix: {prefix} is not where this host has its jemalloc, that is {other}. Nothing was changed. Use "
                f"prefix: {other}, or remove that one first (state: absent with prefix: {other})."
            )


def references(directory: str, root: str = "/") -> t.List[str]:
    """Return the files that refer to something below a directory: to a store or to one of its installations."""
    paths = [manager_path(root), *present_drop_ins(root), os.path.join(root, _ENVIRONMENT)]
    paths += container_files.present(root)
    found = []
    for path in paths:
        text = files.read_text(path) or ""
        if contents.MARK in text and f"{directory}/" in text:
            found.append(path)
    # Whoever wrote it: without the library every program would complain, or with half of it not start.
    preloaded = list_name(root)
    return found + ([preloaded] if f"{directory}/" in (files.read_text(preloaded) or "") else [])


def is_command(path: str, root: str = "/") -> bool:
    """Whether a path is that of a command in the directory of ours."""
    return os.path.dirname(path) == commands_directory(root)


def is_known(path: str, root: str = "/") -> bool:
    """Whether a path is one at which this collection can have a file, or a part of one."""
    directory, name = os.path.split(path)
    drop_in = name == DROP_IN and os.path.dirname(directory) in _unit_directories(root)
    return drop_in or is_command(path, root) or path in _fixed(root)


def directories(root: str = "/") -> t.List[str]:
    """Return the directories in which this collection has files, or makes a directory for one."""
    units = _unit_directories(root)
    of_files = [os.path.dirname(path) for path in _fixed(root)]
    found = [*of_files, os.path.dirname(os.path.dirname(manager_path(root))), commands_directory(root), *units]
    return found + [path for directory in units for path in glob.glob(f"{directory}/*.service.d")]


def _fixed(root: str) -> t.List[str]:
    """Return the paths of the files for more than one service."""
    return [list_path(root), login_path(root), manager_path(root), profile_path(root), without_path(root)]


def _unit_directories(root: str) -> t.List[str]:
    return [os.path.join(root, units) for units in (_UNITS, _USER_UNITS)]
