"""What systemd says of units and of itself, read from its own output and from its files; nothing is changed here."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import dataclasses
import glob
import os
import re
import typing as t
from dataclasses import dataclass, field

from ansible_collections.preload.jemalloc.plugins.module_utils import _entries as entries
from ansible_collections.preload.jemalloc.plugins.module_utils import _environment as environment
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _managers as managers
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run

_PROPERTIES = (
    "Id,LoadState,ActiveState,FragmentPath,DropInPaths,EnvironmentFiles,ExecStart,User,RootDirectory,RootImage,"
    "InaccessiblePaths,TemporaryFileSystem,BindPaths,BindReadOnlyPaths,NoExecPaths,ExecPaths,AppArmorProfile,"
    "RefuseManualStart,RefuseManualStop,CanStart,"
    "CPUQuotaPerSecUSec,AllowedCPUs,CPUAffinity"
)

# systemd.unit(5): letters, digits and :-_.\@ ; the type is what follows the last dot.
_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]+")

# Paths of these characters can stand in unit files as they are; blanks, quotes, % and \ would mean something there.
_PLAIN_PATH = re.compile(r"(/[A-Za-z0-9._+@-]+)+")

# What says in the files of a users' unit which CPUs it may use.
_CPU_SETTINGS = ("CPUQuota", "AllowedCPUs", "CPUAffinity")

# The names of our drop-ins, of a scope and of a profile.
_OWN = ("zz-preload-jemalloc.conf", "zzz-preload-jemalloc-profile.conf")

#: What is_down() judges by.
DOWN = ("ActiveState", "SubState", "Job")

# Units that start a service; it is the service that preloads.
_STARTERS = (".timer", ".socket", ".path")

# The units that systemctl is asked for at once: with names of 255 characters, the most, they fit any command line.
_AT_ONCE = 256

# Stands for the instance of a template that systemd is asked for: it shows no template itself.
_INSTANCE = "preload-jemalloc"

# Where systemd reads its own settings, systemd-system.conf(5), in the order in which they count.
_MANAGER_FILES = ("usr/lib/systemd/system.conf", "etc/systemd/system.conf")
_MANAGER_DIRECTORIES = ("usr/lib/systemd/system.conf.d", "run/systemd/system.conf.d", "etc/systemd/system.conf.d")

# Where systemd reads units, systemd.unit(5), the first one that has it counts.
_SYSTEM_DIRECTORIES = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)

# Where users' managers read them; without users' homes.
_USER_DIRECTORIES = ("etc/systemd/user", "run/systemd/user", "usr/local/lib/systemd/user", "usr/lib/systemd/user")


#: Called with the message for a service that is not there.
Missing = t.Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """A service that is to preload: its full name, and what it wants of its own.

    version: another release than the current one. malloc_conf: options of jemalloc, or a preset of them. environment:
    more variables. scope: system or user, the latter for a unit of every user's own systemd. must_exist: whether it has
    to be there. force: whether reasons why it could not preload are passed over.
    """

    name: str
    version: t.Optional[str] = None
    malloc_conf: t.Mapping[str, t.Any] = field(default_factory=dict, hash=False)
    environment: t.Mapping[str, t.Any] = field(default_factory=dict, hash=False)
    scope: str = "system"
    must_exist: bool = True
    force: bool = False


@dataclass(frozen=True)
class Unit:
    """A service as systemd knows it; name is its own, not an alias; environment_files are those that must be heeded."""

    name: str
    active: str
    unit_files: t.Tuple[str, ...] = ()
    environment_files: t.Tuple[str, ...] = ()
    wanted: Wanted = Wanted("")
    properties: t.Mapping[str, t.Sequence[str]] = field(default_factory=dict, hash=False)

    @property
    def user(self) -> bool:
        """Whether it is a unit of every user's own systemd."""
        return self.wanted.scope == "user"

    @property
    def foreign_files(self) -> t.List[str]:
        """Its files without our drop-ins, of which a profile has one of its own."""
        return [path for path in self.unit_files if os.path.basename(path) not in _OWN]


