"""Scopes: which files say who preloads, what they have to say, and the change of all of them as one transaction."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import glob
import os
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

#: Our drop-ins have this name in whatever directory they stand: so they are found again without a record. It sorts
#: behind others, override.conf of systemctl edit among them: the last one to set LD_PRELOAD counts.
DROP_IN = "zz-preload-jemalloc.conf"

#: In a rendered template this stands for what LD_PRELOAD has to be; only the host knows what foreign entries to keep.
LD_PRELOAD = "@LD_PRELOAD@"

_UNITS = "etc/systemd/system"
_MANAGER = f"etc/systemd/system.conf.d/{DROP_IN}"
_ENVIRONMENT = "etc/environment"
_PROFILE = "etc/profile.d/jemalloc.sh"
_COMMAND = "usr/local/bin/jemalloc.sh"

# Stands in every file of ours; one of the same name without it is somebody else's.
_MARK = "preload.jemalloc"

# What the first line of our part of a shared file adds, so that taking it out gives back the very bytes from before.
_BEGIN = "# BEGIN preload.jemalloc"
_END = "# END preload.jemalloc"
_FILE_MADE = " (made this file)"
_NO_NEWLINE = " (after a line without its end)"


@dataclass(frozen=True)
class Change:
    """One file or link that is going to be different; None stands for not there, a link's text is its target."""

    path: str
    before: t.Optional[str]
    after: t.Optional[str]
    link: bool = False


@dataclass(frozen=True)
class Texts:
    """The rendered templates of the role: the drop-in of a service, and those of the host's own files."""

    service: str
    manager: str
    environment: str
    profile: str


def library(prefix: str) -> str:
    """Return the stable path of the library: the same for every release and through every switch of current."""
    return f"{prefix}/current/lib/libjemalloc.so"


def in_front(prefix: str, foreign: str) -> str:
    """Return the value of LD_PRELOAD with our library in front of foreign entries; entries of ours are not repeated."""
    entries = [entry for entry in foreign.replace(":", " ").split() if not entry.startswith(f"{prefix}/")]
    return ":".join([library(prefix), *entries])


def drop_in_path(unit: str, root: str = "/") -> str:
    """Return the path of our drop-in of a unit."""
    return os.path.join(root, _UNITS, f"{unit}.d", DROP_IN)


def present_drop_ins(root: str = "/") -> t.List[str]:
    """Return the paths of our drop-ins that are there."""
    return sorted(glob.glob(os.path.join(root, _UNITS, "*.service.d", DROP_IN)))


def unit_of_drop_in(path: str) -> str:
    """Return the unit that a drop-in belongs to."""
    return os.path.basename(os.path.dirname(path))[: -len(".d")]


def references(directory: str, root: str = "/") -> t.List[str]:
    """Return the files of ours that refer to something below a directory: to a store or to one of its installations."""
    paths = [os.path.join(root, _MANAGER), *present_drop_ins(root), os.path.join(root, _ENVIRONMENT)]
    found = []
    for path in paths:
        text = files.read_text(path) or ""
        if _MARK in text and f"{directory}/" in text:
            found.append(path)
    return found


def service_text(unit: systemd.Unit, template: str, prefix: str) -> str:
    """Return the drop-in of a service: a foreign LD_PRELOAD from its unit files stays, behind ours.

    What an environment file sets would win over the drop-in without a word, so it is refused.
    """
    for path in unit.environment_files:
        value = systemd.environment_file_value(files.read_text(path) or "", "LD_PRELOAD")
        if value:
            raise JemallocError(
                f"services: {path} sets LD_PRELOAD={value} for {unit.name} and would win over our drop-in; "
                f"take that line out, or write it as Environment= in a drop-in of {unit.name}."
            )
    ours = drop_in_path(unit.name)
    texts = [files.read_text(path) or "" for path in unit.unit_files if path != ours]
    foreign = systemd.setting(texts, "Service", "Environment", "LD_PRELOAD")
    return template.replace(LD_PRELOAD, escape(in_front(prefix, foreign)))


def escape(value: str) -> str:
    """Escape for a double-quoted word of a unit file; % stays, in a foreign value it is a specifier that is meant."""
    return value.replace("\\", "\\\\").replace('"', '\\"')


