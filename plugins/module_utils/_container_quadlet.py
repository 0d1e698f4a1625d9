"""Quadlets: containers that systemd runs, as podman's generator makes services of their files."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import re
import shutil
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _container as container
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_engine as engine_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_files as container_files
from ansible_collections.preload.jemalloc.plugins.module_utils import _contents as contents
from ansible_collections.preload.jemalloc.plugins.module_utils import _environment as environment
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run
    from ansible_collections.preload.jemalloc.plugins.module_utils._image_engine import Engine, Image

#: Since then podman's generator reads drop-ins.
LOWEST = (5, 0)

#: The label by which podman knows the service of a container.
LABEL = "PODMAN_SYSTEMD_UNIT"

_SECTION = "Container"


@dataclass(frozen=True)
class Quadlet:
    """A quadlet: the name of its file, that file, and the texts that make it, without our drop-in."""

    name: str
    path: str
    texts: t.Tuple[str, ...]

    @property
    def service(self) -> str:
        """The service that podman makes of it, or the template of services."""
        named = self._last("ServiceName")
        return f"{named or self.name[: -len('.container')]}.service"

    def image(self, root: str = "/") -> str:
        """Return the image that it runs; JemallocError where that is not to be known."""
        named = self._last("Image")
        for suffix, section, key in ((".image", "Image", "Image"), (".build", "Build", "ImageTag")):
            if named.endswith(suffix):
                path = locate(named, root)
                found = environment.assigned([files.read_text(path) or ""], section, key) if path else []
                named = found[-1] if found else ""
        if not named or "%" in named:
            raise JemallocError(
                f"containers: {self.path} names no image that can be looked at, as Image= with a name and no "
                "specifier does; take it off the list, or write it so."
            )
        return named

    def foreign(self, image: Image) -> str:
        """Return what it preloads itself, as it is to stand in a unit file: by its own files, or by its image."""
        own = environment.setting(self.texts, _SECTION, "Environment", "LD_PRELOAD")
        if own:
            return own
        value = image.environment.get("LD_PRELOAD", "")
        for name in environment.assigned(self.texts, _SECTION, "EnvironmentFile"):
            path = os.path.join(os.path.dirname(self.path), name.lstrip("-"))
            lines = (files.read_text(path) or "").splitlines()
            found = [line.partition("=")[2] for line in lines if line.startswith("LD_PRELOAD=")]
            value = found[-1] if found else value
        return value.replace("%", "%%").replace("$", "$$")

    def _last(self, key: str) -> str:
        return (environment.assigned(self.texts, _SECTION, key) or [""])[-1]

    def text(self, releases: container.Releases, wanted: container.Wanted, image: Image) -> str:
        """Return our drop-in."""
        prefix = releases.prefix
        for volume in environment.assigned(self.texts, _SECTION, "Volume"):
            if [*volume.split(":"), ""][1].rstrip("/") == prefix:
                raise JemallocError(
                    f"containers: {self.name} mounts {volume} itself, where the library has to be; take that line out."
                )
        variables = releases.variables(wanted, self.foreign(image))
        if "MALLOC_CONF" in variables:
            variables["MALLOC_CONF"] = variables["MALLOC_CONF"].replace("%", "%%")
        lines = [f"Volume={prefix}:{prefix}:ro", *(contents.assignment(*pair) for pair in variables.items())]
        return f"{container.HEADER}[{_SECTION}]\n" + "".join(f"{line}\n" for line in lines)


def _directories(root: str) -> t.List[str]:
    """Return the directories in which podman looks, without those for users' own systemd."""
    found = []
    for directory in container_files.DIRECTORIES:
        base = os.path.join(root, directory)
        below = sorted(top for top, _directories, _names in os.walk(base))
        found += [top for top in below if not f"{top}/".startswith(f"{base}/users/")]
    return found


def locate(name: str, root: str = "/") -> str:
    """Return the file of a quadlet that counts; empty when there is none."""
    paths = (os.path.join(directory, name) for directory in _directories(root))
    return next((path for path in paths if os.path.isfile(path)), "")


