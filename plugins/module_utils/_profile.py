"""Profiling the heap of a service: whether it can be done, and the settings that switch it on for that service only."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import glob
import os
import shutil
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _applicability as applicability
from ansible_collections.preload.jemalloc.plugins.module_utils import _cgroups as cgroups
from ansible_collections.preload.jemalloc.plugins.module_utils import _contents as contents
from ansible_collections.preload.jemalloc.plugins.module_utils import _elf as elf
from ansible_collections.preload.jemalloc.plugins.module_utils import _environment as environment
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _malloc_conf as malloc_conf
from ansible_collections.preload.jemalloc.plugins.module_utils import _probe as probe
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils import _scopes as scopes
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run

#: What all that belongs to a profile is called: one host makes one at a time.
NAME = "preload-jemalloc-profile"

#: systemd sorts drop-ins by their names over all directories, and "-" before ".": this one comes behind DROP_IN.
DROP_IN = f"zzz-{NAME}.conf"

#: Begins the names of dumps, in the directory that is theirs.
DUMP = "dump"

# Units that are gone with a reboot, systemd.unit(5).
_RUNTIME_UNITS = "run/systemd/system"

# By which of its settings systemd gives a service a directory of its own, systemd.exec(5), and where that is. Its mode
# counts for all directories of the same setting, so that one is taken which the unit does not use. That below /run is
# none of them: it is memory, and it goes when the service ends.
_PLACES = {"CacheDirectory": "var/cache", "LogsDirectory": "var/log", "StateDirectory": "var/lib"}

# With DynamicUser= the directory itself is in here, and a link leads to it.
_PRIVATE = "private"

_PROPERTIES = ("MainPID", "UnsetEnvironment", *_PLACES)

# What the tool calls that finds the names of functions, with the packages that have them.
_PROGRAMS = {"perl": "perl", "nm": "binutils", "addr2line": "binutils", "objdump": "binutils", "c++filt": "binutils"}

# What jemalloc calls its tool: pprof in 3.6.0.
_TOOLS = ("jeprof", "pprof")

_VARIABLES = ("LD_PRELOAD", "MALLOC_CONF")


@dataclass(frozen=True)
class Wanted:
    """What an operator asks for; version is None for the release that the service is configured to preload."""

    unit: str
    version: t.Optional[str]
    interval: int
    sample: int
    limit: int


@dataclass(frozen=True)
class Plan:
    """What is going to be done: for which service, with what, and what has to hold again afterwards.

    service is with the release that it maps meanwhile, before with the one that it maps without us. directory is where
    its dumps are, tool what reads them.
    """

    service: restarts.Service
    before: restarts.Service
    conf: str
    text: str
    directory: str
    tool: str
    drop_in: str
    prefix: str
    proc: str = "/proc"

    @property
    def directories(self) -> t.List[str]:
        """The places where systemd may make the directory of the dumps, that with DynamicUser= first."""
        return [_private(self.directory), self.directory]

    def real_directory(self) -> str:
        """Return the directory itself, which the service has made by now."""
        private = _private(self.directory)
        return private if os.path.isdir(private) else self.directory


def plan(run: Run, wanted: Wanted, prefix: str, root: str = "/", proc: str = "/proc") -> Plan:
    """Return how to profile a service; JemallocError: why it cannot be, in one sentence. Nothing is changed."""
    unit = _unit(run, wanted.unit)
    properties = systemd.shown(run, unit.name, _PROPERTIES)
    configured = _configured(unit.name, prefix, root)
    version = wanted.version or configured
    if not version:
        raise JemallocError(
            f"unit: {unit.name} is not configured to preload jemalloc; name it in jemalloc_services first, or give the "
            "installed version to profile it with."
        )
    _check_release(run, prefix, version)
    _check_unit(unit, properties, version, prefix, root)
    tool = _tool(prefix, version)
    kind, directory = _place(unit.name, properties, root)
    _check_space(os.path.dirname(directory), wanted.limit)
    values = _values(unit, root)
    conf = _conf(values["MALLOC_CONF"], _options(wanted, directory), version)
    said = probe.complaint(run, store.library(prefix, version), conf.replace("%%", "%"))
    if said:
        raise JemallocError(f"jemalloc {version} in {prefix} does not take {conf}: {said}; build it again.")
    mapped = processes.installations_of(_pids(unit.name, proc), prefix, proc)
    if not mapped:
        raise JemallocError(f"unit: {unit.name} has no process that could be profiled.")
    otherwise = processes.ANY if any(mapped.values()) else None
    return Plan(
        restarts.Service(unit.name, version),
        restarts.Service(unit.name, configured or otherwise),
        conf,
        _text(contents.in_front(prefix, values["LD_PRELOAD"], version), conf, kind),
        directory,
        tool,
        os.path.join(root, _RUNTIME_UNITS, f"{unit.name}.d", DROP_IN),
        prefix,
        proc,
    )


def present_drop_ins(root: str = "/") -> t.List[str]:
    """Return the paths of our drop-ins for profiling that are there: without a run at work they were left behind."""
    return sorted(glob.glob(os.path.join(root, _RUNTIME_UNITS, "*.service.d", DROP_IN)))


def present_directories(root: str = "/") -> t.List[str]:
    """Return the directories of dumps that are there, and the links to them."""
    places = [os.path.join(root, place, NAME) for place in _PLACES.values()]
    return [path for place in places for path in (_private(place), place) if os.path.lexists(path)]


def _private(directory: str) -> str:
    """Return where a directory of a service is with DynamicUser=."""
    parent, name = os.path.split(directory)
    return os.path.join(parent, _PRIVATE, name)


def _unit(run: Run, name: str) -> systemd.Unit:
    """Return the one service of a name, which has to run."""
    if systemd.is_template(systemd.unit_name(name)):
        raise JemallocError(f"unit: {name} is a template; name one of its instances, as {name.partition('@')[0]}@1.")
    found = systemd.units(run, systemd.wanted_services([name]))
    if len(found) != 1:
        raise JemallocError(f"unit: {name} starts {len(found)} services; name one of them.")
    if found[0].active != "active":
        raise JemallocError(f"unit: {found[0].name} is {found[0].active or 'not known'}; start it first.")
    return found[0]


def _pids(unit: str, proc: str) -> t.List[int]:
    """Return the processes of a service."""
    return processes.members([(unit, False)], proc).get(processes.Member(unit, unit), [])


def _configured(unit: str, prefix: str, root: str) -> str:
    """Return the release that a service is configured to preload, but for what a run left that was killed."""
    found = [each for each in scopes.scopes(scopes.Reader(), prefix, root) if os.path.basename(each.path) != DROP_IN]
    current = store.read_link(prefix, "current") or ""
    return scopes.wish_of(cgroups.Place(unit, "system"), found, prefix, current).release


def _check_release(run: Run, prefix: str, version: str) -> None:
    """Refuse a release that is not there, or that was built without profiling."""
    installation = store.read_installation(prefix, version)
    if installation is None or installation.damage:
        reason = installation.damage if installation else "no such release is installed there"
        raise JemallocError(f"{prefix}/{version} cannot be used: {reason}; run preload.jemalloc.jemalloc first.")
    # what a distribution's package has in it only its library knows
    packaged = installation.receipt.get("method") == "package"
    built = probe.complaint(run, store.library(prefix, version), "prof:true") == ""
    if not built or not (packaged or installation.receipt.get("options", {}).get("prof")):
        raise JemallocError(
            f"jemalloc {version} in {prefix} was built without profiling; install it with options: {{prof: true}} "
            "(the role's jemalloc_options)."
        )


def _check_unit(unit: systemd.Unit, properties: t.Mapping[str, str], version: str, prefix: str, root: str) -> None:
    """Refuse a service that cannot preload a release, or to which our drop-in would not matter."""
    verdict = applicability.judge(unit, elf.read(os.path.realpath(store.library(prefix, version))), prefix, root)
    reasons = [*verdict.refused, _overriding(unit, properties)]
    if any(reasons):
        raise JemallocError(f"unit: {unit.name} cannot be profiled: {next(filter(None, reasons))}.")


def _overriding(unit: systemd.Unit, properties: t.Mapping[str, str]) -> str:
    """Return what would win over our drop-in."""
    for name in _VARIABLES:
        for path in [each for pattern in unit.environment_files for each in sorted(glob.glob(pattern))]:
            if environment.file_value(files.read_text(path) or "", name) is not None:
                return f"{path} sets {name} and would win; write it as Environment= in a drop-in of the unit"
        unset = [word.partition("=")[0] for word in properties.get("UnsetEnvironment", "").split()]
        if name in unset:
            return f"its UnsetEnvironment= takes {name} away, which keeps it out of jemalloc"
    return ""


def _tool(prefix: str, version: str) -> str:
    """Return jemalloc's tool that reads dumps; with it there has to be what it calls."""
    own = [f"{prefix}/{version}/bin/{name}" for name in _TOOLS]
    tool = next((path for path in own if os.access(path, os.X_OK)), shutil.which(_TOOLS[0]))
    if not tool:
        raise JemallocError(
            f"{prefix}/{version}/bin has no {_TOOLS[0]}, and there is none on the PATH; build {version} from source, "
            "or install the package that has it."
        )
    lacking = [name for name in _PROGRAMS if not shutil.which(name)]
    if lacking:
        packages = ", ".join(dict.fromkeys(_PROGRAMS[name] for name in lacking))
        raise JemallocError(f"{tool} needs {', '.join(lacking)} on the host; install the package {packages}.")
    return tool


