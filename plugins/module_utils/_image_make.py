"""From a base to an image with jemalloc under its name: look, bundle or build, one layer, preflight, name."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundle
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _image as image
from ansible_collections.preload.jemalloc.plugins.module_utils import _image_build as image_build
from ansible_collections.preload.jemalloc.plugins.module_utils import _image_files as image_files
from ansible_collections.preload.jemalloc.plugins.module_utils import _image_preflight as image_preflight
from ansible_collections.preload.jemalloc.plugins.module_utils import _install as install
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.module_utils import _source as source
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host
    from ansible_collections.preload.jemalloc.plugins.module_utils._image_engine import Engine, Image


@dataclass(frozen=True)
class Job:
    """An image to make: of which base, how, under which name, and what that name stands for so far."""

    engine: Engine
    base: Image
    tag: str
    wanted: image.Recipe
    present: image.Recipe
    request: install.Request
    builder: str = ""
    pull: bool = True

    @property
    def platform(self) -> str:
        """What the base is for, and so the builder and the image."""
        return f"linux/{self.base.architecture}"

    @property
    def container(self) -> str:
        """The name of the containers that it takes, one after the other: what a killed run left the next one finds."""
        return f"preload-jemalloc-{hashlib.sha256(self.tag.encode('utf-8')).hexdigest()[:12]}"


@dataclass(frozen=True)
class Library:
    """A library for the image: the tree of a build, its receipt, the digest of its bundle; that itself if built."""

    tree: str
    receipt: t.Mapping[str, t.Any]
    bundle: str
    origin: str
    packed: bytes = b""


def make(host: Host, job: Job, check_mode: bool) -> t.Dict[str, t.Any]:
    """Make an image whose name stands for another one so far, or in check mode say what is going to be made.

    Return what is then to be reported. JemallocError: the name stands for what it stood for.
    """
    with tempfile.TemporaryDirectory(prefix="preload-jemalloc-") as work:
        exported = os.path.join(work, "base.tar")
        job.engine.export(job.base, job.container, exported)
        with image_files.open_export(exported) as tar:
            there = image_files.Files(tar)
            found = image_files.look(there, job.base, job.wanted["base"])
            _check(host, job, there, found.here)
            image_preflight.check_machine(job.engine, job.container, job.base, found, job.wanted["base"])
            library = _from_bundle(host, job, found.here, work)
            if library is None and not job.request.build:
                return {"missing": install.missing(job.request, found.here)}
            if library is None and check_mode:
                return {"changed": True, "built": job.request.release.version, "platform": None}
            library = library or _built(host, job, found.here, work)
            whole = image.with_library(job.wanted, library.receipt, library.bundle, platform.name(library.receipt))
            done = {"changed": whole != job.present, "platform": whole["library"]["platform"], **_kept(library)}
            if check_mode or not done["changed"]:
                return done
            return {**done, **_publish(host, job, there, found, library, whole, work)}


def _check(host: Host, job: Job, there: image_files.Files, here: platform.Here) -> None:
    """Look at what else the image has to have for what is wanted."""
    wanted, name = job.wanted, job.wanted["base"]
    if here.libc == "musl" and wanted["options"]["prof"]:
        raise JemallocError(f"options: {name} has musl, with which jemalloc's profiling hangs; leave prof out.")
    if not there.resolve("/bin/sh") and (wanted["entrypoint"] or not wanted["ld_preload"]):
        what = "entrypoint" if wanted["entrypoint"] else "enabled"
        raise JemallocError(
            f"{what}: {name} has no /bin/sh, which jemalloc.sh is a script for; give enabled: true without entrypoint."
        )
    if image.COMMANDS not in job.base.path:
        host.warn(f"{image.COMMANDS}, where jemalloc.sh is, is not in the PATH of {name}; call it by that path.")
    first = next(iter([*job.base.entrypoint, *job.base.command]), "")
    program = there.elf(there.locate(first, job.base.path)) if first else None
    if program and not program.interpreter:
        host.warn(f"What {name} starts with, {first}, is a static program: nothing can be preloaded into it.")


def _from_bundle(host: Host, job: Job, here: platform.Here, work: str) -> t.Optional[Library]:
    """Return the library of the bundle that was named or brought, None when there is none or it may be built."""
    place = job.request.bundle
    if place is None:
        if job.request.wish.method == "bundle" and job.request.build:
            raise JemallocError(
                "bundle: method: bundle needs a bundle; name its file or URL, or call this module by its whole name, "
                "so that the controller looks into its cache."
            )
        return None
    try:
        path = source.obtain([place], work, host.fetch, "bundle").path
        tree, receipt = bundle.unpack(path, os.path.join(work, "bundle"))
        reason = bundle.misfit(receipt, job.request.release, job.wanted["options"], here, job.wanted["base"])
        if reason:
            raise JemallocError(f"The bundle {place} does not fit: {reason}.")
    except JemallocError as error:
        if job.request.wish.method == "bundle":
            raise
        what = "built from source" if job.request.build else "not taken"
        host.warn(f"It is {what}, as the bundle does not do: {error}")
        return None
    return Library(tree, receipt, place.sha256, str(place))


def _built(host: Host, job: Job, here: platform.Here, work: str) -> Library:
    """Build the library in a container of the builder."""
    name = job.builder or image_build.BUILDERS[here.libc]
    builder = job.engine.image(name, "builder")
    if job.pull:
        builder = job.engine.pulled(name, "builder", platform=job.platform)
    if builder is None:
        raise JemallocError(f"builder: {name} is not here, and may not be pulled (pull: never); load it.")
    if not builder.is_for(job.platform):
        raise JemallocError(f"{job.engine.misfit('builder', name, builder, job.platform)}.")
    stage = image_build.Stage(job.engine, job.container, name, builder)
    tree, receipt = image_build.make(host, stage, job.request, here, work)
    receipt["files"] = store.fingerprint(tree)
    reason = bundle.misfit(receipt, job.request.release, job.wanted["options"], here, job.wanted["base"])
    if reason:
        raise JemallocError(f"builder: what {name} built does not fit: {reason}; name an older builder.")
    packed = bundle.pack(tree, receipt)
    return Library(tree, receipt, hashlib.sha256(packed).hexdigest(), receipt["origin"], packed)


def _kept(library: Library) -> t.Dict[str, t.Any]:
    """Return what is reported of a library, with the bundle of one that was built, for the controller's cache."""
    told: t.Dict[str, t.Any] = {"origin": library.origin}
    if library.packed:
        told["built"] = library.receipt["release"]
        told["content"] = base64.b64encode(library.packed).decode("ascii")
        told["receipt"] = bundle.portable(library.receipt)
    return told


