"""Scopes: who preloads, and the changes of all files that say so as one plan."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import glob
import os
import typing as t
from dataclasses import dataclass, field

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _contents as contents
from ansible_collections.preload.jemalloc.plugins.module_utils import _environment as environment
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._changes import DROP_IN, Change
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

#: The ways to preload for the whole host: the environment that systemd and PAM give, or the dynamic linker's own list.
VIA = ("environment", "ld_so_preload")

#: The scopes that stay as the host has them when their option is not set, or adds to them only.
SCOPES = ("host", "services", "exclude")


@dataclass(frozen=True)
class Texts:
    """The rendered templates of the role: the drop-in of a service, and those of the host's own files."""

    service: str
    manager: str
    environment: str
    profile: str


@dataclass(frozen=True)
class Scopes:
    """Who is to preload: the host (by one of VIA, None: not at all) and services; and who is kept out.

    releases has what is current and what services ask for, each with the options of its build, None where they are not
    known. commands has the names of commands that are kept out, each with the program that it stands for. kept has
    those of SCOPES that keep what the host has of them. conf is the MALLOC_CONF of the whole host.
    """

    host: t.Optional[str] = None
    units: t.Sequence[systemd.Unit] = ()
    excluded: t.Sequence[systemd.Unit] = ()
    commands: t.Mapping[str, str] = field(default_factory=dict)
    current: str = ""
    releases: t.Mapping[str, t.Optional[t.Mapping[str, t.Any]]] = field(default_factory=dict)
    kept: t.Collection[str] = ()
    conf: str = ""

    def release(self, unit: systemd.Unit) -> str:
        """Return the release that a service is to preload."""
        return unit.wanted.version or self.current


def service_text(unit: systemd.Unit, template: str, prefix: str, scopes: Scopes) -> str:
    """Return the drop-in of a service: a foreign LD_PRELOAD from its unit files stays, behind ours.

    What an environment file sets would win over the drop-in without a word, so it is refused.
    """
    names = ["LD_PRELOAD", *(["MALLOC_CONF"] if unit.wanted.malloc_conf else []), *unit.wanted.environment]
    for path in [each for pattern in unit.environment_files for each in sorted(glob.glob(pattern))]:
        for name in names:
            value = environment.file_value(files.read_text(path) or "", name)
            if value is not None:
                raise JemallocError(
                    f"services: {path} sets {name} for {unit.name} and would win over our drop-in; "
                    f"take that line out, or write it as Environment= in a drop-in of {unit.name}."
                )
    ld_preload = contents.in_front(prefix, foreign_entries(unit), unit.wanted.version or "current")
    lines = [contents.assignment("LD_PRELOAD", ld_preload)]
    if unit.wanted.malloc_conf:
        from ansible_collections.preload.jemalloc.plugins.module_utils import _malloc_conf as malloc_conf

        value = malloc_conf.of_service(unit, scopes.release(unit), scopes.releases)
        lines.append(contents.assignment("MALLOC_CONF", value.replace("%", "%%")))
    for name, value in unit.wanted.environment.items():
        lines.append(contents.assignment(name, value.replace("%", "%%")))
    return template.replace(contents.SETTINGS, "\n".join(lines))


def excluded_text(
    unit: systemd.Unit, template: str, prefix: str, host: t.Optional[str], rest: t.Optional[str], root: str = "/"
) -> str:
    """Return the drop-in of a service that is kept out: what it preloads itself stays.

    rest is the list of the dynamic linker without us, None when there is none.
    """
    foreign = contents.others(prefix, foreign_entries(unit))
    lines = [contents.assignment("LD_PRELOAD", foreign) if foreign else "UnsetEnvironment=LD_PRELOAD"]
    if host == "ld_so_preload":
        # The dynamic linker reads its list before anything else: only another file in its place keeps it away. Where
        # the list is ours alone none is needed, and systemd makes none where it is gone already, as a bind would.
        without, preloaded = places.without_path(root), places.list_name(root)
        none = rest is None
        lines.append(f"InaccessiblePaths=-{preloaded}" if none else f"BindReadOnlyPaths=-{without}:{preloaded}")
    return template.replace(contents.SETTINGS, "\n".join(lines))


