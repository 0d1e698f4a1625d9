"""Containers that run on this host, as podman and docker tell of them, and what their processes map."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import json
import re
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _elf as elf
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._image_engine import Engine

# podman --version
_VERSION = re.compile(r"([0-9]+)\.([0-9]+)")


class Running(t.NamedTuple):
    """A container: its identity, its main process (0: it does not run), its image, its environment, its labels."""

    id: str
    pid: int
    image: str
    environment: t.Mapping[str, str]
    labels: t.Mapping[str, str]


def version(engine: Engine) -> t.Tuple[int, int]:
    """Return the version of an engine."""
    found = _VERSION.search(engine.ask("--version", about="containers"))
    if not found:
        raise JemallocError(f"containers: {engine.name} does not say its version; look what {engine.name} it is.")
    return int(found.group(1)), int(found.group(2))


def containers(engine: Engine, labels: t.Sequence[str], stopped: bool = False) -> t.List[Running]:
    """Return the containers that have labels, given as NAME or NAME=VALUE; those that do not run as well if wanted."""
    filters = [f"--filter=label={label}" for label in labels]
    options = ["--all"] if stopped else []
    output = engine.ask("ps", "--quiet", "--no-trunc", *options, *filters, about="containers")
    ids = output.split()
    if not ids:
        return []
    status, output = engine.run("container", "inspect", *ids)
    try:
        # One that ended meanwhile is complained of behind the others.
        return [_container(each) for each in json.JSONDecoder().raw_decode(output.lstrip())[0]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise JemallocError(
            f"containers: {engine.name} container inspect ended with {status} and tells of no containers; try again."
        ) from error


def _container(found: t.Mapping[str, t.Any]) -> Running:
    """Return the container that an inspection describes."""
    config, state = found["Config"], found["State"]
    pairs = (entry.partition("=") for entry in config.get("Env") or ())
    return Running(
        found["Id"],
        int(state["Pid"]) if state.get("Running") else 0,
        found["Image"].rpartition(":")[2],
        {name: value for name, _equals, value in pairs},
        dict(config.get("Labels") or {}),
    )


def mapped(pids: t.Iterable[int], prefix: str, proc: str = "/proc") -> t.Dict[int, t.Set[str]]:
    """Return what the processes of containers map of a store, by their main processes; static programs are left out."""
    found: t.Dict[int, t.Set[str]] = {}
    for main in pids:
        there = processes.installations_of([main, *processes.descendants(main, proc)], prefix, proc)
        found.update({pid: what for pid, what in there.items() if what or not _is_static(pid, proc)})
    return found


def _is_static(pid: int, proc: str) -> bool:
    """Whether a process runs a program that asks for no loader, or has ended."""
    try:
        return not elf.read(f"{proc}/{pid}/exe").interpreter
    except (OSError, JemallocError):
        return True


def lacking(found: t.Mapping[int, t.Collection[str]], wanted: t.Optional[str], rebuilt: t.Optional[str] = None) -> str:
    """Return why processes have to be started anew, empty when they map what they should.

    wanted is a release, ANY, or None for none of ours. A rebuilt release counts as not mapped by anybody.
    """
    lacks = sorted(found) if wanted is not None and wanted == rebuilt else processes.unproved(found, wanted)
    what = f"do not map jemalloc {wanted}" if wanted else "still map jemalloc"
    return f"{len(lacks)} of its {len(found)} processes {what}" if lacks else ""
