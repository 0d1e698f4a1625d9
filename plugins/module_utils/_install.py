"""Carrying out a plan for the store: source, build, preflight, publish, switch, in this order."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import datetime
import os
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _build as build
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _source as source
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.module_utils._preflight import preflight

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host

_TOOLS = ("gcc", "make", "headers")


@dataclass(frozen=True)
class Request:
    """What to install, where, from where, and whether packages may be installed for it."""

    prefix: str
    release: catalogue.Release
    options: build.Options
    origins: t.Sequence[str]
    build_packages: bool


def check_tools(host: Host, request: Request, needed: t.Sequence[str] = _TOOLS) -> t.List[str]:
    """Return the packages that the build needs and the host lacks; an error where they may not be installed."""
    missing = build.missing_tools(host.run, needed)
    if not missing:
        return []
    manager = build.package_manager()
    packages = build.packages_for(missing, manager)
    if not manager or not request.build_packages:
        command = " ".join([*build.PACKAGE_MANAGERS[manager], *packages]) if manager else "the host's own means"
        raise JemallocError(
            f"jemalloc {request.release.version} cannot be built here, this host lacks {', '.join(packages)}; install "
            f"them ({command}) or allow it (build_packages: true)."
        )
    return packages


def carry_out(host: Host, request: Request, plan: store.Plan) -> t.Dict[str, t.Any]:
    """Do what a plan says; return what only doing it tells: where the source came from, which packages were needed."""
    done: t.Dict[str, t.Any] = {}
    if plan.install:
        done = _install(host, request)
    for version in plan.wrappers:
        store.write_wrapper(request.prefix, version)
    if plan.switch:
        store.switch(request.prefix, plan.switch)
    return done


def _install(host: Host, request: Request) -> t.Dict[str, t.Any]:
    """Bring the release from an origin to its final name."""
    staging = store.stage(request.prefix)
    candidates = source.candidates(request.release, request.origins, host.archive_roots())
    found = source.obtain(candidates, staging, host.fetch)
    if found.failures:
        host.warn(f"The source came from {found.location}, as others did not have it: {'; '.join(found.failures)}.")
    top = source.unpack(found.path, staging)
    needed = [*_TOOLS, "autoconf"] if not os.path.exists(os.path.join(top, "configure")) else _TOOLS
    packages = check_tools(host, request, needed)
    if packages:
        build.install_packages(host.run, packages, build.package_manager() or "")
    tree = _build(host, request, found, top, os.path.join(staging, "root"))
    store.publish(request.prefix, tree, request.release.version)
    return {"origin": found.location, "packages": packages}


def _build(host: Host, request: Request, found: source.Source, top: str, destination: str) -> str:
    """Return a staged tree that is complete and has passed preflight."""
    release, final = request.release, f"{request.prefix}/{request.release.version}"
    machine = os.uname().machine
    arguments = build.configure_arguments(release, machine, request.options, final)
    build.build(host.run, top, release, found.commit, arguments, destination)
    tree = destination + final
    library = build.finish(host.run, tree, release)
    path = os.path.join(tree, "lib", library)
    preflight(host.run, path)
    with open(path, "rb") as stream:
        data = stream.read()
    receipt = {
        "format": 1,
        "release": release.version,
        "library": library,
        "library_sha256": files.sha256(path),
        "source": {"sha256": found.sha256, "origin": found.location},
        "platform": platform.platform(data, request.options.lg_page),
        "options": request.options.as_dict(),
        "configure": arguments,
        "built_at": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "built_by": "preload.jemalloc",
    }
    store.complete(tree, request.prefix, receipt)
    return tree
