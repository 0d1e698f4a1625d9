# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts of a run lack the same build, and which of them makes it: the one with the oldest C library."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import fcntl
import glob
import json
import os
import re
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.plugin_utils._cache import Need

_PREFIX = "preload-jemalloc-lacking-"


def volunteer(directory: str, need: Need, host: str) -> None:
    """Write down that a host lacks a build; the directory is one that all forks of a run share.

    That takes the same time for the first host of a fleet and for the last.
    """
    with open(_path(directory, need, "hosts"), "a", encoding="utf-8") as stream:
        stream.write(f"{host}\n")
    with open(_path(directory, need, "builder"), "a+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        known = json.loads(stream.read() or "null")
        if known is None or list(need.age) < known["age"]:
            stream.truncate(0)
            json.dump({"age": need.age, "host": host}, stream)


def builder(directory: str, need: Need) -> str:
    """Return the host that makes a build, the first of those with the oldest C library; empty when none lacks it."""
    text = files.read_text(_path(directory, need, "builder"))
    return str(json.loads(text)["host"]) if text else ""


def waiting(directory: str, need: Need) -> str:
    """Return the hosts that a build is made for by another one, the first and the last of many."""
    lacking = (files.read_text(_path(directory, need, "hosts")) or "").split()
    hosts = sorted({*lacking} - {builder(directory, need)}, key=_numbered)
    return f"{hosts[0]}..{hosts[-1]} ({len(hosts)} hosts)" if len(hosts) > 2 else ", ".join(hosts)


def _numbered(host: str) -> t.List[t.Tuple[int, str]]:
    """Return what sorts web2 before web10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"([0-9]+)", host)]


def position(directory: str, need: Need) -> t.Tuple[int, int]:
    """Return which of a run's builds this one is, and how many there are."""
    keys = sorted(path.rpartition("-")[2] for path in glob.glob(os.path.join(directory, f"{_PREFIX}builder-*")))
    return (keys.index(need.key) + 1 if need.key in keys else 1), max(len(keys), 1)


def _path(directory: str, need: Need, what: str) -> str:
    return os.path.join(directory, f"{_PREFIX}{what}-{need.key}")
