"""Scopes: which files say who preloads, what they have to say, and the change of all of them as one transaction."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import glob
import os
import re
import shlex
import typing as t
from dataclasses import dataclass, field

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_files as container_files
from ansible_collections.preload.jemalloc.plugins.module_utils import _environment as environment
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

DROP_IN = changes_util.DROP_IN
Change = changes_util.Change
apply = changes_util.apply

#: In a rendered template this stands for what LD_PRELOAD has to be; only the host knows what foreign entries to keep.
LD_PRELOAD = "@LD_PRELOAD@"

#: In the template of a drop-in this stands for its settings.
SETTINGS = "@SETTINGS@"

# No script of ours that starts another program is as long.
_MOST_OF_A_SCRIPT = 4096

_UNITS = "etc/systemd/system"
_USER_UNITS = "etc/systemd/user"
_MANAGER = f"etc/systemd/system.conf.d/{DROP_IN}"
_ENVIRONMENT = "etc/environment"
_PROFILE = "etc/profile.d/jemalloc.sh"
_COMMANDS = "usr/local/bin"
_LD_SO_PRELOAD = "etc/ld.so.preload"

#: What /etc/ld.so.preload would hold without us: services and commands that are kept out see this in its place.
_LD_SO_PRELOAD_WITHOUT = "etc/ld.so.preload.without-jemalloc"

#: The wrappers that are on the PATH as links into the current installation.
WRAPPERS = ("jemalloc.sh", "no-jemalloc.sh")

# Stands in every file of ours; one of the same name without it is somebody else's.
_MARK = "preload.jemalloc"

# What the first line of our part of a shared file adds, so that taking it out gives back the very bytes from before.
_BEGIN = "# BEGIN preload.jemalloc"
_END = "# END preload.jemalloc"
_FILE_MADE = " (made this file)"
_NO_NEWLINE = " (after a line without its end)"

# Our part: the line that it is for makes it ours, whatever somebody wrote into it, and also where its end is gone.
_PART = re.compile(
    rf"^{_BEGIN}(|{re.escape(_FILE_MADE)}|{re.escape(_NO_NEWLINE)})\nLD_PRELOAD=.*(?:\n|\Z)((?s:.*?))(?:^{_END}$\n?|\Z)",
    re.MULTILINE,
)

# Our line in the list of the dynamic linker: it takes a colon for a blank, so that two at the end mark the line, and
# one more says that we made the file. No comment: with more than one in the file it takes later ones for names.
_LINE = re.compile(r"^[^\s:#]+/lib/libjemalloc\.so::(:?)(?:\n|\Z)", re.MULTILINE)

#: The ways to preload for the whole host: the environment that systemd and PAM give, or the dynamic linker's own list.
VIA = ("environment", "ld_so_preload")


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
    known. commands has the names of commands that are kept out, each with the program that it stands for.
    """

    host: t.Optional[str] = None
    units: t.Sequence[systemd.Unit] = ()
    excluded: t.Sequence[systemd.Unit] = ()
    commands: t.Mapping[str, str] = field(default_factory=dict)
    current: str = ""
    releases: t.Mapping[str, t.Optional[t.Mapping[str, t.Any]]] = field(default_factory=dict)

    def release(self, unit: systemd.Unit) -> str:
        """Return the release that a service is to preload."""
        return unit.wanted.version or self.current


def others(prefix: str, foreign: str) -> str:
    """Return a value of LD_PRELOAD without our entries."""
    return ":".join(entry for entry in environment.entries(foreign) if not entry.startswith(f"{prefix}/"))


def in_front(prefix: str, foreign: str, version: str = "current") -> str:
    """Return the value of LD_PRELOAD with our library in front of foreign entries; entries of ours are not repeated."""
    rest = others(prefix, foreign)
    own = store.library(prefix, version)
    return f"{own}:{rest}" if rest else own