def _place(unit: str, properties: t.Mapping[str, str], root: str) -> t.Tuple[str, str]:
    """Return by which setting a unit is given the directory of its dumps, and that directory."""
    for kind, parent in _PLACES.items():
        if not properties.get(kind):
            return kind, os.path.join(root, parent, NAME)
    raise JemallocError(
        f"unit: {unit} uses {', '.join(_PLACES)} all by itself, so that none is left whose mode could be that of "
        "private dumps; take one out for the time of the profile."
    )


def _check_space(directory: str, limit: int) -> None:
    """Refuse a disk on which the dumps, and once more as much, have no room; limit is in bytes."""
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    if free < 2 * limit:
        raise JemallocError(
            f"size_limit: {directory} has {free >> 20} MiB free, and twice {limit >> 20} are needed; make room there, "
            "or give a lower limit."
        )


def _values(unit: systemd.Unit, root: str) -> t.Dict[str, str]:
    """Return what the unit sets our variables to by now, or what systemd gives to all; specifiers as they stand."""
    own = [files.read_text(path) or "" for path in unit.unit_files if os.path.basename(path) != DROP_IN]
    everybody = systemd.manager_texts("", root)
    return {
        name: environment.setting(own, "Service", "Environment", name)
        or environment.setting(everybody, "Manager", "DefaultEnvironment", name)
        for name in _VARIABLES
    }


