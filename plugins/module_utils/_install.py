"""Carrying out a plan for the store: source, bundle or package, preflight, publish, switch, prune, in this order."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import dataclasses
import datetime
import glob
import os
import shutil
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archive
from ansible_collections.preload.jemalloc.plugins.module_utils import _build as build
from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundle
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _labels as labels
from ansible_collections.preload.jemalloc.plugins.module_utils import _package as package
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.module_utils import _source as source
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, shown
from ansible_collections.preload.jemalloc.plugins.module_utils._preflight import preflight

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host

#: Where a failed build leaves what it printed: the system's logs, or for a user who may not write there, the home.
LOGS = ("/var/log", "~")


@dataclass(frozen=True)
class Request:
    """What to install, where to, and how: the wish with all that only doing it needs.

    bundle and source are what is tried first, because the user named it or the controller brought it. Without build
    the release is not built here. builder is the host that built the bundle, as far as the controller knows.
    """

    prefix: str
    release: catalogue.Release
    wish: store.Wish
    options: build.Options
    origins: t.Sequence[str] = ()
    bundle: t.Optional[source.Candidate] = None
    source: t.Optional[source.Candidate] = None
    build: bool = True
    build_packages: bool = True
    builder: str = ""


class NothingFitsError(Exception):
    """There is no bundle that does, and nothing is to be built here; missing is what a build would have to be."""

    def __init__(self, missing: t.Mapping[str, t.Any]) -> None:
        super().__init__("nothing fits")
        self.missing = missing


@dataclass(frozen=True)
class _Staged:
    """A tree that only lacks preflight and receipt, and what the receipt is going to say; packages were installed."""

    tree: str
    receipt: t.Dict[str, t.Any]
    packages: t.Sequence[str] = ()


def request(params: t.Mapping[str, t.Any], release: catalogue.Release, wish: store.Wish, prefix: str) -> Request:
    """Return the request of a module's parameters."""
    pushed = params["pushed"] or {}
    places = {}
    if pushed:
        places[pushed["kind"]] = source.Candidate(
            "file", pushed["path"], pushed["sha256"], pushed["commit"] or "", pushed["origin"]
        )
    elif params["bundle"] and params["method"] in ("auto", "bundle"):
        places["bundle"] = bundle.find(params["bundle"], release.version, params["bundle_checksum"] or None)
    return Request(
        prefix,
        release,
        wish,
        build.Options(**params["options"]),
        params["origins"],
        places.get("bundle"),
        places.get("source"),
        params["build"] == "now",
        params["build_packages"],
        pushed.get("builder") or "",
    )


def check(host: Host, wanted: Request, check_mode: bool) -> t.Optional[t.Dict[str, t.Any]]:
    """Look at what an installation is going to need, before anything changes; return what is missing for it.

    Nothing is missing where it is there, or may be built; then check mode looks for what a build takes.
    """
    if wanted.wish.method == "package" or wanted.bundle:
        return None
    if not wanted.build:
        return missing(wanted)
    if wanted.wish.method == "bundle":
        raise JemallocError(
            "bundle: method: bundle needs a bundle; name its file or URL, or call this module by its whole name, so "
            "that the controller looks into its cache."
        )
    if check_mode:
        check_tools(host, wanted)  # as a run does before its first download
    return None


def missing(wanted: Request, here: t.Optional[platform.Here] = None) -> t.Dict[str, t.Any]:
    """Return what a build has to be that does here; here is what it is for, where that is not this host."""
    digests = [wanted.release.sha256, *(packing.sha256 for packing in wanted.release.packings)]
    return {
        "version": wanted.release.version,
        "checksum": f"sha256:{wanted.wish.source}" if wanted.wish.source else None,
        "sources": digests,
        "options": wanted.options.as_dict(),
        **dataclasses.asdict(here or platform.here()),
    }


def log_path(directory: str, version: str) -> str:
    """Return where the log of a release's failed build is in a directory of LOGS."""
    return os.path.join(os.path.expanduser(directory), f"preload-jemalloc-{version}-build.log")


def forget_logs() -> None:
    """Remove what failed builds left."""
    for directory in LOGS:
        for path in glob.glob(log_path(directory, "*")):
            files.remove_file(path)


def check_tools(host: Host, request: Request, needed: t.Sequence[str] = ()) -> t.List[str]:
    """Return the packages that the build, or only a part of it, needs and the host lacks.

    An error where they may not be installed.
    """
    missing = build.missing_tools(host.run, needed or build.tools(request.release, request.options))
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


