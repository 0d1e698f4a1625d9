"""Does a library of the store fit the image of a container? It is run in that image, before anything refers to it."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import hashlib
import os
import tempfile
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _image_files as image_files
from ansible_collections.preload.jemalloc.plugins.module_utils import _image_preflight as image_preflight
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _probe as probe
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._image_engine import Engine, Image


@dataclass(frozen=True)
class Fitting:
    """A release of a store that is to be preloaded in containers of an image; about is the container, for messages."""

    about: str
    engine: Engine
    image: Image
    image_name: str
    prefix: str
    release: str
    malloc_conf: str = ""

    @property
    def library(self) -> str:
        """The path of the library itself, as a process that has it mapped shows it."""
        return os.path.realpath(store.library(self.prefix, self.release))


def check(fitting: Fitting, only_look: bool) -> bool:
    """Look at an image by its files, and unless that is all run its own programs in it with the library.

    Return whether one of them showed the library mapped. JemallocError for a library that does not fit.
    """
    about = f"containers: {fitting.about}"
    name = f"preload-jemalloc-{hashlib.sha256(fitting.about.encode('utf-8')).hexdigest()[:12]}"
    with tempfile.TemporaryDirectory(prefix="preload-jemalloc-") as work:
        exported = os.path.join(work, "image.tar")
        fitting.engine.export(fitting.image, name, exported, about)
        with image_files.open_export(exported) as tar:
            there = image_files.Files(tar)
            found = image_files.look(there, fitting.image, fitting.image_name, about)
            if os.path.exists(fitting.library):  # in check mode it may be yet to come
                _compare(fitting, found)
            if only_look:
                return False
            planned = image_preflight.trials(there, fitting.image, found, fitting.library, True, wrapped=False)
    return _run(fitting, name, planned)


def _compare(fitting: Fitting, found: image_files.Found) -> None:
    """Hold the library against what the image has."""
    with open(fitting.library, "rb") as stream:
        data = stream.read()
    reason, lowest = image_preflight.unfit(data, found), platform.lowest_glibc(data)
    there = found.here.libc_version
    if not reason and lowest and there and catalogue.version_number(lowest) > catalogue.version_number(there):
        reason = f"it needs glibc {lowest}, and the image has {there}"
    if reason:
        raise JemallocError(
            f"containers: {fitting.about}: jemalloc {fitting.release} of {fitting.prefix} does not fit the image "
            f"{fitting.image_name}: {reason}; give it a release that was built for that, or make an image with a "
            "library of its own by preload.jemalloc.image; no container was touched."
        )


def _run(fitting: Fitting, name: str, planned: t.Sequence[image_preflight.Trial]) -> bool:
    """Run the image's programs with the library, in containers of that name."""
    volume = f"--volume={fitting.prefix}:{fitting.prefix}:ro"
    conf = {"MALLOC_CONF": probe.quiet(fitting.malloc_conf)} if fitting.malloc_conf else {}
    # The loader looks at the library by itself.
    preload = {**conf, "LD_PRELOAD": store.library(fitting.prefix, fitting.release)}
    fitting.engine.remove(name)  # a killed run may have left it
    for trial in planned:
        variables = {**conf, "LD_PRELOAD": ""} if trial is planned[0] else preload
        starts, reason = image_preflight.attempt(
            fitting.engine, name, fitting.image.id, trial, variables, fitting.library, [volume]
        )
        if not starts:
            reason = f"{fitting.engine.name} cannot run it in a container: {reason}"
        if reason:
            raise JemallocError(
                f"containers: {fitting.about}: jemalloc {fitting.release} is not fit for the image "
                f"{fitting.image_name}, {trial} fails in it ({reason}); no container was touched."
            )
    return any(trial.shows for trial in planned)
