"""Find what still runs with the library though no scope wants that any more, from the host alone."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import os
import re
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _cgroups as cgroups
from ansible_collections.preload.jemalloc.plugins.module_utils import _environment as environment
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._changes import DROP_IN, Change
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run

# Services whose restart ends sessions or containers, or cuts the host off.
_NEVER = re.compile(
    r"systemd-|dbus|user@|(?:\w+-)?getty|gdm|sddm|lightdm|lxdm|xdm|slim\.|display-manager|NetworkManager|networking"
    r"|wpa_supplicant|docker|containerd|libvirtd|virt\w+d\.|lxc|lxd|incus"
)

_PROPERTIES = (
    *("ActiveState", "Type", "KillMode", "MainPID", "RefuseManualStart", "RefuseManualStop"),
    *("Environment", "EnvironmentFiles", "ExecStart"),
)

_WRAPPER = re.compile(r"(?<!no-)jemalloc\.sh\b")
_ENVIRONMENT_FILE = re.compile(r"(/\S+) \(ignore_errors=")
_PROGRAM = re.compile(r"\bpath=(/\S+)")

# As much of a script is read.
_SCRIPT = 1 << 16

# The unit in which the systemd of a user runs itself.
_MANAGER = "init.scope"

# The processes of a place, each with whether it maps the library; others only have it in their LD_PRELOAD.
_Held = t.Dict[cgroups.Place, t.Dict[int, bool]]


class Stray(t.NamedTuple):
    """A unit that runs with the library unasked, how many processes of it do, and why it is not restarted, if not."""

    unit: str
    uid: t.Optional[int]
    processes: int
    why: str

    def __str__(self) -> str:
        user = "" if self.uid is None else f" of user {self.uid}"
        what = f"{self.processes} {'process' if self.processes == 1 else 'processes'}"
        return f"{self.unit or 'no unit'}{user} ({what}; {self.why})"


class _Look(t.NamedTuple):
    """What was seen of the host: whether all services preload the library, and the place of this run, too."""

    prefix: str
    proc: str
    held: _Held
    host_wide: bool
    own: cgroups.Place


def find(
    run: Run,
    known: t.Collection[t.Tuple[str, bool]],
    prefix: str,
    changes: t.Sequence[Change] = (),
    everything: bool = False,
    proc: str = "/proc",
) -> t.List[Stray]:
    """Return the units that run with the library though no scope wants that when these changes are made.

    known has the units (name, whether a user's) of which a scope says what they are to run with. With everything also
    processes outside of services are returned, and those that only have the library in their LD_PRELOAD.
    """
    host_wide = host_preloads(prefix, changes)
    if not everything and (host_wide or not systemd.is_running()):
        return []
    held = _held(prefix, everything, proc)
    look = _Look(prefix, proc, held, host_wide, _own_place(proc))
    services = [place for place in held if place.unit.endswith(".service") and not _is_known(place, known)]
    shown = _shown(run, services)
    found = [_stray(look, place, shown[place]) for place in services]
    if everything:
        others = [place for place in held if not place.unit.endswith(".service")]
        found += [Stray(place.unit, place.uid, len(held[place]), "it is no service") for place in others]
    return sorted((each for each in found if everything or not each.why), key=lambda each: (each.unit, each.uid or 0))


def host_preloads(prefix: str, changes: t.Sequence[Change]) -> bool:
    """Whether every service preloads the library when these changes are made, whoever wants that."""
    after = {change.path: change.after for change in changes}

    def text(path: str) -> str:
        return (after[path] if path in after else files.read_text(path)) or ""

    managers = [*systemd.manager_texts(DROP_IN), text(places.manager_path())]
    value = environment.setting(managers, "Manager", "DefaultEnvironment", "LD_PRELOAD")
    return f"{prefix}/" in value or f"{prefix}/" in text(places.list_path())


def _is_known(place: cgroups.Place, known: t.Collection[t.Tuple[str, bool]]) -> bool:
    return any((name, place.uid is not None) in known for name in (place.unit, systemd.template_of(place.unit)))


def _held(prefix: str, everything: bool, proc: str) -> _Held:
    """Return the processes with the library by their places; those of containers and those of this run are left out."""
    own = cgroups.containers(_read(f"{proc}/self/cgroup").decode("utf-8", "replace"))
    ancestors = _ancestors(proc) if everything else set()
    found: _Held = {}
    for name in os.listdir(proc):
        if not name.isdigit() or int(name) in ancestors:
            continue
        maps = bool(processes.mapped(_read(f"{proc}/{name}/maps"), prefix))
        if maps or (everything and _names(_read(f"{proc}/{name}/environ"), prefix)):
            place = cgroups.place_of(_read(f"{proc}/{name}/cgroup").decode("utf-8", "replace"), own)
            if not place.container:
                found.setdefault(place, {})[int(name)] = maps
    return found


def _read(path: str) -> bytes:
    """Return a file of /proc; nothing for a process that ended, and for what this user may not read."""
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as stream:
        return stream.read()
    return b""


def _names(variables: bytes, prefix: str) -> bool:
    """Whether the LD_PRELOAD of a /proc/PID/environ names the library."""
    values = [each for each in variables.split(b"\0") if each.startswith(b"LD_PRELOAD=")]
    return any(f"{prefix}/".encode() in value for value in values)


def _ancestors(proc: str) -> t.Set[int]:
    """Return the processes that this run consists of, and those that started it: they end with it."""
    found: t.Set[int] = set()
    name = "self"
    while name not in ("0", "1"):
        fields = _read(f"{proc}/{name}/stat")
        if not fields:
            break
        found.add(int(fields.split()[0]))
        name = fields.rpartition(b")")[2].split()[1].decode("ascii")
    return found


def _own_place(proc: str) -> cgroups.Place:
    text = _read(f"{proc}/self/cgroup").decode("utf-8", "replace")
    return cgroups.place_of(text, cgroups.containers(text))


def _shown(run: Run, services: t.Sequence[cgroups.Place]) -> t.Dict[cgroups.Place, t.Dict[str, str]]:
    """Return the properties of services, by one question to each systemd that runs some of them."""
    found: t.Dict[cgroups.Place, t.Dict[str, str]] = {}
    for uid in {place.uid for place in services}:
        of_user = [place for place in services if place.uid == uid]
        shown = systemd.shown_all(run, [place.unit for place in of_user], _PROPERTIES, uid)
        found.update({place: shown[place.unit] for place in of_user})
    return found


def _stray(look: _Look, place: cgroups.Place, shown: t.Mapping[str, str]) -> Stray:
    """Return a service that runs with the library, with the reason why it is not restarted."""
    why = _refused(look, place, shown) or _futile(look, place, shown)
    return Stray(place.unit, place.uid, len(look.held[place]), why)


def _refused(look: _Look, place: cgroups.Place, shown: t.Mapping[str, str]) -> str:
    """Return why a service may not be restarted, empty where it may."""
    state = shown.get("ActiveState")
    if _NEVER.match(place.unit):
        return "a restart would end sessions or containers, or cut the host off"
    if state != "active":
        return f"it is {state or 'not known to systemd'}"
    if shown.get("Type") == "oneshot":
        return "it is a job"
    if "yes" in (shown.get("RefuseManualStart"), shown.get("RefuseManualStop")):
        return "systemd refuses to restart it"
    if place == look.own and shown.get("KillMode") not in ("process", "none"):
        return "this run belongs to it"
    return ""


def _futile(look: _Look, place: cgroups.Place, shown: t.Mapping[str, str]) -> str:
    """Return why a restart of a service is no remedy for what it maps, empty where it is."""
    pids, main = look.held[place], int(shown.get("MainPID") or 0)
    if not any(pids.values()):
        return "only its LD_PRELOAD names the library; restart it"
    if main and not pids.get(main):
        return "its main process runs without the library, so a restart changes nothing"
    if place.uid is not None and cgroups.Place(_MANAGER, "user", uid=place.uid) in look.held:
        return "the systemd of its user runs with the library, until that user's last session ends"
    if look.host_wide or _starts_with_it(shown, look.prefix) or _is_linked(f"{look.proc}/{main}/exe"):
        return "it starts with the library by other means"
    return ""


def _starts_with_it(shown: t.Mapping[str, str], prefix: str) -> bool:
    """Whether a service without a drop-in of ours starts with the library all the same, by what its unit says."""
    command = shown.get("ExecStart", "")
    if f"{prefix}/" in shown.get("Environment", "") or f"{prefix}/" in command or _WRAPPER.search(command):
        return True
    for path in _ENVIRONMENT_FILE.findall(shown.get("EnvironmentFiles", "")):
        if f"{prefix}/" in (environment.file_value(files.read_text(path) or "", "LD_PRELOAD") or ""):
            return True
    for path in _PROGRAM.findall(command):
        with contextlib.suppress(OSError), open(path, "rb") as stream:
            text = stream.read(_SCRIPT)
            if text.startswith(b"#!") and (b"jemalloc.sh" in text or f"{prefix}/".encode() in text):
                return True
    return False


def _is_linked(program: str) -> bool:
    """Whether a program needs a jemalloc by itself."""
    from ansible_collections.preload.jemalloc.plugins.module_utils import _elf as elf

    try:
        return any(name.startswith("libjemalloc.so") for name in elf.read(program).needed)
    except (JemallocError, OSError):
        return False
