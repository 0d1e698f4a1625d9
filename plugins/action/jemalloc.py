# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of the module: one download, one build for all hosts that it is good for, then push."""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
import time
import typing as t

from ansible import constants
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archive
from ansible_collections.preload.jemalloc.plugins.module_utils import _arguments as shared
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _source as source
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _action as base
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _answers as answers
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _apt as apt
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _cache as caching
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _display as display
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _download as downloading
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _fleet as fleet
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _latest as latest
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _mirror as mirror
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _named as named
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _rendering as rendering
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _role as role
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _variables as variables_util

#: Arguments that only the controller's half reads, with their defaults, which are those of the module.
CONTROLLER: t.Dict[str, t.Any] = {
    **{name: shared.LIBRARY[name].get("default") for name in shared.CONTROLLER},
    "missing": {},
}

#: Seconds that the host whose build this one takes may be late in the same task, before this one builds.
PATIENCE = 10.0

# A version of a C library with which every build runs.
_ANY_LIBC = "999"

Result = base.Result


def split(arguments: t.Dict[str, t.Any]) -> t.Tuple[t.Dict[str, t.Any], t.Dict[str, t.Any]]:
    """Return the arguments of the module, and those of the controller's half."""
    own = {key: arguments.get(key) or default for key, default in CONTROLLER.items()}
    own["build_shared"] = boolean(arguments.get("build_shared", True), strict=False)
    if own["build_host"] and not own["build_shared"]:
        raise JemallocError(
            "build_shared: false keeps each build to its host, so no host can build for others; leave out one of "
            "build_shared and build_host."
        )
    if not str(own["cache_size"]).isdigit():
        raise JemallocError(f"cache_size: {own['cache_size']!r} is not a number of MiB.")
    return {key: value for key, value in arguments.items() if key not in CONTROLLER}, own