def drop_in_path(unit: str, user: bool = False, root: str = "/") -> str:
    """Return the path of our drop-in of a unit, or of one that users' own systemd runs."""
    return os.path.join(root, _USER_UNITS if user else _UNITS, f"{unit}.d", DROP_IN)


def present_drop_ins(root: str = "/") -> t.List[str]:
    """Return the paths of our drop-ins that are there."""
    found = [glob.glob(os.path.join(root, units, "*.service.d", DROP_IN)) for units in (_UNITS, _USER_UNITS)]
    return sorted(path for paths in found for path in paths)


def unit_of_drop_in(path: str) -> str:
    """Return the unit that a drop-in belongs to."""
    return os.path.basename(os.path.dirname(path))[: -len(".d")]


def is_user_drop_in(path: str) -> bool:
    """Whether a drop-in belongs to a unit that users' own systemd runs."""
    return os.path.dirname(os.path.dirname(path)).endswith(_USER_UNITS)


def host_files(root: str = "/") -> t.Dict[str, str]:
    """Return the paths of the files for more than one service that can be ours, or in part, each with its scope."""
    kinds = {_MANAGER: "host", _ENVIRONMENT: "login", _PROFILE: "login", _LD_SO_PRELOAD: "ld_so_preload"}
    kinds[_LD_SO_PRELOAD_WITHOUT] = "ld_so_preload"
    return {os.path.realpath(os.path.join(root, path)): kind for path, kind in kinds.items()}


def wrapper_links(prefix: str, root: str = "/") -> t.List[str]:
    """Return the links of ours to wrappers on the PATH."""
    paths = {name: os.path.join(root, _COMMANDS, name) for name in WRAPPERS}
    targets = {path: f"{prefix}/current/bin/{name}" for name, path in paths.items() if os.path.islink(path)}
    return [path for path, target in targets.items() if os.readlink(path) == target]


def is_ours(text: str) -> bool:
    """Whether a file with this text is of this collection, or a part of it is."""
    return _MARK in text or bool(_LINE.search(text))


def references(directory: str, root: str = "/") -> t.List[str]:
    """Return the files that refer to something below a directory: to a store or to one of its installations."""
    paths = [os.path.join(root, _MANAGER), *present_drop_ins(root), os.path.join(root, _ENVIRONMENT)]
    paths += container_files.present(root)
    found = []
    for path in paths:
        text = files.read_text(path) or ""
        if _MARK in text and f"{directory}/" in text:
            found.append(path)
    # Whoever wrote it: without the library every program would complain, or with half of it not start.
    preloaded = os.path.join(root, _LD_SO_PRELOAD)
    return found + ([preloaded] if f"{directory}/" in (files.read_text(preloaded) or "") else [])


def service_text(unit: systemd.Unit, template: str, prefix: str, scopes: Scopes) -> str:
    """Return the drop-in of a service: a foreign LD_PRELOAD from its unit files stays, behind ours.

    What an environment file sets would win over the drop-in without a word, so it is refused.
    """
    names = ("LD_PRELOAD", "MALLOC_CONF") if unit.wanted.malloc_conf else ("LD_PRELOAD",)
    for path in [each for pattern in unit.environment_files for each in sorted(glob.glob(pattern))]:
        for name in names:
            value = environment.file_value(files.read_text(path) or "", name)
            if value is not None:
                raise JemallocError(
                    f"services: {path} sets {name}={value} for {unit.name} and would win over our drop-in; "
                    f"take that line out, or write it as Environment= in a drop-in of {unit.name}."
                )
    lines = [assignment("LD_PRELOAD", in_front(prefix, foreign_entries(unit), unit.wanted.version or "current"))]
    if unit.wanted.malloc_conf:
        from ansible_collections.preload.jemalloc.plugins.module_utils import _malloc_conf as malloc_conf

        value = malloc_conf.of_service(unit, scopes.release(unit), scopes.releases)
        lines.append(assignment("MALLOC_CONF", value.replace("%", "%%")))
    return template.replace(SETTINGS, "\n".join(lines))


