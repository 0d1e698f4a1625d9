# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of the module: one download, one build for all hosts that it is good for, then push."""

from __future__ import annotations

import base64
import os
import sys
import tempfile
import time
import typing as t

from ansible import constants
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archive
from ansible_collections.preload.jemalloc.plugins.module_utils import _arguments as shared
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _source as source
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _cache as caching
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _download as downloading
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _fleet as fleet
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _latest as latest
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _mirror as mirror
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _rendering as rendering
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _role as role
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _variables as variables_util

#: Arguments that only the controller's half reads, with their defaults, which are those of the module.
CONTROLLER: t.Dict[str, t.Any] = {
    **{name: argument.get("default") for name, argument in shared.LIBRARY.items() if name.startswith("cache")},
    "missing": {},
}

#: Seconds between two lines about a download that takes long.
INTERVAL = 2.0

# Ansible's forks have no terminal; this is read before they are made.
_TERMINAL = sys.stdout.isatty()

_DISPLAY = Display()

Result = t.Dict[str, t.Any]


def with_latest(arguments: t.Dict[str, t.Any], cache: str) -> t.Dict[str, t.Any]:
    """Return the arguments with the newest release in place of the wish for it."""
    if not boolean(arguments.get("latest") or False, strict=False):
        return arguments
    if arguments.get("version") or arguments.get("checksum"):
        raise JemallocError("latest: it excludes version and checksum; leave out the one or the other.")
    release = latest.look_up(str(arguments.get("latest_url") or catalogue.LATEST_URL), cache)
    found = {**arguments, "latest": False, "version": release.version}
    if release.version not in catalogue.RELEASES:
        found["checksum"] = f"sha256:{release.sha256}"
    return found