def foreign_entries(unit: systemd.Unit) -> str:
    """Return the LD_PRELOAD of a service's own unit files, ours left out."""
    texts = [files.read_text(path) or "" for path in unit.foreign_files]
    return environment.setting(texts, "Service", "Environment", "LD_PRELOAD")


def plan(
    scopes: Scopes, texts: t.Optional[Texts], prefix: str, root: str = "/"
) -> t.Tuple[t.List[Change], t.List[str]]:
    """Return the changes that make the scopes of this host what is wanted, and what is foreign and left alone.

    Without texts nothing of ours is wanted any more. The changes are in an order in which a run can be killed between
    any two of them: nothing ever depends on what is not there yet, or not any more.
    """
    wanted = _without_us(root)
    if texts:
        wanted.update(_kept(scopes.kept, root))
        wanted.update(_of_services(scopes, texts, prefix, root))
        wanted.update(_of_host(scopes, texts, prefix, root))
    profile, foreign = places.profile_path(root), []
    if contents.MARK not in (files.read_text(profile) or contents.MARK):
        del wanted[profile]
        foreign += [profile] if texts else []
    found = [Change(path, files.read_text(path), after, mode=_mode(path, root)) for path, after in wanted.items()]
    for name in places.WRAPPERS:
        change = _link(name, prefix, bool(texts), root)
        found += [change] if change else []
        foreign += [places.command_path(name, root)] if texts and not change else []
    changes = [change for change in found if change.before != change.after]
    return sorted(changes, key=lambda change: _rank(change, root)), foreign


def _without_us(root: str) -> t.Dict[str, t.Optional[str]]:
    """Return what all files that can be ours, or in part, hold without us."""
    login, listed = places.login_path(root), places.list_path(root)
    return {
        **dict.fromkeys(places.present_drop_ins(root)),
        places.manager_path(root): None,
        login: contents.environment_without(files.read_text(login)),
        places.profile_path(root): None,
        places.without_path(root): None,
        listed: contents.preloaded_without(files.read_text(listed)),
        **dict.fromkeys(places.present_commands(root)),
    }


def _kept(kept: t.Collection[str], root: str) -> t.Dict[str, t.Optional[str]]:
    """Return the files of scopes that keep what the host has of them, each with its present text."""
    paths = [path for kind in ("services", "exclude") if kind in kept for path in present(kind, root)]
    if "exclude" in kept:
        paths += places.present_commands(root)
    if "host" in kept:
        paths += [places.manager_path(root), places.login_path(root), places.without_path(root), places.list_path(root)]
    return {path: files.read_text(path) for path in paths}


def present(kind: str, root: str = "/") -> t.List[str]:
    """Return the managed drop-ins by which services preload the library, or with exclude do not."""
    paths = places.present_drop_ins(root)
    return [path for path in paths if contents.preloads(files.read_text(path)) == (kind == "services")]


def present_via(root: str = "/") -> t.Optional[str]:
    """Return how the whole host preloads the library, one of VIA; None: it does not."""
    if contents.has_line(files.read_text(places.list_path(root))):
        return "ld_so_preload"
    login = contents.part(files.read_text(places.login_path(root)))
    return "environment" if login or os.path.exists(places.manager_path(root)) else None


def _of_services(scopes: Scopes, texts: Texts, prefix: str, root: str) -> t.Dict[str, str]:
    """Return what the files of services and commands are to hold."""
    rest = contents.preloaded_without(files.read_text(places.list_path(root)))
    wanted = {}
    for unit in scopes.units:
        wanted[places.drop_in_path(unit.name, unit.user, root)] = service_text(unit, texts.service, prefix, scopes)
    for unit in scopes.excluded:
        text = excluded_text(unit, texts.service, prefix, scopes.host, rest, root)
        wanted[places.drop_in_path(unit.name, unit.user, root)] = text
    wrapper = places.command_path(places.WRAPPERS[1], root)
    for name, program in scopes.commands.items():
        wanted[places.command_path(name, root)] = contents.command_text(program, wrapper)
    return wanted


