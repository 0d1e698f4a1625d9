"""Containers that a host runs and that are to preload: what an entry of the list means, and what it comes to."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import dataclasses
import os
import re
import typing as t
from dataclasses import dataclass, field

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_files as container_files
from ansible_collections.preload.jemalloc.plugins.module_utils import _contents as contents
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, about

Change = changes_util.Change

#: Begins every file of ours.
HEADER = "# Managed by the Ansible collection preload.jemalloc; changes made here are lost.\n"

_QUADLET = ".container"

# What a service of a compose file may be called, compose-spec: services.
_SERVICE = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Wanted:
    """A container that is to preload: a quadlet by the name of its file, or a service of a compose file.

    version: another release than the current one. malloc_conf: options of jemalloc, or a preset of them.
    """

    quadlet: str = ""
    compose: str = ""
    service: str = ""
    version: t.Optional[str] = None
    malloc_conf: t.Mapping[str, t.Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return self.quadlet or f"{self.service} of {self.compose}"


@dataclass(frozen=True)
class Releases:
    """What the store has: the current release, and those that are wanted, each with the options of its build."""

    prefix: str
    current: str = ""
    built: t.Mapping[str, t.Optional[t.Mapping[str, t.Any]]] = field(default_factory=dict)

    def of(self, wanted: Wanted) -> str:
        """Return the release that a container is to preload."""
        return wanted.version or self.current

    def variables(self, wanted: Wanted, foreign: str) -> t.Dict[str, str]:
        """Return what a container gets in its environment: what it preloads otherwise stays, behind ours."""
        found = {"LD_PRELOAD": contents.in_front(self.prefix, foreign, wanted.version or "current")}
        if wanted.malloc_conf:
            from ansible_collections.preload.jemalloc.plugins.module_utils import _malloc_conf as malloc_conf

            release = self.of(wanted)
            try:
                found["MALLOC_CONF"] = malloc_conf.encode(wanted.malloc_conf, release, self.built.get(release))
            except JemallocError as error:
                raise JemallocError(f"containers: {wanted}: {error}") from error
        return found

    def named_in(self, text: t.Optional[str]) -> t.Optional[str]:
        """Return the release that a file of ours names, None for none."""
        found = re.search(rf"{re.escape(self.prefix)}/([^/\s]+)/lib/libjemalloc\.so", text or "")
        return (self.current if found.group(1) == "current" else found.group(1)) if found else None


def wanted_containers(entries: t.Sequence[t.Any]) -> t.List[Wanted]:
    """Return the containers that a list of mappings stands for."""
    found: t.Dict[str, Wanted] = {}
    for entry in entries:
        wanted = _wanted(entry)
        if found.setdefault(str(wanted), wanted) != wanted:
            raise JemallocError(f"containers: {wanted} is listed twice, with different settings; keep one of them.")
    return list(found.values())


def _wanted(entry: t.Any) -> Wanted:
    """Return what one entry stands for."""
    known = [each.name for each in dataclasses.fields(Wanted)]
    given = {key: value for key, value in entry.items() if value is not None} if isinstance(entry, dict) else {}
    unknown = [str(key) for key in given if key not in known]
    if unknown or not set(given) & {"quadlet", "compose"}:
        what = f"has no key {', '.join(unknown)}" if unknown else "names a quadlet, or a compose file and its service"
        raise JemallocError(f"containers: {entry!r}: an entry {what}; it has {', '.join(known)}.")
    if "version" in given:
        given["version"] = catalogue.check_number(str(given["version"]))
    if "malloc_conf" in given:
        from ansible_collections.preload.jemalloc.plugins.module_utils import _malloc_conf as malloc_conf

        with about(f"containers: {entry!r}"):
            given["malloc_conf"] = malloc_conf.options_of(given["malloc_conf"])
    return Wanted(**{**given, **(_compose(entry) if "compose" in given else _quadlet(entry))})


def _quadlet(entry: t.Mapping[str, t.Any]) -> t.Dict[str, str]:
    """Return what names a quadlet: web stands for web.container."""
    name = str(entry["quadlet"])
    full = name if name.endswith(_QUADLET) else f"{name}{_QUADLET}"
    if not systemd.is_name(full) or "service" in entry:
        raise JemallocError(
            f"containers: {entry!r}: quadlet is to be the name of a file such as web.container, without its directory "
            "and without a service."
        )
    return {"quadlet": full}


def _compose(entry: t.Mapping[str, t.Any]) -> t.Dict[str, str]:
    """Return what names a service of a compose file."""
    path, service = str(entry["compose"]), str(entry.get("service", ""))
    if not os.path.isabs(path) or not _SERVICE.fullmatch(service) or "quadlet" in entry:
        raise JemallocError(
            f"containers: {entry!r}: compose is to be the path of a compose file, with the name of a service in it as "
            "service and no quadlet."
        )
    return {"compose": os.path.normpath(path), "service": service}


def check_restore(before: t.Mapping[str, t.Optional[str]]) -> t.Mapping[str, t.Optional[str]]:
    """Return what files are to hold again, as another run returned it; JemallocError for what is none of ours."""
    for path, text in before.items():
        override = ".override." in os.path.basename(path)
        if not (container_files.is_drop_in(path) or override) or not (text or HEADER).startswith(HEADER):
            raise JemallocError(f"restore: {path} is not a file of this module; hand on what it returned as before.")
    return before


def releases(
    prefix: str, versions: t.Sequence[str], promised: t.Sequence[str], current: t.Optional[str], needed: bool
) -> Releases:
    """Return what the store has of the current release, if that is needed, and of others.

    They have to be there, but for those that are promised, which are yet to be installed: current among them is the
    release that is going to be current.
    """
    found = store.read(prefix)
    current = current or found.current
    built: t.Dict[str, t.Optional[t.Mapping[str, t.Any]]] = {}
    for version in [*([current or ""] if needed else []), *versions]:
        if version in promised:
            installation = found.installations.get(version)
        else:
            installation = store.usable(found, version, version if version in versions else "current")
        built[version] = installation.receipt.get("options") if installation else None
    return Releases(prefix, current or "", built)
