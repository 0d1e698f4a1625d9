"""Which files of a host preload something, ours and others, and which release a unit is to run with by them."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import glob
import os
import re
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _cgroups as cgroups
from ansible_collections.preload.jemalloc.plugins.module_utils import _contents as contents
from ansible_collections.preload.jemalloc.plugins.module_utils import _environment as environment
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd

# A service whose own command is started by the wrapper.
_WRAPPER = re.compile(r"(?:^[-@:+!]*|\s)(?:\S*/)?(?<!no-)jemalloc\.sh\s")

_VARIABLES = ("LD_PRELOAD", "MALLOC_CONF")

# Ends the name of the list of the dynamic linker as it would be without us.
_WITHOUT = ".without-jemalloc"


class Scope(t.NamedTuple):
    """A file that says what is preloaded, for whom, and whether it is ours, or in part; changed is in epoch seconds."""

    path: str
    kind: str
    unit: str = ""
    ours: bool = False
    preloads: t.Tuple[str, ...] = ()
    malloc_conf: str = ""
    changed: float = 0


class Wish(t.NamedTuple):
    """What a unit is to run with: a release, nothing for none, by which scope; and since when, in epoch seconds."""

    release: str = ""
    scope: t.Optional[Scope] = None
    since: float = 0


class Reader:
    """Reads files as far as they can be read, and remembers those that cannot."""

    def __init__(self) -> None:
        self.unreadable: t.List[str] = []

    def text(self, path: str) -> str:
        """Return the text of a file, nothing when there is none, it is no regular one, or it cannot be read."""
        try:
            return (files.read_text(path) or "") if os.path.isfile(path) else ""
        except PermissionError:
            self.unreadable.append(path)
            return ""


def scopes(reader: Reader, prefix: str, root: str = "/") -> t.List[Scope]:
    """Return all files that preload something or that are ours."""
    found = [*_of_host(reader, root), *_of_services(reader, prefix, False, root)]
    found += _of_services(reader, prefix, True, root)
    for path in [*places.present_commands(root), *places.wrapper_links(prefix, root)]:
        found.append(Scope(path, "command", ours=True))
    return [scope._replace(changed=_changed(scope.path)) for scope in found if scope.ours or scope.preloads]


def _of_host(reader: Reader, root: str) -> t.Iterator[Scope]:
    """Yield the files for more than a service."""
    kinds = places.host_files(root)
    kinds.update(dict.fromkeys(systemd.manager_files(root), "host"))
    for path, kind in kinds.items():
        text = reader.text(path)
        yield Scope(path, kind, "", _is_ours(path, text), *_VALUES[kind](path, text))


def _is_ours(path: str, text: str) -> bool:
    """Whether a file for more than a service is ours, or in part; the list of what others preload holds only theirs."""
    return contents.is_ours(text) or (path.endswith(_WITHOUT) and os.path.lexists(path))


def _of_manager(_path: str, text: str) -> t.Tuple[t.Tuple[str, ...], str]:
    value, conf = (environment.setting([text], "Manager", "DefaultEnvironment", name) for name in _VARIABLES)
    return tuple(environment.entries(value)), conf.replace("%%", "%")


def _of_login(path: str, text: str) -> t.Tuple[t.Tuple[str, ...], str]:
    if path.endswith(".sh"):  # a script, which decides only when it runs
        return (), ""
    value, conf = (environment.login_value(text, name) for name in _VARIABLES)
    return tuple(environment.entries(value)), conf


def _of_list(_path: str, text: str) -> t.Tuple[t.Tuple[str, ...], str]:
    # the dynamic linker takes all blanks for separators here, and what follows a # for a comment
    return tuple(environment.entries(" ".join(re.sub(r"#.*", "", text).split()))), ""


_VALUES = {"host": _of_manager, "login": _of_login, "ld_so_preload": _of_list}


def _of_services(reader: Reader, prefix: str, user: bool, root: str) -> t.Iterator[Scope]:
    """Yield the files of services, and the environment files that these name."""
    ours = set(places.present_drop_ins(root))
    kind = "user_service" if user else "service"
    for name, path in systemd.unit_files(user, root).items():
        text = reader.text(path)
        if path not in ours and not any(word in text for word in ("LD_PRELOAD", "EnvironmentFile", "jemalloc.sh")):
            continue
        unit = name.split("/")[0]
        unit = unit[: -len(".d")] if unit.endswith(".d") else unit
        unit = "" if unit == "service" else unit  # service.d is for all
        value, conf = (environment.setting([text], "Service", "Environment", each) for each in _VARIABLES)
        preloads = tuple(environment.entries(value))
        if any(_WRAPPER.search(command) for command in environment.assigned([text], "Service", "ExecStart")):
            release = environment.setting([text], "Service", "Environment", "JEMALLOC_VERSION")
            preloads = (store.library(prefix, release or "current"), *preloads)
        yield Scope(path, kind, unit, path in ours, preloads, conf.replace("%%", "%"))
        for pattern in environment.assigned([text], "Service", "EnvironmentFile"):
            for file in sorted(glob.glob(os.path.join(root, pattern.lstrip("-").lstrip("/")))):
                content = reader.text(file)
                value, conf = (environment.file_value(content, each) or "" for each in _VARIABLES)
                yield Scope(file, kind, unit, False, tuple(environment.entries(value)), conf)


def _changed(path: str) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0


def wish_of(place: cgroups.Place, found: t.Sequence[Scope], prefix: str, current: str) -> Wish:
    """Return what the processes of a place are to run with: what counts for a service goes before the whole host's.

    A container has files of its own. What a login preloads it may decide itself, so that nothing can be said of it.
    """
    if place.container:
        return Wish()
    names = (place.unit, systemd.template_of(place.unit))
    kind = "user_service" if place.scope == "user" else "service"
    own = [scope for scope in found if scope.kind == kind and scope.unit and scope.unit in names]
    # a drop-in of ours has what others preload as well, and one of ours without the library keeps a service out
    for scope in sorted(own, key=lambda scope: (not scope.ours, scope.unit != place.unit)):
        release = release_of(scope.preloads, prefix, current)
        if release or scope.ours:
            return _wish(scope, release, prefix)
    service = place.unit.endswith(".service")
    for scope in found:
        release = release_of(scope.preloads, prefix, current)
        if release and (scope.kind == "ld_so_preload" or (scope.kind == "host" and service)):
            return _wish(scope, release, prefix)
    return Wish()


def _wish(scope: Scope, release: str, prefix: str) -> Wish:
    """Return a wish with its age: where it follows the link current it is at most as old as that."""
    follows = store.library(prefix) in scope.preloads
    return Wish(release, scope, max(scope.changed, _changed(f"{prefix}/current") if follows else 0))


def release_of(preloads: t.Iterable[str], prefix: str, current: str) -> str:
    """Return the release of ours that is among libraries, nothing when there is none."""
    found = (re.fullmatch(rf"{re.escape(prefix)}/([^/]+)/lib/libjemalloc\.so[^/]*", path) for path in preloads)
    release = next((match.group(1) for match in found if match), "")
    return current if release == "current" else release