def _of_host(scopes: Scopes, texts: Texts, prefix: str, root: str) -> t.Dict[str, str]:
    """Return what the files for more than one service are to hold, with the whole host as a scope or without."""
    enabled = "true" if scopes.host == "environment" else ""
    wanted = {places.profile_path(root): texts.profile.replace(contents.ENABLED, enabled)}
    if "host" in scopes.kept:
        return wanted
    if scopes.host == "environment":
        if systemd.is_running(root):
            settings = systemd.manager_texts(DROP_IN, root)
            value = environment.setting(settings, "Manager", "DefaultEnvironment", "LD_PRELOAD")
            lines = [contents.assignment("LD_PRELOAD", contents.in_front(prefix, value))]
            lines += [contents.assignment("MALLOC_CONF", scopes.conf.replace("%", "%%"))] if scopes.conf else []
            text = "\n".join(f"Default{line}" for line in lines)
            wanted[places.manager_path(root)] = texts.manager.replace(contents.SETTINGS, text)
        login = places.login_path(root)
        wanted[login] = contents.environment_with(files.read_text(login), texts.environment, prefix, scopes.conf)
    elif scopes.host == "ld_so_preload":
        before = files.read_text(places.list_path(root))
        wanted[places.without_path(root)] = contents.preloaded_without(before) or ""
        wanted[places.list_path(root)] = contents.preloaded_with(before, prefix)
    return wanted


def plan_restored(
    before: t.Mapping[str, t.Optional[str]], written: t.Mapping[str, str], root: str = "/"
) -> t.Tuple[t.List[Change], t.List[str]]:
    """Return the changes that restore what files held before another run, and the files that somebody changed since.

    before and written are what that run returned. In shared files only our part is restored.
    """
    from ansible_collections.preload.jemalloc.plugins.module_utils import _undo as undo

    login, listed = places.login_path(root), places.list_path(root)
    changes, left = [], []
    for path, text in before.items():
        if not places.is_known(path, root):
            raise JemallocError(f"restore: {path} is not a file of this module; hand on what it returned as before.")
        now = undo.text_at(path, root)
        if path == login:
            text = contents.environment_restored(now, text)
        elif path == listed:
            text = contents.preloaded_restored(now, text)
        elif path == places.without_path(root) and text is not None:
            text = contents.preloaded_without(files.read_text(listed)) or ""
        if now == text:
            continue
        if path in written and undo.fingerprint(path, now, root) != written[path]:
            left.append(path)
            continue
        changes.append(Change(path, now, text, undo.is_link(path, root), _mode(path, root)))
    return sorted(changes, key=lambda change: _rank(change, root)), left


def _rank(change: Change, root: str) -> int:
    """Return when it is a change's turn: what others need comes before them and goes after them."""
    if change.path == places.list_path(root):
        return 5 if contents.has_line(change.after) else 0
    if change.path == places.without_path(root):
        return 1 if change.after is not None else 4
    if places.is_command(change.path, root):  # scripts of what is kept out need the wrapper
        return 3 if change.link == (change.after is None) else 2
    return 2


def is_guarded(change: Change, root: str = "/") -> bool:
    """Whether a change puts our line into the list of the dynamic linker, which only the watchdog does."""
    return change.path == places.list_path(root) and contents.has_line(change.after)


def leftovers(root: str = "/") -> t.List[str]:
    """Return what only a run that is at work, or was killed, has where this collection has files."""
    return files.leftovers(places.directories(root))


def clear_leftovers(root: str = "/") -> None:
    """Clear what a killed run left, whatever files of this collection are to be there now."""
    if contents.has_line(files.read_text(places.list_path(root))):  # and nobody took it out by hand
        changes_util.take_back_trial(places.list_path(root))
    for path in leftovers(root):
        files.remove_tree(path)


def _mode(path: str, root: str) -> int:
    """Return the mode of a file that is made."""
    return 0o755 if places.is_command(path, root) else 0o644


def _link(name: str, prefix: str, wanted: bool, root: str) -> t.Optional[Change]:
    """Return the change of a wrapper's link on the PATH; None: somebody else's command of that name is left alone."""
    path, target = places.command_path(name, root), f"{prefix}/current/bin/{name}"
    before = os.readlink(path) if os.path.islink(path) else None
    if os.path.lexists(path) and before != target:
        return None
    return Change(path, before, target if wanted else None, link=True)
