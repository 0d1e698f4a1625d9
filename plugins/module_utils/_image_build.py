"""Builds the library for an image in a throw-away container of another image that has, or gets, a compiler."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archive
from ansible_collections.preload.jemalloc.plugins.module_utils import _build as build
from ansible_collections.preload.jemalloc.plugins.module_utils import _install as install
from ansible_collections.preload.jemalloc.plugins.module_utils import _source as source
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host
    from ansible_collections.preload.jemalloc.plugins.module_utils._image_engine import Engine, Image
    from ansible_collections.preload.jemalloc.plugins.module_utils._platform import Here

#: Where a library for an image is built unless the user says otherwise, by C library: on the oldest Debian that is
#: supported, so that what is built there runs with all later ones too, and on what most images with musl are made of.
BUILDERS = {"glibc": "docker.io/library/debian:11", "musl": "docker.io/library/alpine:3"}

# Where the source and what is built of it are in the container.
_SOURCE, _DESTINATION = "/jemalloc-source", "/jemalloc-root"

# Seconds after which the container ends whatever goes on in it: a run that was killed leaves nothing for ever.
_LONGEST = 7200

# musl's own wrapper of the compiler, where the distribution's C library is another one.
_MUSL = "musl-gcc"


class Stage:
    """The container; its run() and which() are for commands in it what those of a host are on that."""

    def __init__(self, engine: Engine, name: str, builder: str, image: Image) -> None:
        """Describe it: a container of that name, of an image that the user calls builder."""
        self._engine = engine
        self._name = name
        self._image = image
        self.builder = builder

    def start(self, network: bool) -> None:
        """Start it, without a network if it needs none."""
        self.close()
        options = ["--detach", "--rm", f"--name={self._name}", "--env=DEBIAN_FRONTEND=noninteractive", "--user=0:0"]
        # What sleeps as the first process of a container would be waited for, as it takes no other signal.
        options += ["--stop-signal=SIGKILL", *([] if network else ["--network=none"])]
        self._engine.ask("run", *options, "--entrypoint=sleep", self._image.id, str(_LONGEST), about="builder")

    def close(self) -> None:
        """Remove it; one that is not there is fine."""
        self._engine.remove(self._name)

    def run(
        self, arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
    ) -> t.Tuple[int, str]:
        """Run a command in it; return its exit status and all that it printed."""
        options = [*([] if data is None else ["--interactive"]), *([f"--workdir={directory}"] if directory else [])]
        return self._engine.run("exec", *options, self._name, *arguments, data=data)

    def which(self, tool: str) -> t.Optional[str]:
        """Return a tool's name if it is there."""
        status, _output = self.run(["/bin/sh", "-c", 'command -v "$1"', "sh", tool])
        return None if status else tool

    def bring(self, path: str, to: str) -> None:
        """Copy a directory of this host into it."""
        self._engine.ask("cp", path, f"{self._name}:{to}", about="builder")

    def fetch(self, path: str, to: str) -> None:
        """Copy a directory out of it to this host."""
        self._engine.ask("cp", f"{self._name}:{path}", to, about="builder")

    def libc(self) -> str:
        """Return the family of its C library; only glibc answers that question."""
        status, _output = self.run(["getconf", "GNU_LIBC_VERSION"])
        return "musl" if status else "glibc"


def make(host: Host, stage: Stage, request: install.Request, here: Here, work: str) -> t.Tuple[str, t.Dict[str, t.Any]]:
    """Build a release for an image in a stage; return its tree, a directory below work, and its receipt.

    JemallocError says why that is not possible.
    """
    brought = [request.source] if request.source else []
    candidates = brought or source.candidates(request.release, request.origins, host.archive_roots)
    found = source.obtain(candidates, work, host.fetch)
    top = archive.unpack(found.path, work, "src")
    build.write_version(top, request.release, found.commit)
    home = f"{request.prefix}/{request.release.version}"
    tree, copied = os.path.join(work, "tree"), os.path.join(work, "copied")
    try:
        stage.start(request.build_packages)
        arguments = _built(stage, request, here, top, home)
        stage.fetch(f"{_DESTINATION}{home}", copied)
    finally:
        stage.close()
    build.collect(copied, tree)
    receipt = install.describe(tree, build.check(tree, request.release), request, arguments, here)
    receipt.update(source={"sha256": found.sha256}, origin=found.location, home=home)
    return tree, receipt


def _built(stage: Stage, request: install.Request, here: Here, top: str, home: str) -> t.List[str]:
    """Build in a stage that was started; return the arguments of configure."""
    release, options = request.release, request.options
    more = _compiler(stage, here, options)
    needed = [_MUSL, "gcc", "make"] if more else build.tools(release, options)
    _prepare(stage, request, needed if os.path.exists(os.path.join(top, "configure")) else [*needed, "autoconf"])
    arguments = [*build.configure_arguments(release, here.architecture, options, home), *more]
    stage.bring(top, _SOURCE)
    # Stripped there, as the tools of this host need not know a library for another machine.
    library = [f"{_DESTINATION}{home}/lib", "-type", "f", "-name", "libjemalloc.so.*"]
    strip = ["find", *library, "-exec", "strip", "--strip-unneeded", "{}", "+"]
    commands = [*build.steps(top, _DESTINATION, arguments), strip]
    try:
        build.take_steps(stage.run, _SOURCE, release, build.environment(_SOURCE), commands)
    except build.BuildError as error:
        log = install.keep_log(release.version, error.log)
        raise JemallocError(f"{error} (in {stage.builder}); all that it printed is in {log}.") from error
    return arguments


def _compiler(stage: Stage, here: Here, options: build.Options) -> t.List[str]:
    """Return what to tell configure of the compiler; JemallocError for a builder that has none for this C library."""
    found = stage.libc()
    if found == here.libc:
        return []
    if here.libc != "musl":
        raise JemallocError(
            f"builder: {stage.builder} has {found}, and the image needs a library for {here.libc}; name a builder with "
            "that."
        )
    if options.cxx:
        raise JemallocError(
            f"options: cxx is not to be had for musl from {stage.builder}, whose C++ library is for {found}; name a "
            "builder with musl, or leave cxx out."
        )
    return [f"CC={_MUSL}"]


def _prepare(stage: Stage, request: install.Request, needed: t.Sequence[str]) -> None:
    """Install what the build takes and the stage lacks."""
    missing = build.missing_tools(stage.run, needed, stage.which)
    if not missing:
        return
    manager = build.package_manager(stage.which)
    packages = build.packages_for(missing, manager)
    if not manager or not request.build_packages:
        raise JemallocError(
            f"builder: jemalloc {request.release.version} cannot be built in {stage.builder}, which lacks "
            f"{', '.join(packages)}; name one that has it, or allow its installation (build_packages: true)."
        )
    build.install_packages(stage.run, packages, manager)