def is_running(root: str = "/") -> bool:
    """Whether systemd is this host's init: the test of sd_booted(3)."""
    return os.path.isdir(os.path.join(root, "run/systemd/system"))


def unit_name(name: str) -> str:
    """Return the full name of a unit: puma stands for puma.service."""
    full = name if name.endswith((".service", *_STARTERS)) else f"{name}.service"
    if not is_name(full):
        raise JemallocError(f"services: {name!r} is not the name of a service; write it as in systemctl status NAME.")
    return full


def is_name(name: str) -> bool:
    """Whether a unit can have this name."""
    return bool(_NAME.fullmatch(name)) and not name.startswith((".", "@"))


def is_plain_path(path: str) -> bool:
    """Whether an absolute path can stand in unit files as it is."""
    return bool(_PLAIN_PATH.fullmatch(path))


def is_template(name: str) -> bool:
    """Whether a unit is a template, such as sidekiq@.service, from which instances are made."""
    return "@." in name


def template_of(name: str) -> str:
    """Return the template of an instance: sidekiq@.service of sidekiq@1.service; nothing for what is no instance."""
    stem, at, instance = name.partition("@")
    suffix = instance.rpartition(".")[2]
    return f"{stem}@.{suffix}" if at and not is_template(name) else ""


def wanted_services(entries: t.Sequence[t.Any]) -> t.List[Wanted]:
    """Return the services that a list of names, or of mappings with a name, stands for."""
    found: t.Dict[t.Tuple[str, str], Wanted] = {}
    for entry in entries:
        wanted = _wanted(entry)
        known = found.setdefault((wanted.name, wanted.scope), wanted)
        if known != wanted:
            raise JemallocError(f"services: {wanted.name} is listed twice, with different settings; keep one of them.")
    return list(found.values())


def _wanted(entry: t.Any) -> Wanted:
    """Return what one entry of services stands for."""
    given = entry if isinstance(entry, dict) else {"name": entry}
    known = [each.name for each in dataclasses.fields(Wanted)]
    unknown = [str(key) for key in given if key not in known]
    if unknown or not isinstance(given.get("name"), str):
        what = f"has no key {', '.join(unknown)}" if unknown else "needs a name"
        raise JemallocError(f"services: {entry!r}: an entry {what}; it is a name or has {', '.join(known)}.")
    whole = {key: value for key, value in given.items() if value is not None}
    whole["name"] = unit_name(whole["name"])
    return Wanted(**entries.checked(whole))


def refuse(message: str) -> None:
    """Raise JemallocError for a service that is not there."""
    raise JemallocError(message)


def units(run: Run, wanted: t.Sequence[Wanted], root: str = "/", missing: Missing = refuse) -> t.List[Unit]:
    """Return these services; one that systemd does not know, or that cannot start, is an error.

    missing is called with the message for one that is not there; where it returns, the service counts as one that comes
    later.
    """
    if not wanted:
        return []
    if not is_running():
        raise JemallocError(
            f"services: {', '.join(each.name for each in wanted)} cannot be looked up, systemd is not the init of this "
            "host; run the command by jemalloc.sh instead."
        )
    system = _triggered(run, [each for each in wanted if each.scope == "system"], root, missing)
    found = [_unit(each, block, root, missing) for each, block in zip(system, _show(run, system, _PROPERTIES))]
    found += [_user_unit(each, root, missing) for each in wanted if each.scope == "user"]
    return list({(unit.name, unit.user): unit for unit in found}.values())


def _show(run: Run, wanted: t.Sequence[Wanted], properties: str) -> t.List[t.Dict[str, t.List[str]]]:
    """Return what systemctl show says of units."""
    if not wanted:
        return []
    blocks: t.List[t.Dict[str, t.List[str]]] = []
    for names in _portions([each.name.replace("@.", f"@{_INSTANCE}.") for each in wanted]):
        status, output = run(["systemctl", "show", f"--property={properties}", "--", *names], None, None)
        if status:
            raise JemallocError(f"services: systemd answers {output.strip()!r} when asked for {', '.join(names)}.")
        blocks += parse_show(output)
    return blocks


