"""Where files of ours are that let containers of this host preload: found again by their names, without a record."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files

#: Where podman reads quadlets, podman-systemd.unit(5), the first one that has it counts. Ours are where admins' are.
DIRECTORIES = ("run/containers/systemd", "etc/containers/systemd", "usr/share/containers/systemd")

#: Links to override files of compose, which stand wherever their projects are; each in a directory of its own.
RECORDS = "var/lib/preload-jemalloc"

_OURS = DIRECTORIES[1]


def drop_in_path(quadlet: str, root: str = "/") -> str:
    """Return the path of our drop-in of a quadlet."""
    return os.path.join(root, _OURS, f"{quadlet}.d", changes_util.DROP_IN)


def quadlet_of(path: str) -> str:
    """Return the quadlet that a drop-in belongs to."""
    return os.path.basename(os.path.dirname(path))[: -len(".d")]


def places(root: str = "/") -> t.List[str]:
    """Return where quadlets that stay are to be found."""
    return [os.path.join(root, directory) for directory in DIRECTORIES[1:]]


def is_drop_in(path: str, root: str = "/") -> bool:
    """Whether a path is that of a drop-in of ours."""
    return path == drop_in_path(quadlet_of(path), root)


def drop_ins(root: str = "/") -> t.List[str]:
    """Return the paths of our drop-ins of quadlets that are there."""
    return sorted(glob.glob(os.path.join(root, _OURS, "*.container.d", changes_util.DROP_IN)))


def record_path(override: str, root: str = "/") -> str:
    """Return the path of the link by which an override file of ours is found again."""
    name = hashlib.sha256(os.fsencode(override)).hexdigest()[:12]
    return os.path.join(root, RECORDS, name, changes_util.DROP_IN)


def overrides(root: str = "/") -> t.List[str]:
    """Return the paths of override files of ours, as the links say; they themselves may be gone."""
    links = glob.glob(os.path.join(root, RECORDS, "*", changes_util.DROP_IN))
    return sorted(os.readlink(path) for path in links if os.path.islink(path))


def present(root: str = "/") -> t.List[str]:
    """Return the paths of all files of ours that let a container preload."""
    return [*drop_ins(root), *overrides(root)]


def tidy(root: str = "/") -> None:
    """Remove the directory of links when it has none any more."""
    with contextlib.suppress(OSError):  # it has some, or is not there
        os.rmdir(os.path.join(root, RECORDS))


def clear_leftovers(root: str = "/") -> None:
    """Clear what a killed run left beside files of ours, whatever they are to be now."""
    tops = [os.path.join(root, directory) for directory in (_OURS, RECORDS)]
    places = [path for top in tops for path in (top, *glob.glob(f"{glob.escape(top)}/*/"))]
    for path in files.leftovers([*places, *map(os.path.dirname, overrides(root))]):
        files.remove_tree(path)