def _publish(
    host: Host,
    job: Job,
    there: image_files.Files,
    found: image_files.Found,
    library: Library,
    whole: image.Recipe,
    work: str,
) -> t.Dict[str, t.Any]:
    """Build the image, try it, and let it have the name."""
    prefix, receipt = job.wanted["prefix"], library.receipt
    path = image_preflight.library_path(prefix, receipt)
    with open(os.path.join(library.tree, "lib", receipt["library"]), "rb") as stream:
        reason = image_preflight.unfit(stream.read(), found)
    if reason:
        raise JemallocError(f"The library is not fit for {job.wanted['base']}: {reason}; no image has got the name.")
    _write(job, library, whole, work)
    built = job.engine.build(work, job.platform if image_preflight.is_foreign(found) else "")
    try:
        trials = image_preflight.trials(there, job.base, found, path, bool(job.wanted["ld_preload"]))
        mapped = image_preflight.run(job.engine, job.container, built, trials, job.wanted, path)
        job.engine.ask("tag", built, job.tag, about="tag")
    except BaseException:
        job.engine.discard(built)
        raise
    if not mapped:
        host.warn(
            f"{job.wanted['base']} has no program that shows what is mapped: of the library only the loader's own look "
            "at it is known."
        )
    return {"image": built, "mapped": mapped}


def _write(job: Job, library: Library, whole: image.Recipe, work: str) -> None:
    """Write what the engine builds from: the Containerfile, and the layer in a directory of its own."""
    tree, prefix, version = library.tree, job.wanted["prefix"], job.wanted["release"]
    # What else is there is for building programs and for reading profiles, and as large as a quarter of the library.
    files.remove_tree(os.path.join(tree, "bin"))
    receipt = {
        **bundle.portable(library.receipt),
        "home": f"{prefix}/{version}",
        "by": "preload.jemalloc",
        "method": "bundle",
        "bundle": library.bundle,
    }
    publish.complete(tree, prefix, receipt)
    context = os.path.join(work, "context")
    os.mkdir(context)
    with open(os.path.join(context, image.LAYER), "wb") as stream:
        stream.write(image.layer(tree, prefix, version))
    with open(os.path.join(work, "Containerfile"), "w", encoding="utf-8") as text:
        text.write(image.containerfile(whole, image.labels(whole)))