def excluded_text(
    unit: systemd.Unit, template: str, prefix: str, host: t.Optional[str], rest: t.Optional[str], root: str = "/"
) -> str:
    """Return the drop-in of a service that is kept out: what it preloads itself stays.

    rest is the list of the dynamic linker without us, None when there is none.
    """
    foreign = others(prefix, foreign_entries(unit))
    lines = [assignment("LD_PRELOAD", foreign) if foreign else "UnsetEnvironment=LD_PRELOAD"]
    if host == "ld_so_preload":
        # The dynamic linker reads its list before anything else: only another file in its place keeps it away. Where
        # the list is ours alone none is needed, and systemd makes none where it is gone already, as a bind would.
        without, preloaded = (os.path.join(root, name) for name in (_LD_SO_PRELOAD_WITHOUT, _LD_SO_PRELOAD))
        none = rest is None
        lines.append(f"InaccessiblePaths=-{preloaded}" if none else f"BindReadOnlyPaths=-{without}:{preloaded}")
    return template.replace(SETTINGS, "\n".join(lines))


def foreign_entries(unit: systemd.Unit) -> str:
    """Return the LD_PRELOAD of a service's own unit files, ours left out."""
    ours = drop_in_path(unit.name, unit.user)
    texts = [files.read_text(path) or "" for path in unit.unit_files if path != ours]
    return environment.setting(texts, "Service", "Environment", "LD_PRELOAD")


def assignment(name: str, value: str) -> str:
    """Return a line of a unit file that sets a variable; % stays, as a foreign value may mean a specifier by it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'Environment="{name}={escaped}"'


def preloaded_without(text: t.Optional[str]) -> t.Optional[str]:
    """Return the text of /etc/ld.so.preload without our line: byte for byte what it was before."""
    line = _LINE.search(text or "")
    if not text or not line:
        return text
    rest = text[: line.start()] + text[line.end() :]
    return rest if rest or not line.group(1) else None


def preloaded_with(text: t.Optional[str], prefix: str) -> str:
    """Return the text of /etc/ld.so.preload with our line in front."""
    rest = preloaded_without(text)
    if sum("#" in line for line in (rest or "").split("\n")) > 1:
        raise JemallocError(
            "via: /etc/ld.so.preload has more than one comment, and glibc takes later ones for names of libraries when "
            "a line is added; leave one of them."
        )
    return f"{store.library(prefix)}::{':' if rest is None else ''}\n{rest or ''}"


def environment_without(text: t.Optional[str]) -> t.Optional[str]:
    """Return a shared file's text without our part: byte for byte what it was before."""
    part = _PART.search(text or "")
    if not text or not part:
        return text
    note, inside = part.groups()
    before, after = text[: part.start()], inside + text[part.end() :]
    if note == _NO_NEWLINE and not after:
        before = before[:-1]
    return None if note == _FILE_MADE and not before + after else before + after


def environment_with(text: t.Optional[str], part: str, prefix: str) -> str:
    """Return a shared file's text with our part at its end, where it counts over an earlier LD_PRELOAD."""
    rest = environment_without(text)
    note = _FILE_MADE if rest is None else ""
    rest = rest or ""
    if rest and not rest.endswith("\n"):
        rest, note = f"{rest}\n", _NO_NEWLINE
    foreign = environment.login_value(rest, "LD_PRELOAD")
    return f"{rest}{_BEGIN}{note}\n{part.rstrip().replace(LD_PRELOAD, in_front(prefix, foreign))}\n{_END}\n"