def _portions(names: t.Sequence[str]) -> t.Iterator[t.Sequence[str]]:
    """Yield names in portions that fit a command line."""
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]


def _triggered(run: Run, wanted: t.Sequence[Wanted], root: str, missing: Missing) -> t.List[Wanted]:
    """Return the services, with those in the place of timers, sockets and paths that these start."""
    starters = [each for each in wanted if each.name.endswith(_STARTERS)]
    found = [each for each in wanted if not each.name.endswith(_STARTERS)]
    for starter, block in zip(starters, _show(run, starters, "Id,LoadState,Triggers,Accept")):
        _check_loaded(starter, block, root, missing)
        names = " ".join(block.get("Triggers", [])).split()
        if block.get("Accept") == ["yes"]:  # an instance for each connection
            names = [f"{starter.name.rpartition('.')[0]}@.service"]
        found += [dataclasses.replace(starter, name=name) for name in names if name.endswith(".service")]
    return found


def _check_loaded(wanted: Wanted, block: t.Mapping[str, t.Sequence[str]], root: str, missing: Missing) -> None:
    """Refuse a unit that systemd has not loaded, unless it is one that may come later."""
    state, name = block["LoadState"][0], _short(wanted.name)
    if state not in ("loaded", "not-found"):
        raise JemallocError(f"services: systemd on this host says that {name} is {state}; take it off the list.")
    if state == "not-found" and wanted.must_exist:
        missing(
            f"services: systemd on this host knows no such service: {name}; {_instead(wanted, unit_files(root=root))}."
        )


def _short(name: str) -> str:
    """Return the name of a unit as people say it."""
    return name[: -len(".service")] if name.endswith(".service") else name


def _instead(wanted: Wanted, known: t.Iterable[str]) -> str:
    """Return what to do about a service that is not there: the nearest one that is, and how to name one that comes."""
    import difflib

    near = difflib.get_close_matches(wanted.name, [name for name in known if "/" not in name], 1)
    command, which, scope = "systemctl", "that comes later", ""
    if wanted.scope == "user":
        command, which, scope = "systemctl --user", "in a user's home, or that comes later,", ", scope: user"
    meant = f"did you mean {_short(near[0])}?" if near else f"'{command} list-unit-files' lists what it has."
    return f"{meant} One {which} is named {{name: {_short(wanted.name)}{scope}, must_exist: false}}"


def _unit(wanted: Wanted, block: t.Mapping[str, t.List[str]], root: str, missing: Missing) -> Unit:
    """Return the unit that a block of systemctl show describes."""
    _check_loaded(wanted, block, root, missing)
    environment_files = [entry.rsplit(" (", 1)[0] for entry in block.get("EnvironmentFiles", []) if entry]
    unit_files = [*block["FragmentPath"], *" ".join(block.get("DropInPaths", [])).split()]
    return Unit(
        wanted.name if is_template(wanted.name) else block["Id"][0],
        block["ActiveState"][0],
        tuple(path for path in unit_files if path),
        tuple(environment_files),
        wanted,
        block,
    )


def _user_unit(wanted: Wanted, root: str, missing: Missing) -> Unit:
    """Return a unit of users' own systemd, read from its files: there may be no manager to ask, or several."""
    known = unit_files(user=True, root=root)
    if wanted.name not in known and wanted.must_exist:
        directories = ", ".join(os.path.join(root, directory) for directory in _USER_DIRECTORIES)
        missing(f"services: there is no user unit {wanted.name} in {directories}; {_instead(wanted, known)}.")
    drop_ins = {}
    for directory in ("service.d", f"{wanted.name}.d"):  # of drop-ins with the same name that of the unit itself counts
        own = {os.path.basename(name): path for name, path in known.items() if os.path.dirname(name) == directory}
        drop_ins.update(own)
    paths = [known[wanted.name]] if wanted.name in known else []
    paths += [drop_ins[name] for name in sorted(drop_ins)]
    texts = [files.read_text(path) or "" for path in paths]
    named = [path.lstrip("-") for path in environment.assigned(texts, "Service", "EnvironmentFile")]
    properties = {key: environment.assigned(texts, "Service", key) for key in _CPU_SETTINGS}
    properties["CPUQuota"] = properties["CPUQuota"][-1:]
    return Unit(wanted.name, "", tuple(paths), tuple(named), wanted, properties)