def read(name: str, root: str = "/") -> t.Optional[Quadlet]:
    """Return the quadlet of that name, None where there is none."""
    path = locate(name, root)
    if not path:
        return None
    stem = name[: -len(".container")]
    dashes = [match.end() for match in re.finditer("-", stem)][::-1]
    beside = [f"{name}.d", *(f"{stem[:end]}.container.d" for end in dashes), "container.d"]
    found: t.Dict[str, str] = {}
    for each in (os.path.join(directory, drop_ins) for directory in _directories(root) for drop_ins in beside):
        for file in os.listdir(each) if os.path.isdir(each) else ():
            if file.endswith(".conf") and file != changes_util.DROP_IN:
                found.setdefault(file, os.path.join(each, file))
    paths = [path, *(found[file] for file in sorted(found))]
    return Quadlet(name, path, tuple(files.read_text(each) or "" for each in paths))


def needed(names: t.Sequence[str]) -> t.List[Quadlet]:
    """Return the quadlets of these names; JemallocError for one that is not there."""
    found = []
    for name in names:
        quadlet = read(name)
        if quadlet is None:
            raise JemallocError(
                f"containers: there is no quadlet {name} below {' or '.join(container_files.places())}; name a file "
                "that is there."
            )
        found.append(quadlet)
    return found


def check_host(engine: Engine, names: t.Sequence[str]) -> None:
    """Refuse a host whose podman reads no drop-ins, or that systemd does not run."""
    if not systemd.is_running():
        raise JemallocError(f"containers: systemd is not the init of this host, and {names[0]} is run by that.")
    if not shutil.which(engine.name):
        raise JemallocError(f"containers: this host has no podman, which {names[0]} is for; install it.")
    found = engine_util.version(engine)
    if found < LOWEST:
        raise JemallocError(
            f"containers: podman {found[0]}.{found[1]} of this host reads no drop-ins of quadlets such as {names[0]}, "
            f"{LOWEST[0]}.{LOWEST[1]} does; make an image with jemalloc by preload.jemalloc.image instead."
        )


class Services:
    """The services of quadlets: what runs of them, and how they are restarted."""

    def __init__(self, run: Run, engine: Engine) -> None:
        self._run = run
        self._engine = engine

    def running(self) -> t.Dict[str, t.List[engine_util.Running]]:
        """Return the containers of all quadlets that run, by their services."""
        found: t.Dict[str, t.List[engine_util.Running]] = {}
        for each in engine_util.containers(self._engine, [LABEL]) if shutil.which(self._engine.name) else ():
            if each.pid:
                found.setdefault(each.labels[LABEL], []).append(each)
        return found

    def reload(self) -> str:
        """Let podman's generator read its files again; return why it could not."""
        status, output = self._run(["systemctl", "daemon-reload"], None, None)
        return f"systemctl daemon-reload ended with {status}: {output.strip()}" if status else ""

    def restart(self, unit: str, timeout: int, _changed: bool) -> str:
        """Restart a service; return why that failed."""
        self._run(["systemctl", "reset-failed", "--", unit], None, None)
        return restarts.restart(self._run, restarts.Service(unit, None), timeout)

    def state(self, unit: str) -> str:
        """Return why a service is not well, empty when it is."""
        found = systemd.shown(self._run, unit, ("ActiveState", "NRestarts"))
        if found.get("NRestarts", "0") != "0":
            return f"it does not stay up, systemd started it {found['NRestarts']} times again"
        state = found.get("ActiveState", "")
        return "" if state == "active" else f"it is {state or 'not known to systemd'}"

    def end(self, unit: str) -> None:
        """End a start that hangs."""
        restarts.end_start(self._run, restarts.Service(unit, None))

    def last_words(self, unit: str) -> str:
        """Return what a service wrote last."""
        return restarts.journal(self._run, restarts.Service(unit, None))


def instances(service: str, running: t.Iterable[str]) -> t.List[str]:
    """Return the services that run of a quadlet: its own, or the instances of its template."""
    return sorted(unit for unit in running if service in (unit, systemd.template_of(unit)))