def plan(
    scopes: Scopes, texts: t.Optional[Texts], prefix: str, root: str = "/"
) -> t.Tuple[t.List[Change], t.List[str]]:
    """Return the changes that make the scopes of this host what is wanted, and what is foreign and left alone.

    Without texts nothing of ours is wanted any more. The changes are in an order in which a run can be killed between
    any two of them: nothing ever depends on what is not there yet, or not any more.
    """
    wanted: t.Dict[str, t.Optional[str]] = dict.fromkeys(present_drop_ins(root))
    manager, login = os.path.join(root, _MANAGER), os.path.realpath(os.path.join(root, _ENVIRONMENT))
    profile, preloaded = os.path.join(root, _PROFILE), list_path(root)
    without = os.path.join(root, _LD_SO_PRELOAD_WITHOUT)
    rest = preloaded_without(files.read_text(preloaded))
    wanted.update({manager: None, login: environment_without(files.read_text(login)), profile: None})
    wanted.update({without: None, preloaded: rest, **dict.fromkeys(present_commands(root))})
    if texts:
        for unit in scopes.units:
            wanted[drop_in_path(unit.name, unit.user, root)] = service_text(unit, texts.service, prefix, scopes)
        for unit in scopes.excluded:
            text = excluded_text(unit, texts.service, prefix, scopes.host, rest, root)
            wanted[drop_in_path(unit.name, unit.user, root)] = text
        for name, program in scopes.commands.items():
            wanted[os.path.join(root, _COMMANDS, name)] = command_text(program, root)
        if scopes.host == "environment":
            settings = systemd.manager_texts(DROP_IN, root)
            value = environment.setting(settings, "Manager", "DefaultEnvironment", "LD_PRELOAD")
            if systemd.is_running(root):
                text = assignment("LD_PRELOAD", in_front(prefix, value)).partition("=")[2]
                wanted[manager] = texts.manager.replace(SETTINGS, f"DefaultEnvironment={text}")
            wanted[login] = environment_with(files.read_text(login), texts.environment, prefix)
        elif scopes.host == "ld_so_preload":
            wanted[without] = rest or ""
            wanted[preloaded] = preloaded_with(files.read_text(preloaded), prefix)
        wanted[profile] = texts.profile
    foreign = []
    if _MARK not in (files.read_text(profile) or _MARK):
        del wanted[profile]
        foreign += [profile] if texts else []
    found = [Change(path, files.read_text(path), after, mode=_mode(path, root)) for path, after in wanted.items()]
    for name in WRAPPERS:
        change = _link(name, prefix, bool(texts), root)
        found += [change] if change else []
        foreign += [os.path.join(root, _COMMANDS, name)] if texts and not change else []
    changes = [change for change in found if change.before != change.after]
    return sorted(changes, key=lambda change: _rank(change, root)), foreign


def plan_restored(before: t.Mapping[str, t.Optional[str]], root: str = "/") -> t.List[Change]:
    """Return the changes that give files back what they held before another run, as it returned that.

    In files that others write to as well only our part comes back or goes: what they wrote meanwhile stays.
    """
    login, listed = os.path.realpath(os.path.join(root, _ENVIRONMENT)), list_path(root)
    fixed = {os.path.join(root, name) for name in (_MANAGER, _PROFILE, _LD_SO_PRELOAD_WITHOUT)} | {login, listed}
    changes = []
    for path, text in before.items():
        directory, name = os.path.split(path)
        command = directory == os.path.join(root, _COMMANDS)
        units = {os.path.join(root, units) for units in (_UNITS, _USER_UNITS)}
        if path not in fixed and not command and not (name == DROP_IN and os.path.dirname(directory) in units):
            raise JemallocError(f"restore: {path} is not a file of this module; hand on what it returned as before.")
        link = command and name in WRAPPERS
        now = (os.readlink(path) if os.path.islink(path) else None) if link else files.read_text(path)
        if path == login and _BEGIN not in (text or ""):
            text = environment_without(now)
        elif path == listed and not _LINE.search(text or ""):
            text = preloaded_without(now)
        if now != text:
            changes.append(Change(path, now, text, link, _mode(path, root)))
    return sorted(changes, key=lambda change: _rank(change, root))


