"""From the list of containers to what is going to differ: files, restarts, and the images that are to be tried."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import dataclasses
import os
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _container as container
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_compose as compose
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_engine as engine_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_files as container_files
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_jobs as jobs_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_quadlet as quadlets
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils._container_image import Fitting
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.module_utils._image_engine import Engine, Image

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host


class Planner:
    """Reads what there is and works out what is to be; nothing is changed here but that images may be pulled."""

    def __init__(
        self,
        host: Host,
        releases: container.Releases,
        pull: bool,
        rebuilt: t.Optional[str] = None,
        restore: t.Optional[t.Mapping[str, t.Optional[str]]] = None,
        adds: bool = False,
        proc: str = "/proc",
    ) -> None:
        self._host = host
        self._restore = restore
        self._adds = adds
        self._releases = releases
        self._pull = pull
        self._rebuilt = rebuilt
        self._proc = proc

    def jobs(self, wanted: t.Sequence[container.Wanted]) -> t.List[jobs_util.Job]:
        """Return what is to happen to each file of ours, whether anything is."""
        by_quadlet = {each.quadlet: each for each in wanted if each.quadlet}
        by_file: t.Dict[str, t.List[container.Wanted]] = {}
        for each in wanted:
            if each.compose:
                by_file.setdefault(each.compose, []).append(each)
        return [*self._quadlets(by_quadlet), *self._projects(by_file)]

    def _quadlets(self, wanted: t.Mapping[str, container.Wanted]) -> t.List[jobs_util.Job]:
        engine = Engine(self._host.run, "podman")
        if wanted:
            quadlets.check_host(engine, list(wanted))
        found = {each.name: each for each in quadlets.needed(list(wanted))}
        paths = [*container_files.drop_ins(), *filter(container_files.is_drop_in, self._restore or ())]
        present = {container_files.quadlet_of(path) for path in paths}
        services = quadlets.Services(self._host.run, engine)
        running = services.running() if wanted or present else {}
        return [
            self._quadlet(name, wanted.get(name), found.get(name) or quadlets.read(name), services, running)
            for name in sorted({*wanted, *present})
        ]

    def _quadlet(
        self,
        name: str,
        wanted: t.Optional[container.Wanted],
        quadlet: t.Optional[quadlets.Quadlet],
        services: quadlets.Services,
        running: t.Mapping[str, t.Sequence[engine_util.Running]],
    ) -> jobs_util.Job:
        """Return what is to happen to a quadlet; one whose own file is gone cannot be restarted."""
        path, fittings = container_files.drop_in_path(name), []
        before = files.read_text(path)
        after = before if self._adds else None if self._restore is None else self._restore.get(path, before)
        if wanted and quadlet:
            image_name = quadlet.image()
            image, engine = self._image(image_name, wanted), Engine(self._host.run, "podman")
            after = quadlet.text(self._releases, wanted, image)
            fittings = [self._fitting(wanted, engine, image, image_name)] if image.id else []
        units = quadlets.instances(quadlet.service, running) if quadlet else []
        changes = [changes_util.Change(path, before, after)] if before != after else []
        there = {unit: running[unit] for unit in units}
        ran, runs = (dict.fromkeys(units, self._releases.named_in(text)) for text in (before, after))
        job = jobs_util.Job(name, services, path, tuple(changes), runs, ran, fittings=tuple(fittings))
        return self._reasoned(job, there, units if changes else [])

    def _image(self, name: str, wanted: container.Wanted) -> Image:
        """Return the image of a quadlet; in check mode one of which nothing is known where it is not here."""
        engine, about = Engine(self._host.run, "podman"), f"containers: {wanted}"
        found = engine.pulled(name, about) if self._pull else engine.image(name, about)
        if found is None:
            self._host.warn(f"{name} of {wanted} is not here, so it cannot be looked at before it is pulled.")
        return found or Image("", "")

    def _fitting(self, wanted: container.Wanted, engine: Engine, image: Image, name: str) -> Fitting:
        releases = self._releases
        if f"{releases.prefix}/" in image.environment.get("LD_PRELOAD", ""):
            raise JemallocError(
                f"containers: the image {name} of {wanted} preloads jemalloc below {releases.prefix} itself; take it "
                "off the list."
            )
        conf = releases.variables(wanted, "").get("MALLOC_CONF", "")
        return Fitting(str(wanted), engine, image, name, releases.prefix, releases.of(wanted), conf)

    def _projects(self, wanted: t.Mapping[str, t.Sequence[container.Wanted]]) -> t.List[jobs_util.Job]:
        """Return what is to happen to compose files, those that are listed and those that have an override of ours."""
        paths = {compose.override_path(path): path for path in wanted}
        for path in sorted(paths):
            compose.check_override(path)
        restored = [path for path in self._restore or () if not container_files.is_drop_in(path)]
        for override in [*container_files.overrides(), *restored]:
            directory, name = os.path.split(override)
            paths.setdefault(override, os.path.join(directory, name.replace(".override.", ".")))
        return [self._project(override, path, wanted.get(path, [])) for override, path in sorted(paths.items())]

    def _project(self, override: str, path: str, wanted: t.Sequence[container.Wanted]) -> jobs_util.Job:
        releases, before = self._releases, files.read_text(override)
        if before is not None and not before.startswith(container.HEADER):
            before = None  # somebody else's by now
        project = compose.project(self._host.run, path, bool(wanted))
        there = project.containers()
        services, fittings = {}, []
        for each in wanted:
            if not there.get(each.service) or not project.engine:
                raise JemallocError(
                    f"containers: there is no container of {each}, by which its image is known; start it once, and "
                    "look that the service is called so."
                )
            sample = there[each.service][0]
            image = project.engine.image(sample.image, f"containers: {each}") or Image("", "")
            services[each.service] = releases.variables(each, sample.environment.get("LD_PRELOAD", ""))
            fittings.append(self._fitting(each, project.engine, image, next(iter(image.names), sample.image[:12])))
        after = compose.text(releases.prefix, services, compose.services_in(before) if self._adds else None)
        if self._restore is not None:
            after = self._restore.get(override, before)
        record = container_files.record_path(override)
        changes = [changes_util.Change(override, before, after)] if before != after else []
        linked = os.readlink(record) if os.path.islink(record) else None
        link = override if after is not None else None
        changes += [changes_util.Change(record, linked, link, link=True)] if linked != link else []
        parts = [compose.services_in(text) for text in (before, after)]
        running = {unit: [each for each in there.get(unit, []) if each.pid] for unit in sorted({*parts[0], *parts[1]})}
        running = {unit: several for unit, several in running.items() if several}
        ran, runs = ({unit: releases.named_in(each.get(unit)) for unit in running} for each in parts)
        job = jobs_util.Job(path, project, override, tuple(changes), runs, ran, fittings=tuple(fittings))
        return self._reasoned(job, running, [unit for unit in running if parts[0].get(unit) != parts[1].get(unit)])

    def _reasoned(
        self,
        job: jobs_util.Job,
        running: t.Mapping[str, t.Sequence[engine_util.Running]],
        differing: t.Collection[str],
    ) -> jobs_util.Job:
        """Return a job with the reasons why what runs has to be restarted; differing get other settings."""
        reasons, prefix = {}, self._releases.prefix
        for unit, version in job.versions.items():
            pids = [each.pid for each in running[unit]]
            found = engine_util.mapped(pids, prefix, self._proc)
            if version and not found and processes.installations_of(pids, prefix, self._proc):
                raise JemallocError(
                    f"containers: {unit} of {job.title} runs static programs only, into which nothing can be "
                    "preloaded; take it off the list."
                )
            reason = engine_util.lacking(found, version, self._rebuilt)
            if not reason and version and job.before.get(unit) and unit in differing:
                reason = "its settings are going to differ"
            if reason:
                reasons[unit] = reason
        return dataclasses.replace(job, reasons=reasons)
