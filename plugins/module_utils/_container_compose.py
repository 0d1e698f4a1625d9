"""Services of compose files: their override file, and how docker compose and podman-compose run them."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import json
import os
import re
import shutil
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _container as container
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_engine as engine_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _preflight as preflight
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.module_utils._image_engine import Engine

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run

# The names by which compose finds its file and what overrides that without being told: no other file has such a thing.
_OVERRIDES = {
    f"{stem}.{suffix}": f"{stem}.override.{suffix}"
    for stem in ("compose", "docker-compose")
    for suffix in ("yaml", "yml")
}

# The labels that both give to containers.
_PROJECT, _SERVICE, _DIRECTORY, _FILES = (
    f"com.docker.compose.{name}" for name in ("project", "service", "project.working_dir", "project.config_files")
)

# What each of them is called by, and whose containers it runs.
_COMMANDS = (("podman", ("podman-compose",)), ("docker", ("docker", "compose")))

# A service in an override file of ours, with its settings.
_PART = re.compile(r'^  "([^"]+)":\n((?:    .*\n)*)', re.MULTILINE)


def override_path(path: str) -> str:
    """Return the override file of a compose file."""
    directory, name = os.path.split(path)
    if name not in _OVERRIDES or not os.path.isfile(path):
        reason = "is not there" if name in _OVERRIDES else f"is none of {', '.join(_OVERRIDES)}, and so has no override"
        raise JemallocError(f"containers: the compose file {path} {reason}; name one that is there.")
    return os.path.join(directory, _OVERRIDES[name])


def check_override(path: str) -> None:
    """Refuse a directory with an override file of somebody else: compose reads one of them, or mixes them up."""
    directory = os.path.dirname(path)
    for name in _OVERRIDES.values():
        other = os.path.join(directory, name)
        text = files.read_text(other)
        if text is not None and (other != path or not text.startswith(container.HEADER)):
            raise JemallocError(
                f"containers: {other} is there and not ours; write the volume and the environment that --check --diff "
                f"shows without it into that file yourself, or move what it has into the compose file."
            )


def text(
    prefix: str, services: t.Mapping[str, t.Mapping[str, str]], kept: t.Optional[t.Mapping[str, str]] = None
) -> t.Optional[str]:
    """Return the override file for services, each with its variables; None for no service.

    kept has the settings of services that stay as they are unless they are among the others.
    """
    settings = dict(kept or {})
    for name, variables in services.items():
        lines = ["volumes:", f"  - {json.dumps(f'{prefix}:{prefix}:ro')}", "environment:"]
        lines += [f"  {key}: {json.dumps(value.replace('$', '$$'))}" for key, value in variables.items()]
        settings[name] = "".join(f"    {line}\n" for line in lines)
    parts = [f"  {json.dumps(name)}:\n{lines}" for name, lines in sorted(settings.items())]
    return f"{container.HEADER}services:\n{''.join(parts)}" if parts else None


def services_in(override: t.Optional[str]) -> t.Dict[str, str]:
    """Return the services that an override file of ours has, each with its settings."""
    return dict(_PART.findall(override or ""))


class Project:
    """The containers of a compose file: what runs of them, and how they are restarted."""

    def __init__(self, run: Run, path: str, command: t.Sequence[str], engine: t.Optional[Engine]) -> None:
        self._run = run
        self._directory = os.path.dirname(path)
        self._names = {os.path.basename(path), *_OVERRIDES.values()}
        self._path = path
        self._command = command
        self.engine = engine

    def containers(self) -> t.Dict[str, t.List[engine_util.Running]]:
        """Return the containers by their services, also those that do not run."""
        found: t.Dict[str, t.List[engine_util.Running]] = {}
        for each in engine_util.containers(self.engine, [_DIRECTORY], stopped=True) if self.engine else ():
            if os.path.realpath(each.labels[_DIRECTORY]) == os.path.realpath(self._directory):
                self._check(each)
                found.setdefault(each.labels.get(_SERVICE, ""), []).append(each)
        return found

    def _check(self, found: engine_util.Running) -> None:
        """Refuse containers that were started with other files: without these they would be others."""
        names = {os.path.basename(name) for name in found.labels.get(_FILES, "").split(",") if name}
        if names - self._names:
            raise JemallocError(
                f"containers: {self._path}: its containers were started with {', '.join(sorted(names))}, and compose "
                "finds only its own file and its override by itself; start them without -f, or take it off the list."
            )

    def running(self) -> t.Dict[str, t.List[engine_util.Running]]:
        """Return the containers that run, by their services."""
        found = {name: [each for each in several if each.pid] for name, several in self.containers().items()}
        return {name: several for name, several in found.items() if several}

    def reload(self) -> str:
        """Compose reads its files whenever it is called."""
        return ""

    def restart(self, unit: str, timeout: int, changed: bool) -> str:
        """Start a service as its files say, or where these have not changed again; return why that failed."""
        projects = {each.labels[_PROJECT] for several in self.containers().values() for each in several}
        named = [word for name in sorted(projects)[:1] for word in ("-p", name)]
        what = ["up", "-d", "--no-deps", unit] if changed else ["restart", unit]
        command = ["timeout", str(timeout), *self._command, *named, *what]
        status, output = self._run(command, self._directory, None)
        if status == 124:
            return f"it did not start within {timeout} s"
        return f"it did not start: {preflight.words(output)}" if status else ""

    def state(self, _unit: str) -> str:
        """Whether a service is well its containers say."""
        return ""

    def end(self, unit: str) -> None:
        """Leave what hangs to the next start, which ends it."""

    def last_words(self, unit: str) -> str:
        """Return what a service wrote last."""
        ids = [each.id for each in self.containers().get(unit, [])]
        if not ids or not self.engine:
            return ""
        _status, output = self.engine.run("logs", "--tail=3", ids[0], errors=True)
        return " / ".join(line.strip() for line in output.splitlines() if line.strip())


def project(run: Run, path: str, needed: bool) -> Project:
    """Return the project of a compose file, run by whichever has containers of it, or by nothing.

    JemallocError when there is nothing to run it by, unless it is not needed: what goes may have lost that already.
    """
    found = [
        (name, command)
        for name, command in _COMMANDS
        if shutil.which(name) and (run([*command, "version"], None, None)[0] == 0)
    ]
    if not found and needed:
        raise JemallocError(
            f"containers: this host has neither podman-compose nor docker compose, which {path} is for; install one."
        )
    reasons = []
    for name, command in found:
        made = Project(run, path, command, Engine(run, name))
        try:
            if made.containers():
                return made
        except JemallocError as error:
            reasons.append(str(error))
    if reasons and needed:
        raise JemallocError(reasons[0])
    return Project(run, path, (), None)