def _options(wanted: Wanted, directory: str) -> t.Dict[str, t.Any]:
    """Return the options of jemalloc that make the profile."""
    return {
        "prof": True,
        "prof_active": True,
        # each command that the service starts would leave one
        "prof_final": False,
        "lg_prof_sample": wanted.sample,
        "lg_prof_interval": wanted.interval,
        "prof_prefix": f"{directory}/{DUMP}",
    }


def _conf(before: str, options: t.Mapping[str, t.Any], version: str) -> str:
    """Return the MALLOC_CONF of a unit with these options; what it has for profiling itself gives way."""
    kept = [item for item in before.split(",") if item and not item.lstrip().startswith(("prof", "lg_prof"))]
    return ",".join([*kept, malloc_conf.encode(options, version).replace("%", "%%")])


def _text(ld_preload: str, conf: str, kind: str) -> str:
    """Return the drop-in."""
    lines = [
        "# Managed by the Ansible collection preload.jemalloc: this unit is being profiled, this file goes afterwards.",
        "[Service]",
        contents.assignment("LD_PRELOAD", ld_preload),
        contents.assignment("MALLOC_CONF", conf),
        f"{kind}={NAME}",
        f"{kind}Mode=0700",
    ]
    return "".join(f"{line}\n" for line in lines)