def unit_files(user: bool = False, root: str = "/") -> t.Dict[str, str]:
    """Return the paths of services and their drop-ins that count, by their names such as puma.service.d/own.conf."""
    found = {}
    for directory in reversed(_USER_DIRECTORIES if user else _SYSTEM_DIRECTORIES):
        top = os.path.join(root, directory)
        for pattern in ("*.service", "*.service.d/*.conf", "service.d/*.conf"):
            found.update({os.path.relpath(path, top): path for path in glob.glob(f"{glob.escape(top)}/{pattern}")})
    return found


def shown(run: Run, unit: str, properties: t.Sequence[str], uid: t.Optional[int] = None) -> t.Dict[str, str]:
    """Return what systemd says of a unit at this moment, or the systemd of a user; several values stand in one line."""
    arguments = ["show", f"--property={','.join(properties)}", "--", unit]
    status, output = run([*managers.command(uid), *arguments], None, None)
    return {} if status else {name: " ".join(values) for name, values in parse_show(output)[0].items()}


def shown_all(
    run: Run, units: t.Sequence[str], properties: t.Sequence[str], uid: t.Optional[int] = None
) -> t.Dict[str, t.Dict[str, str]]:
    """Return the properties of units at this moment, by the names that are asked for; an unknown unit has none."""
    found: t.Dict[str, t.Dict[str, str]] = {}
    for names in _portions(units):
        arguments = ["show", f"--property={','.join(['Names', *properties])}", "--", *names]
        _status, output = run([*managers.command(uid), *arguments], None, None)
        for block in parse_show(output):
            shown_now = {name: " ".join(values) for name, values in block.items()}
            # by name and not by order: systemctl passes over what it cannot ask for
            found.update(dict.fromkeys(shown_now.pop("Names", "").split(), shown_now))
    return {name: found.get(name, {}) for name in units}


def is_down(properties: t.Mapping[str, str]) -> bool:
    """Whether a unit does not run, and systemd is not about to start it."""
    pending = properties.get("Job", "") not in ("", "0") or properties.get("SubState", "").endswith("auto-restart")
    return properties.get("ActiveState") in ("inactive", "failed") and not pending


def parse_show(output: str) -> t.List[t.Dict[str, t.List[str]]]:
    """Return the units of systemctl show, in their order: each property with its values."""
    blocks = []
    for paragraph in output.strip().split("\n\n"):
        block: t.Dict[str, t.List[str]] = {}
        for line in paragraph.splitlines():
            name, _equals, value = line.partition("=")
            block.setdefault(name, []).append(value)
        blocks.append(block)
    return blocks


def manager_texts(own: str, root: str = "/") -> t.List[str]:
    """Return the texts of systemd's own settings, in the order in which they count, without the file that is ours."""
    paths = [path for path in manager_files(root) if os.path.basename(path) != own]
    return [text for text in map(files.read_text, paths) if text is not None]


def manager_files(root: str = "/") -> t.List[str]:
    """Return the paths of systemd's own settings, in the order in which they count."""
    paths = [os.path.join(root, name) for name in _MANAGER_FILES]
    by_name = {}
    for directory in _MANAGER_DIRECTORIES:
        for path in glob.glob(os.path.join(root, directory, "*.conf")):
            by_name[os.path.basename(path)] = path
    return paths + [by_name[name] for name in sorted(by_name)]