def carry_out(host: Host, request: Request, plan: store.Plan, undo: publish.Undo) -> t.Dict[str, t.Any]:
    """Do what a plan says, recording the steps back; return what only doing it tells.

    That is where it came from (origin), which host built it (builder), and the packages that were installed for it.
    """
    done: t.Dict[str, t.Any] = {}
    if plan.install:
        done = _install(host, request, undo)
    for version in plan.wrappers:
        publish.write_wrappers(f"{request.prefix}/{version}", request.prefix)
    if plan.switch:
        publish.switch(request.prefix, plan.switch, undo)
    if plan.remove:
        with changes_util.scopes_kept():  # so that no run preloads in the meantime what is going to be removed
            used = [name for name in plan.remove if places.references(f"{request.prefix}/{name}")]
            unused = tuple(name for name in plan.remove if name not in used)
            publish.remove(request.prefix, dataclasses.replace(plan, remove=unused), undo)
        if used:
            done["installations"] = sorted([*plan.after["installations"], *used], key=catalogue.version_number)
    return done


def packaged(host: Host, version: t.Optional[str], check_mode: bool) -> store.Wish:
    """Return the wish for what the distribution's package holds or is going to hold."""
    manager = build.package_manager()
    if not manager:
        raise JemallocError("method: this host has no package manager that this collection knows; use method: source.")
    library = package.library(host.run, manager)
    if library:
        with open(library, "rb") as stream:
            found: t.Optional[str] = platform.library_version(stream.read())
    else:
        found = package.candidate(host.run, manager)
        if not found and manager == "apt-get" and not check_mode:
            host.run(["apt-get", "update"])
            found = package.candidate(host.run, manager)
    name = package.NAMES[manager]
    if not found:
        raise JemallocError(f"method: {manager} finds no package {name} with jemalloc; use method: source.")
    if version not in (None, found):
        raise JemallocError(
            f"version: the package {name} of this host holds jemalloc {found}, not {version}; leave out "
            "version, or use method: source."
        )
    return store.Wish(found, method="package", packaged=files.sha256(library) if library else None)


def verify(host: Host, found: store.Store, planned: store.Plan, version: str) -> None:
    """Run the wanted library again unless it is going to be replaced, and say which other installations are damaged."""
    wanted = found.installations.get(version)
    if wanted and not planned.install:
        preflight(host, f"{found.prefix}/{version}/lib/{wanted.receipt['library']}")
    damaged = [f"{each.version} ({each.damage})" for each in found.installations.values() if each.damage]
    others = [words for words in damaged if not words.startswith(f"{version} ")]
    if others:
        host.warn(
            f"Damaged in {found.prefix}: {', '.join(others)}; name such a release as version to have it repaired, or "
            "remove it."
        )


def _install(host: Host, request: Request, undo: publish.Undo) -> t.Dict[str, t.Any]:
    """Bring the release to its final name, in the first of the wanted ways that this host can go."""
    staging = publish.stage(request.prefix)
    method = request.wish.method
    staged = None
    if method == "package":
        staged = _from_package(host, request, staging)
    elif request.bundle:
        try:
            staged = _from_bundle(host, request, staging)
        except JemallocError as error:
            if method == "bundle":
                raise
            what = "built from source" if request.build else "not taken"
            host.warn(f"It is {what}, as the bundle does not do: {error}")
    if staged is None and not request.build:
        raise NothingFitsError(missing(request))
    if staged is None:
        staged = _from_source(host, request, staging)
    library = os.path.join(staged.tree, "lib", staged.receipt["library"])
    preflight(host, library)
    when = datetime.datetime.now(datetime.timezone.utc)
    receipt = {**staged.receipt, "installed_at": when.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "by": "preload.jemalloc"}
    receipt["packages"] = list(staged.packages)
    publish.complete(staged.tree, request.prefix, receipt)
    publish.publish(request.prefix, staged.tree, request.release.version, undo)
    labels.restore(host.run, [f"{request.prefix}/{request.release.version}"])
    return {
        "origin": receipt["origin"],
        "packages": list(staged.packages),
        "builder": receipt.get("builder"),
    }