def environment_without(text: t.Optional[str]) -> t.Optional[str]:
    """Return a shared file's text without our part: byte for byte what it was before."""
    if text is None or _BEGIN not in text:
        return text
    before, _begin, rest = text.partition(_BEGIN)
    inside, _end, after = rest.partition(f"{_END}\n")
    note = inside.splitlines()[0]
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
    foreign = systemd.environment_file_value(rest, "LD_PRELOAD")
    return f"{rest}{_BEGIN}{note}\n{part.replace(LD_PRELOAD, in_front(prefix, foreign)).rstrip()}\n{_END}\n"


def plan(
    units: t.Sequence[systemd.Unit], host: bool, texts: t.Optional[Texts], prefix: str, root: str = "/"
) -> t.Tuple[t.List[Change], t.List[str]]:
    """Return the changes that make the scopes of this host what is wanted, and what is foreign and left alone.

    Without texts nothing of ours is wanted any more. References to the library come first when they are added and
    are taken away first when it goes: no step leaves one that leads nowhere.
    """
    wanted: t.Dict[str, t.Optional[str]] = dict.fromkeys(present_drop_ins(root))
    manager, environment = os.path.join(root, _MANAGER), os.path.realpath(os.path.join(root, _ENVIRONMENT))
    profile = os.path.join(root, _PROFILE)
    wanted.update({manager: None, environment: environment_without(files.read_text(environment)), profile: None})
    if texts:
        for unit in units:
            wanted[drop_in_path(unit.name, root)] = service_text(unit, texts.service, prefix)
        if host:
            value = systemd.setting(systemd.manager_texts(DROP_IN, root), "Manager", "DefaultEnvironment", "LD_PRELOAD")
            if systemd.is_running(root):
                wanted[manager] = texts.manager.replace(LD_PRELOAD, escape(in_front(prefix, value)))
            wanted[environment] = environment_with(files.read_text(environment), texts.environment, prefix)
        wanted[profile] = texts.profile
    command, foreign = _command(prefix, bool(texts), root)
    if _MARK not in (files.read_text(profile) or _MARK):
        del wanted[profile]
        foreign += [profile] if texts else []
    found = [Change(path, files.read_text(path), after) for path, after in wanted.items()]
    return [change for change in [*found, command] if change.before != change.after], foreign


def _command(prefix: str, wanted: bool, root: str) -> t.Tuple[Change, t.List[str]]:
    """Return the change of the wrapper's link on the PATH; somebody else's command of that name is left alone."""
    path, target = os.path.join(root, _COMMAND), f"{prefix}/current/bin/jemalloc.sh"
    before = os.readlink(path) if os.path.islink(path) else None
    if os.path.lexists(path) and before != target:
        return Change(path, None, None, link=True), ([path] if wanted else [])
    return Change(path, before, target if wanted else None, link=True), []


def apply(changes: t.Sequence[Change]) -> None:
    """Make all changes, or on the first that fails take the others back and raise its error."""
    done: t.List[Change] = []
    try:
        for change in changes:
            done.append(change)
            _write(change.path, change.after, change.link)
    except OSError:
        for change in reverse(done):
            _write(change.path, change.after, change.link)
        raise


def reverse(changes: t.Sequence[Change]) -> t.List[Change]:
    """Return the changes that take these back."""
    return [Change(change.path, change.after, change.before, change.link) for change in reversed(changes)]


def _write(path: str, content: t.Optional[str], link: bool) -> None:
    """Bring one file or link to its content; directories of drop-ins come and go with them."""
    directory = os.path.dirname(path)
    if content is None:
        files.remove_file(path)
        if path.endswith(DROP_IN) and os.path.isdir(directory) and not os.listdir(directory):
            os.rmdir(directory)
        return
    if not os.path.isdir(directory):
        os.makedirs(directory)
        os.chmod(directory, 0o755)
    if link:
        files.replace_link(path, content)
        return
    mode = os.stat(path).st_mode & 0o7777 if os.path.exists(path) else 0o644
    files.write_file(path, content.encode("utf-8", "surrogateescape"), mode)