def _rank(change: Change, root: str) -> int:
    """Return when it is a change's turn: what others need comes before them and goes after them."""
    if change.path == list_path(root):
        return 5 if _LINE.search(change.after or "") else 0
    if change.path == os.path.join(root, _LD_SO_PRELOAD_WITHOUT):
        return 1 if change.after is not None else 4
    if os.path.dirname(change.path) == os.path.join(root, _COMMANDS):  # scripts of what is kept out need the wrapper
        return 3 if change.link == (change.after is None) else 2
    return 2


def list_path(root: str = "/") -> str:
    """Return the path of the list of the dynamic linker, the file itself where it is a link."""
    return os.path.realpath(os.path.join(root, _LD_SO_PRELOAD))


def is_guarded(change: Change, root: str = "/") -> bool:
    """Whether a change puts our line into the list of the dynamic linker, which only the watchdog does."""
    return change.path == list_path(root) and bool(_LINE.search(change.after or ""))


def clear_leftovers(root: str = "/") -> None:
    """Clear what a killed run left where this collection has files, whatever they are to be now."""
    changes_util.take_back_trial(list_path(root))
    shared = [list_path(root), os.path.realpath(os.path.join(root, _ENVIRONMENT))]
    own = [os.path.join(root, path) for path in (_MANAGER, _PROFILE, _LD_SO_PRELOAD_WITHOUT)]
    units = [os.path.join(root, directory) for directory in (_UNITS, _USER_UNITS)]
    places = [*map(os.path.dirname, [*shared, *own, os.path.dirname(own[0])]), os.path.join(root, _COMMANDS), *units]
    places += [path for directory in units for path in glob.glob(f"{directory}/*.service.d")]
    for place in places:
        for path in glob.glob(f"{glob.escape(place)}/.*{files.TEMPORARY_SUFFIX}"):
            files.remove_tree(path)


def _mode(path: str, root: str) -> int:
    """Return the mode of a file that is made."""
    return 0o755 if os.path.dirname(path) == os.path.join(root, _COMMANDS) else 0o644


def present_commands(root: str = "/") -> t.List[str]:
    """Return the paths of commands that we keep out: scripts of ours that start the program by no-jemalloc.sh."""
    found = []
    for path in glob.glob(os.path.join(root, _COMMANDS, "*")):
        if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) < _MOST_OF_A_SCRIPT:
            found += [path] if f"# Managed by the Ansible collection {_MARK};" in (files.read_text(path) or "") else []
    return sorted(found)


def command_text(program: str, root: str = "/") -> str:
    """Return the script that stands in front of a program which is kept out."""
    wrapper = os.path.join(root, _COMMANDS, WRAPPERS[1])
    return (
        f"#!/bin/sh\n# Managed by the Ansible collection {_MARK}; changes made here are lost.\n"
        f'exec {wrapper} {shlex.quote(program)} "$@"\n'
    )


def command_path(name: str, root: str = "/") -> str:
    """Return the path of the script that stands in front of a command."""
    return os.path.join(root, _COMMANDS, name)


def find_command(name: str, path: str, root: str = "/") -> str:
    """Return the program that a command is, which is the first on a PATH that is not ours; empty when there is none."""
    ours = os.path.join(root, _COMMANDS)
    directories = [directory for directory in path.split(":") if directory and os.path.realpath(directory) != ours]
    found = (os.path.join(directory, name) for directory in directories)
    return next((each for each in found if os.path.isfile(each) and os.access(each, os.X_OK)), "")


def _link(name: str, prefix: str, wanted: bool, root: str) -> t.Optional[Change]:
    """Return the change of a wrapper's link on the PATH; None: somebody else's command of that name is left alone."""
    path, target = os.path.join(root, _COMMANDS, name), f"{prefix}/current/bin/{name}"
    before = os.readlink(path) if os.path.islink(path) else None
    if os.path.lexists(path) and before != target:
        return None
    return Change(path, before, target if wanted else None, link=True)
