"""Is the library fit for an image? It is run in that image, by what the image has, before the image gets its name."""

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

from ansible_collections.preload.jemalloc.plugins.module_utils import _elf as elf
from ansible_collections.preload.jemalloc.plugins.module_utils import _image as image
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _preflight as preflight
from ansible_collections.preload.jemalloc.plugins.module_utils import _probe as probe
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._image_engine import Engine, Image
    from ansible_collections.preload.jemalloc.plugins.module_utils._image_files import Files, Found

#: Seconds that one program may take, with the start of its container, also where another machine is emulated.
TIME_LIMIT = 60

# What the loader of glibc, that of musl, and jemalloc print when they go on without what they were asked for. Other
# entries, of the image or of the list of this host by which the engine runs, say nothing about the library.
_COMPLAINTS = re.compile(
    r"ERROR: ld\.so: object '[^']*/libjemalloc\.so[^']*' from LD_PRELOAD |Error (loading|relocating) |<jemalloc>: "
)

# How podman and docker end when the container, or the program in it, cannot be started: podman-run(1).
_NO_CONTAINER = (125, 126)

# Reads with nothing but the shell itself.
_READ_MAPS = 'while read -r line; do echo "$line"; done < /proc/self/maps'

_MAPS = "/proc/self/maps"

# What runtimes say of a program for a machine that is neither this one nor emulated.
_NO_PROGRAM = re.compile("exec format error", re.IGNORECASE)


@dataclass(frozen=True)
class Trial:
    """A program to run in the image, and whether it shows its maps."""

    entrypoint: str
    arguments: t.Tuple[str, ...] = ()
    shows: bool = False

    def __str__(self) -> str:
        return " ".join([self.entrypoint, *self.arguments[:2]])


def unfit(data: bytes, found: Found) -> str:
    """Return why a library cannot be for an image, by its bytes alone; empty when it can."""
    try:
        library = elf.parse(data)
    except JemallocError as error:
        return str(error)
    loader = found.elf
    if (library.bits, library.order, library.machine) != (loader.bits, loader.order, loader.machine):
        return f"it is for another machine ({library.bits} bits, e_machine {library.machine})"
    family = platform.linked_libc(library.needed)
    if family not in ("", found.here.libc):
        return f"it is linked to {family}, and the image has {found.here.libc}"
    return ""


def is_foreign(found: Found) -> bool:
    """Whether an image is for another machine than this one."""
    return found.here.architecture != os.uname().machine


def check_machine(engine: Engine, name: str, base: Image, found: Found, called: str) -> None:
    """Refuse an image for another machine than this one whose programs do not run here, which takes an emulator."""
    if not is_foreign(found):
        return
    _starts, reason = attempt(engine, name, base.id, Trial(found.loader, ("--help",)), {}, "")
    if _NO_PROGRAM.search(reason):
        raise JemallocError(
            f"base: {called} is for linux/{base.architecture}, whose programs do not run here; install an emulator "
            "such as the package qemu-user-static, or do this on a host for that."
        )


def trials(
    files: Files, base: Image, found: Found, library: str, preloaded: bool, wrapped: bool = True
) -> t.List[Trial]:
    """Return what to run in an image, with the library's path; a static program shows nothing, and is left out.

    preloaded and wrapped: whether the library is to show by itself, and with the wrapper.
    """
    planned = [Trial(found.loader, ("--list", library))]
    there = {name: files.locate(name, base.path) for name in ("true", "sh", "cat", "busybox")}
    dynamic = {name: path for name, path in there.items() if path and _is_dynamic(files.elf(path))}
    if "true" in dynamic:
        planned.append(Trial(dynamic["true"]))
    if "sh" in dynamic:
        planned.append(Trial(dynamic["sh"], ("-c", "for word in a b c; do echo $word; done")))
    shown: t.List[t.Tuple[str, ...]] = []
    if "cat" in dynamic:
        shown.append((dynamic["cat"], _MAPS))
    elif "busybox" in dynamic:
        shown.append((dynamic["busybox"], "cat", _MAPS))
    elif "sh" in dynamic:
        shown.append((dynamic["sh"], "-c", _READ_MAPS))
    for command in shown:
        if preloaded:
            planned.append(Trial(command[0], command[1:], True))
        if wrapped and there["sh"]:
            planned.append(Trial(f"{image.COMMANDS}/jemalloc.sh", command, True))
    return planned


def _is_dynamic(program: t.Optional[elf.Elf]) -> bool:
    return program is not None and bool(program.interpreter)


def run(engine: Engine, name: str, built: str, planned: t.Sequence[Trial], recipe: image.Recipe, library: str) -> bool:
    """Run the trials in an image, in containers of that name; return whether one of them showed the library mapped.

    JemallocError for the first that fails, does not end, or does not have the library.
    """
    conf = {"MALLOC_CONF": probe.quiet(recipe["malloc_conf"])} if recipe["malloc_conf"] else {}
    # The loader looks at the library by itself, and the wrapper sees to it.
    preload = {} if recipe["ld_preload"] else {"LD_PRELOAD": store.library(recipe["prefix"])}
    engine.remove(name)  # a killed run may have left it
    for trial in planned:
        variables = conf if trial.shows or trial is planned[0] else {**conf, **preload}
        starts, reason = attempt(engine, name, built, trial, variables, library)
        if not starts:
            raise JemallocError(
                f"{recipe['base']} with jemalloc cannot be tried, as {engine.name} cannot run {trial} in a container "
                f"of it ({reason}); no image has got the name."
            )
        if reason:
            raise JemallocError(
                f"The library is not fit for {recipe['base']}: {trial} fails in it with jemalloc "
                f"{recipe['release']} ({reason}); no image has got the name."
            )
    return any(trial.shows for trial in planned)


def attempt(
    engine: Engine,
    name: str,
    image_name: str,
    trial: Trial,
    variables: t.Mapping[str, str],
    library: str,
    more: t.Sequence[str] = (),
) -> t.Tuple[bool, str]:
    """Run one of them in a container of an image that can change nothing and reach nobody; more has options for it.

    Return whether a container can be started at all, and why that or the trial failed, nothing where it did not.
    """
    options = ["--rm", f"--name={name}", "--network=none", "--read-only", f"--entrypoint={trial.entrypoint}", *more]
    options += [f"--env={key}={value}" for key, value in variables.items()]
    status, output = engine.run("run", *options, image_name, *trial.arguments, limit=TIME_LIMIT, errors=True)
    if status:
        engine.remove(name)  # that the engine's command was ended ends no container
    if status in _NO_CONTAINER:
        return False, preflight.words(output)
    complaint = next((line for line in output.splitlines() if _COMPLAINTS.search(line)), "")
    reason = preflight.words(complaint) if complaint else preflight.failure(status, output) if status else ""
    if not reason and trial.shows and library not in output:
        reason = f"its /proc/self/maps does not have {library}"
    return True, reason


def library_path(prefix: str, receipt: t.Mapping[str, t.Any]) -> str:
    """Return the path of the library itself, as a process that has it mapped shows it."""
    return os.path.join(prefix, receipt["release"], "lib", receipt["library"])