def _from_source(host: Host, request: Request, staging: str) -> _Staged:
    """Build the release."""
    release, final = request.release, f"{request.prefix}/{request.release.version}"
    packages = check_tools(host, request)
    brought = [request.source] if request.source else []
    candidates = brought or source.candidates(release, request.origins, host.archive_roots)
    found = source.obtain(candidates, staging, host.fetch)
    if found.failures:
        host.warn(f"The source came from {found.location}, as others did not have it: {'; '.join(found.failures)}.")
    work = os.path.join(staging, "work")
    os.mkdir(work, 0o700)
    top = archive.unpack(found.path, work, "src")
    if not os.path.isfile(os.path.join(top, "configure")):
        if not os.path.isfile(os.path.join(top, "configure.ac")):
            raise JemallocError(
                f"The archive {found.location} is refused: it holds neither configure nor configure.ac."
            )
        packages += check_tools(host, request, ["autoconf"])
    if packages:
        build.install_packages(host.run, packages, build.package_manager() or "")
    arguments = build.configure_arguments(release, os.uname().machine, request.options, final)
    try:
        built = build.build(host.run, work, top, release, found.commit, arguments)
    except build.BuildError as error:
        raise JemallocError(f"{error}; all that it printed is in {keep_log(release.version, error.log)}.") from error
    for directory in LOGS:
        files.remove_file(log_path(directory, release.version))
    tree = os.path.join(staging, "tree")
    build.collect(built + final, tree)
    receipt = describe(tree, build.finish(host.run, tree, release), request, arguments)
    receipt.update(source={"sha256": found.sha256}, origin=found.location, method="source", home=final)
    return _Staged(tree, receipt, packages)


def describe(
    tree: str,
    library: str,
    request: Request,
    arguments: t.Sequence[str],
    here: t.Optional[platform.Here] = None,
) -> t.Dict[str, t.Any]:
    """Return what a receipt says of a library that was built for this host, or for what here says."""
    where = here or platform.here()
    path = os.path.join(tree, "lib", library)
    with open(path, "rb") as stream:
        data = stream.read()
    return {
        "format": 1,
        "release": request.release.version,
        "library": library,
        "library_sha256": files.sha256(path),
        "platform": platform.platform(data, where.architecture, where.libc, request.options.lg_page),
        "options": request.options.as_dict(),
        "configure": list(arguments),
    }


def keep_log(version: str, log: str) -> str:
    """Write the log of a failed build to the first directory of LOGS that takes it, and return its path."""
    path = ""
    for directory in LOGS:
        path = log_path(directory, version)
        try:
            files.write_file(path, shown(log).encode("utf-8", "surrogateescape"), 0o600)
            break
        except OSError:
            continue
    return path


def _from_bundle(host: Host, request: Request, staging: str) -> _Staged:
    """Unpack a build that was made elsewhere, if it fits."""
    place = t.cast(source.Candidate, request.bundle)
    path = source.obtain([place], staging, host.fetch, "bundle").path
    tree, portable = bundle.unpack(path, staging)
    reason = bundle.misfit(portable, request.release, request.wish.options, platform.here())
    if reason:
        raise JemallocError(f"The bundle {place} does not fit: {reason}.")
    home = f"{request.prefix}/{request.release.version}"
    bundle.settle(tree, portable, home)
    receipt = {key: value for key, value in portable.items() if key != "files"}
    receipt.update(origin=str(place), method="bundle", bundle=place.sha256, home=home)
    if request.builder:
        receipt["builder"] = request.builder
    return _Staged(tree, receipt)


def _from_package(host: Host, request: Request, staging: str) -> _Staged:
    """Take the library of the distribution's package, which is installed for it."""
    manager = build.package_manager() or ""
    path = package.library(host.run, manager)
    packages = []
    if path is None:
        packages = [package.NAMES[manager]]
        build.install_packages(host.run, packages, manager)
        path = package.library(host.run, manager)
    if path is None:
        raise JemallocError(
            f"method: the package {package.NAMES[manager]} holds no libjemalloc.so; use method: source."
        )
    tree = os.path.join(staging, "tree")
    os.makedirs(os.path.join(tree, "lib"))
    shutil.copy(path, os.path.join(tree, "lib"))
    receipt = describe(tree, os.path.basename(path), request, [])
    # how it was built is not known
    receipt.update(options=None, source={"package": package.NAMES[manager]}, origin=path, method="package", home=None)
    return _Staged(tree, receipt, packages)