class ActionModule(base.Action):
    """Asks the host what it lacks, and sees to it that it gets just that."""

    NAME = "jemalloc"

    #: The module whose answer has the bundle of what was built.
    PACKER = "jemalloc_bundle"

    def answer(self) -> Result:
        """Return the result of the action."""
        self._builder = self.asked_host()
        given = dict(self._task.args)
        from_variables = boolean(given.pop("from_variables", False), strict=False)
        return self._answer_for_role(given) if from_variables else self._answer(given)

    def _answer_for_role(self, given: Result) -> Result:
        """Take the arguments from the variables of the role, and say which tasks come next."""
        variables = variables_util.converted(variables_util.said(self._variables, self._templar.template))
        found = {
            "variables": role.shown(variables),
            "releases": role.releases(variables),
            "builders": role.builders(variables, self._variables.get("groups") or {}, self._host),
        }
        if variables["state"] == "absent":  # the module comes last then
            return {**found, "changed": False, "next": "remove"}
        role.check_options(variables)
        unused = "" if given else role.without_effect(variables)
        if unused:
            self._display.warning(unused)
        arguments = role.options(variables, given)
        if "scopes" not in arguments and not given:
            arguments["scopes"] = role.scopes(variables)
        try:
            result = {**self._answer(arguments), **found}
        except JemallocError as error:
            return {**found, "failed": True, "msg": str(error)}
        if result.get("failed"):
            return result
        if result.get("scopes"):  # they are as wanted, so that no task of jemalloc_preload comes
            named.warnings(constants.DEFAULT_LOCAL_TMP, self._builder, result["scopes"])
        return {**result, "next": role.next_tasks(variables, result)}

    def _answer(self, given: Result) -> Result:
        """Return the result for arguments."""
        arguments = latest.with_latest(given, constants.DEFAULT_LOCAL_TMP)
        self._arguments, self._own = split(arguments)
        if isinstance(self._arguments.get("scopes"), dict):
            self._arguments["scopes"] = rendering.with_texts(self._arguments["scopes"])
        result = self._install(str(arguments.get("build") or "now"))
        cache = str(self._own["cache"])
        if result.get("stays") is not None and result["changed"] and os.path.isdir(os.path.expanduser(cache)):
            result["stays"] = [*result["stays"], f"{cache} on the controller"]
        return result

    @functools.cached_property
    def _trust(self) -> fleet.Trust:
        """Return whose builds are taken: by the task's host, or where a build host builds by the one that asks."""
        chosen = self._arguments.get("build") == "chosen"
        groups = self._variables.get("groups") or {}
        host = self._host if chosen else self._builder
        return fleet.trust(host, groups, str(self._own["build_host"] or ""), self._own["build_shared"])

    def _install(self, build: str) -> Result:
        """Let the host have what it lacks."""
        missing = self._own["missing"]
        if build == "chosen":
            return self._build_if_chosen(self._need(missing, self._host))
        look: t.Optional[Result] = None
        if not missing or self._task.check_mode:
            look = self._module(build="never" if build == "now" else build)
            missing = look.get("missing")
            if look.get("failed") or not missing:
                return look
        need, cache = self._need(missing, self._builder if look else self._host), self._cache()
        if self._arguments.get("method") == "source" and build == "now":
            return self._build(cache, need)
        found = self._find(cache, need)
        if found:
            return self._push(found, look)
        if self._arguments.get("method") == "bundle":
            if self._task.check_mode and self._own["missing"] and self._trust.named:
                return {**t.cast(Result, look), "changed": True, "missing": None}  # a build host is going to build it
            raise JemallocError(self._no_bundle(cache, need))
        if self._trust.shared:
            fleet.volunteer(constants.DEFAULT_LOCAL_TMP, need, self._trust)
        if build == "never":
            return look or {"changed": False, "missing": missing, "version": need.version}
        return self._build_or_take(cache, need, look)

    def _need(self, missing: t.Any, host: str) -> caching.Need:
        """Return the build that a host needs, of what it answered as missing: now, or in another task of the play."""
        return answers.need_of(host, self.NAME, missing, self._arguments)

    def _cache(self) -> caching.Cache:
        return caching.Cache(str(self._own["cache"]), int(self._own["cache_size"]))

    def _module(self, name: str = "", **more: t.Any) -> Result:
        """Run a module, that of the action with the arguments of the task as well."""
        return self.ask(name or self.NAME, more if name else {**self._arguments, **more})

    def _find(self, cache: caching.Cache, need: caching.Need) -> t.Optional[t.Tuple[str, caching.Entry]]:
        """Return a bundle that fits, of a builder that the host trusts, from the cache or from a mirror of one.

        A host that found none before takes that of the host which builds for it in this run.
        """
        trusted = self._trust.builders
        chosen = trusted & {self._chosen(need)} if self._own["missing"] else ()
        found = cache.find(need, chosen) or cache.find(need, trusted)
        address = self._own["cache_mirror"]
        if found or not address or self._task.check_mode:
            return found
        checksum = self._own["cache_mirror_checksum"]
        url = mirror.check(str(address), checksum)
        with cache.lock(f"mirror-{need.key}"):  # one download for all hosts that need it
            found = cache.find(need, trusted)
            if not found:
                mirror.find(url, checksum, need, cache, display.progress(f"{self._host}: a bundle"))
                found = cache.find(need, trusted)
        return found

    def _no_bundle(self, cache: caching.Cache, need: caching.Need) -> str:
        """Say that there is no bundle, and which there are."""
        there = [entry for entry in cache.entries() if entry["release"] == need.version]
        named = [
            f"{entry['platform']['libc']} {entry['platform']['libc_lowest']} ({caching.made_by(entry)}"
            f"{'' if caching.is_trusted(entry, self._trust.builders) else ', which this host does not trust'})"
            for entry in there
        ]
        return (
            f"method: no bundle in the controller's cache {cache.directory} is {need} that runs with {need.here.libc} "
            f"{need.here.libc_version}; it has {', '.join(named) or 'none of that release'}. Build one on a host with "
            "as old a C library that is named as jemalloc_build_host or stands before this one in the inventory "
            "(preload.jemalloc.bundle), or use method: auto."
        )

    def _chosen(self, need: caching.Need) -> str:
        """Return the host that builds for this one."""
        return fleet.builder(constants.DEFAULT_LOCAL_TMP, need) if self._trust.shared else self._trust.host

    def _build_if_chosen(self, need: caching.Need) -> Result:
        """Build on the task's host for the others, if that is its turn."""
        unchanged = {"changed": False, "missing": self._own["missing"], "version": need.version}
        if self._chosen(need) != self._host:
            return unchanged
        cache = self._cache()
        if self._builder == self._host:
            return self._build(cache, need)
        with self._building(cache, need):
            # Check mode counts what a build host would have built for a host before just once.
            shared_by_forks = constants.DEFAULT_LOCAL_TMP
            foretold = self._task.check_mode and fleet.is_foretold(shared_by_forks, need, self._trust.builders)
            found = foretold or self._find(cache, need)
            return unchanged if found else self._build_for_others(cache, need) or unchanged

    def _build_for_others(self, cache: caching.Cache, need: caching.Need) -> t.Optional[Result]:
        """Build on a build host, which is asked what it needs itself; None: it is of another platform."""
        look = self._module(build="never")
        if look.get("failed"):
            return look
        if not look.get("missing"):
            here = dataclasses.replace(need.here, libc_version=_ANY_LIBC)
            return self._keep(cache, dataclasses.replace(need, here=here), lambda: look)
        there = self._need(look["missing"], self._builder)
        if there.platform != need.platform:
            return None
        if not self._task.check_mode:
            return self._build_and_keep(cache, there)
        fleet.foretell(constants.DEFAULT_LOCAL_TMP, there, self._builder)
        return self._module(build="now")

    def _build_or_take(self, cache: caching.Cache, need: caching.Need, look: t.Optional[Result]) -> Result:
        """Build, if this is the first host that can for its part of the fleet; else wait for that one's bundle."""
        if self._task.check_mode:
            return self._module(build="now")
        since, trusted = time.monotonic(), self._trust.builders
        while True:
            chosen = self._chosen(need)
            found = cache.find(need, trusted & {chosen}) or cache.find(need, trusted)
            if found:
                return self._push(found, look)
            if chosen == self._builder or chosen not in trusted or time.monotonic() - since > PATIENCE:
                return self._build(cache, need)
            if cache.wait(need.lock(chosen), lambda owner: self._say_waiting(need, owner)):
                since = time.monotonic()
            else:
                time.sleep(0.1)  # it is about to begin

    def _build(self, cache: caching.Cache, need: caching.Need) -> Result:
        """Build on the task's host."""
        if self._task.check_mode:
            return self._module(build="now")
        with self._building(cache, need):
            return self._build_and_keep(cache, need)

    def _building(self, cache: caching.Cache, need: caching.Need) -> t.ContextManager[None]:
        """Be the only one that builds on the task's host for a need."""
        return cache.lock(need.lock(self._builder), self._builder, lambda owner: self._say_waiting(need, owner))

    def _say_waiting(self, need: caching.Need, owner: str) -> None:
        self._say(f"waiting for {need}, which {owner or 'another host'} builds")

    def _build_and_keep(self, cache: caching.Cache, need: caching.Need) -> Result:
        """Build on the task's host, and keep the bundle for the others."""
        return self._keep(cache, need, lambda: self._built(cache, need))

    def _built(self, cache: caching.Cache, need: caching.Need) -> Result:
        """Return what the module returns for a build on the task's host."""
        number, count = fleet.position(constants.DEFAULT_LOCAL_TMP, need, self._trust.host)
        waiting = fleet.waiting(constants.DEFAULT_LOCAL_TMP, need, self._trust.host)
        pushed = self._source(cache, need)
        where = f" on {self._builder}" if self._builder != self._host else ""
        self._say(f"building {need}{where} ({number} of {count})")
        if waiting:
            display.say(f"{waiting}: waiting for that build")
        began = time.monotonic()
        with display.going_on(f"{self._host}: building jemalloc {need.version}{where}"):
            done = self._module(build="now", pushed=pushed) if pushed else self._module(build="now")
        if done.get("built") and not done.get("failed"):
            self._say(f"built jemalloc {need.version} in {time.monotonic() - began:.0f} s")
            done["builder"] = self._builder
        return done

    def _keep(self, cache: caching.Cache, need: caching.Need, build: t.Callable[[], Result]) -> Result:
        """Add the bundle of a build to the cache; without one the next host is chosen to build."""
        kept = False
        try:
            done = build()
            packed = None if done.get("failed") else self._packed(need, done)
            if packed and packed.get("failed"):
                return {**packed, "msg": f"Built, but not packed: {packed.get('msg')}"}
            kept = packed is not None and self._add(cache, need, done, packed)
            return done
        finally:
            if not kept:
                fleet.withdraw(constants.DEFAULT_LOCAL_TMP, need, self._trust.host)

    def _add(self, cache: caching.Cache, need: caching.Need, done: Result, packed: Result) -> bool:
        """Add a bundle to the cache; return whether it could be. An installation from before may be another build."""
        data, _manifest = answers.bundle_of(self._builder, self.PACKER, packed)
        try:
            cache.add(data, self._builder, need)
        except JemallocError:
            if done.get("built"):
                raise
            return False
        return True

    def _packed(self, need: caching.Need, done: Result) -> t.Optional[Result]:
        """Return the bundle of what was built, and its receipt; done is what the module said of it."""
        prefix = self._arguments.get("prefix") or "/opt/jemalloc"
        return self._module(self.PACKER, version=need.version, prefix=prefix, dist="/")

    def _source(self, cache: caching.Cache, need: caching.Need) -> t.Optional[t.Dict[str, t.Any]]:
        """Bring the source to the host, from the cache or downloaded into it; None: the host sees to it itself."""
        origins = list(self._arguments.get("origins") or [])
        with cache.lock(f"source-{need.version}"):
            found, origin = cache.source(need), "the controller's cache"
            if not found and all(str(each).startswith(("http://", "https://")) for each in origins):
                try:
                    path, sha256, origin = self._download(cache, need, origins)
                    found = path, sha256
                except downloading.MissingLibraryError as error:
                    self._display.warning(f"Each host looks for the source itself: {error}.")
                except JemallocError as error:
                    said = answers.plain(str(error))
                    self._display.v(f"{self._host}: the controller has no source, so the host looks for one: {said}")
        if not found:
            return None
        packings = [packing for release in catalogue.RELEASES.values() for packing in release.packings]
        commit = next((packing.commit for packing in packings if packing.sha256 == found[1]), "")
        path = self._bring(found[0])
        return {"kind": "source", "path": path, "sha256": found[1], "commit": commit, "origin": origin}

    def _download(self, cache: caching.Cache, need: caching.Need, origins: t.Sequence[str]) -> t.Tuple[str, str, str]:
        """Download the source into the cache; return its path there, its digest, and where it came from."""
        downloading.library()  # said by itself: among the origins it would be one failure of several
        release = catalogue.find_release(need.version, self._arguments.get("checksum") or None)
        progress = display.progress(f"{self._host}: jemalloc {need.version}")
        address = self._own["cache_mirror"]
        mirrored = [
            source.Candidate("url", f"{str(address).rstrip('/')}/sources/{sha256}", sha256)
            for sha256 in (need.sources if address else ())
        ]

        def fetch(candidate: source.Candidate, path: str) -> None:
            downloading.download(candidate.location, path, archive.MAX_PACKED, progress)

        with tempfile.TemporaryDirectory() as directory:
            candidates = [*mirrored, *source.candidates(release, origins, apt.archive_roots)]
            found = source.obtain(candidates, directory, fetch)
            self._say(f"downloaded the source from {found.location}")
            return cache.add_source(found.path, found.sha256), found.sha256, found.location

    def _push(self, found: t.Tuple[str, caching.Entry], look: t.Optional[Result]) -> Result:
        """Bring a bundle to the host and let it be installed; in check mode say so."""
        path, entry = found
        if self._task.check_mode and look:
            return {**look, "changed": True, "missing": None}
        self._say(f"installing jemalloc {entry['release']}, {caching.made_by(entry)}")
        return self._taken(path, entry)

    def _taken(self, path: str, entry: caching.Entry) -> Result:
        """Bring a bundle to the host and run the module with it."""
        pushed = {
            "kind": "bundle",
            "path": self._bring(path),
            "sha256": entry["sha256"],
            "origin": f"the controller's cache, {caching.made_by(entry)}",
            "builder": entry["builder"],
        }
        return self._module(build="now", pushed=pushed)

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
        display.say(f"{self._host}: {answers.plain(words)}")