def with_missing(arguments: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """Return the arguments with the release and digest that another call of the same play found missing."""
    missing = arguments.get("missing") or {}
    found = {key: missing[key] for key in ("version", "checksum") if missing.get(key)}
    return {**arguments, **found, "latest": False} if found else arguments


def split(arguments: t.Dict[str, t.Any]) -> t.Tuple[t.Dict[str, t.Any], t.Dict[str, t.Any]]:
    """Return the arguments of the module, and those of the controller's half."""
    own = {key: arguments.get(key) or default for key, default in CONTROLLER.items()}
    if not str(own["cache_size"]).isdigit():
        raise JemallocError(f"cache_size: {own['cache_size']!r} is not a number of MiB.")
    return {key: value for key, value in arguments.items() if key not in CONTROLLER}, own


class ActionModule(ActionBase):
    """Asks the host what it lacks, and sees to it that it gets just that."""

    _requires_connection = True

    #: The module that this is the controller's half of.
    NAME = "jemalloc"

    def run(self, tmp: None = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> Result:
        """Run the action."""
        result = super().run(tmp, task_vars)
        self._variables = task_vars or {}
        self._host = str(self._variables.get("inventory_hostname", ""))
        arguments = dict(self._task.args)
        if boolean(arguments.pop("from_variables", False), strict=False):
            return {**result, **self._run_for_role(arguments)}
        return {**result, **self._run(arguments)}

    def _run_for_role(self, given: t.Dict[str, t.Any]) -> Result:
        """Take the arguments from the variables of the role, and say which tasks come next."""
        try:
            variables = variables_util.converted(variables_util.said(self._variables, self._templar.template))
        except JemallocError as error:
            return {"failed": True, "msg": str(error)}
        found = {"variables": role.shown(variables), "releases": role.releases(variables)}
        if variables["state"] == "absent":  # the module comes last then
            return {**found, "changed": False, "next": "remove"}
        arguments = role.options(variables, given)
        if "scopes" not in arguments and not given:
            arguments["scopes"] = role.scopes(variables)
        result = {**self._run(arguments), **found}
        if result.get("failed"):
            return {**result, "msg": role.in_variables(str(result.get("msg", "")))}
        return {**result, "next": role.next_tasks(variables, result)}

    def _run(self, given: t.Dict[str, t.Any]) -> Result:
        """Return the result for arguments."""
        try:
            arguments = with_latest(with_missing(given), constants.DEFAULT_LOCAL_TMP)
            self._arguments, self._own = split(arguments)
            if isinstance(self._arguments.get("scopes"), dict):
                self._arguments["scopes"] = rendering.with_texts(self._arguments["scopes"])
            return self._install(str(arguments.get("build") or "now"))
        except JemallocError as error:
            return {"failed": True, "msg": str(error)}

    def _install(self, build: str) -> Result:
        """Let the host have what it lacks."""
        missing = self._own["missing"]
        if build == "chosen":
            need = caching.need_of(missing)
            if fleet.builder(constants.DEFAULT_LOCAL_TMP, need) != self._host:
                return {"changed": False, "missing": missing, "version": need.version}
            return self._build(self._cache(), need, None)
        look: t.Optional[Result] = None
        if not missing or self._task.check_mode:
            look = self._module(build="never" if build == "now" else build)
            missing = look.get("missing")
            if look.get("failed") or not missing:
                return look
        need, cache = caching.need_of(missing), self._cache()
        if self._arguments.get("method") == "source" and build == "now":
            return self._build(cache, need, look, alone=True)
        found = self._find(cache, need)
        if found:
            return self._push(found, look)
        if self._arguments.get("method") == "bundle":
            raise JemallocError(self._no_bundle(cache, need))
        if build == "never":
            fleet.volunteer(constants.DEFAULT_LOCAL_TMP, need, self._host)
            return look or {"changed": False, "missing": missing, "version": need.version}
        return self._build(cache, need, look)

    def _cache(self) -> caching.Cache:
        return caching.Cache(str(self._own["cache"]), int(self._own["cache_size"]))

    def _module(self, name: str = "", **more: t.Any) -> Result:
        """Run a module, that of the action with the arguments of the task as well."""
        arguments = more if name else {**self._arguments, **more}
        done: Result = self._execute_module(
            module_name=f"preload.jemalloc.{name or self.NAME}", module_args=arguments, task_vars=self._variables
        )
        return done

    def _find(self, cache: caching.Cache, need: caching.Need) -> t.Optional[t.Tuple[str, t.Dict[str, t.Any]]]:
        """Return a bundle that does, from the cache or from a mirror of one."""
        found = cache.find(need)
        address = self._own["cache_mirror"]
        if found or not address or self._task.check_mode:
            return found
        checksum = self._own["cache_mirror_checksum"]
        mirror.find(mirror.check(str(address), checksum), checksum, need, cache, self._progress("a bundle"))
        return cache.find(need)

    def _no_bundle(self, cache: caching.Cache, need: caching.Need) -> str:
        """Say that there is no bundle, and which there are."""
        there = [
            f"{entry['platform']['libc']} {entry['platform']['libc_lowest']} (built on {entry['builder']})"
            for entry in cache.entries()
            if entry.get("release") == need.version
        ]
        return (
            f"method: no bundle in the controller's cache {cache.directory} is {need} that runs with {need.here.libc} "
            f"{need.here.libc_version}; it has {', '.join(there) or 'none of that release'}. Build one on a host with "
            "as old a C library (preload.jemalloc.bundle), or use method: auto."
        )

    def _build(self, cache: caching.Cache, need: caching.Need, look: t.Optional[Result], alone: bool = False) -> Result:
        """Build here, or wait for the host that does and take its bundle."""
        if self._task.check_mode:
            return self._module(build="now")

        def wait(owner: str) -> None:
            self._say(f"waiting for {need}, which {owner or 'another host'} builds")

        with cache.lock(f"{need.key}-{self._host}" if alone else need.key, self._host, wait):
            found = None if alone else cache.find(need)
            if not found:
                return self._build_and_keep(cache, need)
        return self._push(found, look)

    def _build_and_keep(self, cache: caching.Cache, need: caching.Need) -> Result:
        """Build on this task's host, and keep the bundle for the others."""
        number, count = fleet.position(constants.DEFAULT_LOCAL_TMP, need)
        waiting = fleet.waiting(constants.DEFAULT_LOCAL_TMP, need)
        pushed = self._source(cache, need)
        builder = str(self._task.delegate_to or self._host)
        where = f" on {builder}" if builder != self._host else ""
        self._say(f"building {need}{where} ({number} of {count})")
        if waiting:
            _DISPLAY.display(f"{waiting}: waiting for that build")
        began = time.monotonic()
        done = self._module(build="now", pushed=pushed) if pushed else self._module(build="now")
        if done.get("failed"):
            return done
        if done.get("built"):
            self._say(f"built jemalloc {need.version} in {time.monotonic() - began:.0f} s")
        packed = self._packed(need, done)
        if packed is None:
            return done
        if packed.get("failed"):
            return {**packed, "msg": f"Built, but not packed: {packed.get('msg')}"}
        cache.add(base64.b64decode(packed["content"]), packed["receipt"], builder)
        return done

    def _packed(self, need: caching.Need, done: Result) -> t.Optional[Result]:
        """Return the bundle of what was built, and its receipt; done is what the module said of it."""
        prefix = self._arguments.get("prefix") or "/opt/jemalloc"
        return self._module("jemalloc_bundle", version=need.version, prefix=prefix, dist="/")

    def _source(self, cache: caching.Cache, need: caching.Need) -> t.Optional[t.Dict[str, t.Any]]:
        """Bring the source to the host, from the cache or downloaded into it; None: the host sees to it itself."""
        origins = list(self._arguments.get("origins") or [])
        with cache.lock(f"source-{need.version}"):
            found, origin = cache.source(need), "the controller's cache"
            if not found and all(str(each).startswith(("http://", "https://")) for each in origins):
                try:
                    path, sha256, origin = self._download(cache, need, origins)
                    found = path, sha256
                except JemallocError as error:
                    _DISPLAY.v(f"{self._host}: the controller has no source, so the host looks for one: {error}")
        if not found:
            return None
        packings = [packing for release in catalogue.RELEASES.values() for packing in release.packings]
        commit = next((packing.commit for packing in packings if packing.sha256 == found[1]), "")
        path = self._bring(found[0])
        return {"kind": "source", "path": path, "sha256": found[1], "commit": commit, "origin": origin}

    def _download(self, cache: caching.Cache, need: caching.Need, origins: t.Sequence[str]) -> t.Tuple[str, str, str]:
        """Download the source into the cache; return its path there, its digest, and where it came from."""
        release = catalogue.find_release(need.version, self._arguments.get("checksum") or None)
        progress = self._progress(f"jemalloc {need.version}")
        address = self._own["cache_mirror"]
        mirrored = [
            source.Candidate("url", f"{str(address).rstrip('/')}/sources/{sha256}", sha256)
            for sha256 in (need.sources if address else ())
        ]

        def fetch(candidate: source.Candidate, path: str) -> None:
            downloading.download(candidate.location, path, archive.MAX_PACKED, progress)

        with tempfile.TemporaryDirectory() as directory:
            candidates = [*mirrored, *source.candidates(release, origins, lambda: need.archives)]
            found = source.obtain(candidates, directory, fetch)
            self._say(f"downloaded the source from {found.location}")
            return cache.add_source(found.path, found.sha256), found.sha256, found.location

    def _push(self, found: t.Tuple[str, t.Dict[str, t.Any]], look: t.Optional[Result]) -> Result:
        """Bring a bundle to the host and let it be installed; in check mode say so."""
        path, entry = found
        if self._task.check_mode and look:
            return {**look, "changed": True, "missing": None}
        self._say(f"installing jemalloc {entry['release']} as built on {entry['builder']}")
        return self._module(build="now", pushed=self._pushed(path, entry))

    def _pushed(self, path: str, entry: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
        """Bring a bundle to the host; return what the module is to know of it."""
        return {
            "kind": "bundle",
            "path": self._bring(path),
            "sha256": entry["sha256"],
            "origin": f"the controller's cache, built on {entry['builder']}",
        }

    def _bring(self, path: str) -> str:
        """Bring a file of the controller to the host; return its path there, in a directory that goes with the task."""
        shell = self._connection._shell
        directory = shell.tmpdir or self._make_tmp_path()
        remote = str(shell.join_path(directory, os.path.basename(path)))
        self._transfer_file(path, remote)
        self._fixup_perms2([directory, remote], execute=False)
        return remote

    def _say(self, words: str) -> None:
        """Say in a line what goes on."""
        _DISPLAY.display(f"{self._host}: {words}")

    def _progress(self, what: str) -> downloading.Progress:
        """Return what shows the progress of a download on a terminal, and in lines elsewhere if it takes long."""
        said = [time.monotonic()]

        def progress(come: int, total: int) -> None:
            ended = come >= total
            if time.monotonic() - said[0] < (0.1 if _TERMINAL else INTERVAL) and not (ended and _TERMINAL):
                return
            said[0] = time.monotonic()
            share = f"{come * 100 // total} %" if total else f"{come >> 10} KiB"
            if _TERMINAL:
                filled = "#" * (come * 30 // total) if total else ""
                line = f"\r{self._host}: {what} [{filled:30}] {share}"
                _DISPLAY.display(line, screen_only=True, newline=ended)
            else:
                self._say(f"{what}: {share} downloaded")

        return progress
