# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which settings of a unit keep the library from its processes, or the unit from a restart."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile as profile
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils import _unit_settings as unit_settings

PREFIX = "/opt/jemalloc"


def reasons(
    properties: t.Mapping[str, str], active: str = "active", unit_files: t.Sequence[pathlib.Path] = ()
) -> t.List[str]:
    """Return why a unit with these settings cannot preload."""
    shown = {key: [value] for key, value in properties.items()}
    unit = systemd.Unit("a.service", active, tuple(map(str, unit_files)), properties=shown)
    return unit_settings.reasons(unit, PREFIX)


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"RootDirectory": "/srv/root"}, "RootDirectory=/srv/root hides /opt/jemalloc from it"),
        ({"RootImage": "/srv/a.raw"}, "RootImage=/srv/a.raw hides /opt/jemalloc from it"),
        ({"InaccessiblePaths": "/boot -/opt"}, "InaccessiblePaths=/opt hides /opt/jemalloc from it"),
        ({"TemporaryFileSystem": "/var:ro /opt:ro"}, "TemporaryFileSystem=/opt hides /opt/jemalloc from it"),
        ({"InaccessiblePaths": "/opt/jemalloc"}, "InaccessiblePaths=/opt/jemalloc hides /opt/jemalloc from it"),
        ({"RootDirectory": "/"}, ""),
        ({"InaccessiblePaths": "/opt/jemalloc2 /op"}, ""),
        ({"RootDirectory": "/srv", "BindReadOnlyPaths": "/opt/jemalloc"}, ""),
        ({"RootDirectory": "/srv", "BindReadOnlyPaths": "/opt"}, ""),
        (
            {"RootDirectory": "/srv", "BindPaths": "/opt/jemalloc:/other"},
            "RootDirectory=/srv hides /opt/jemalloc from it",
        ),
        ({"BindPaths": "/srv/opt:/opt"}, "/srv/opt is bound over /opt there"),
        ({"TemporaryFileSystem": "/opt", "BindPaths": "-/srv/opt:/opt:norbind"}, "/srv/opt is bound over /opt there"),
        ({"BindPaths": "/srv/opt:/opt /opt/jemalloc:/opt/jemalloc"}, ""),
        ({"BindPaths": "/:/"}, ""),
    ],
)
def test_what_hides_the_store(properties: t.Dict[str, str], reason: str) -> None:
    expected = [f"{reason}; add BindReadOnlyPaths=/opt/jemalloc"] if reason else []
    assert reasons(properties) == expected


def test_a_bind_of_the_very_store(tmp_path: pathlib.Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "same").symlink_to("store")
    unit = systemd.Unit("a.service", "", properties={"BindPaths": [f"{tmp_path}/same:{tmp_path}/store"]})
    assert unit_settings.reasons(unit, f"{tmp_path}/store") == []


@pytest.mark.parametrize(
    ("refused", "allowed", "nearest"),
    [
        ("/", "/usr /lib", "/"),
        ("/", "/usr /opt", ""),
        ("/ /opt", "/", "/opt"),
        ("-/opt/jemalloc", "/opt", "/opt/jemalloc"),
        ("/opt", "/opt", ""),
        ("/srv", "", ""),
        ("", "/usr", ""),
    ],
)
def test_what_may_not_be_executed(refused: str, allowed: str, nearest: str) -> None:
    what = f"NoExecPaths={nearest} keeps the library from being executed there; add ExecPaths=/opt/jemalloc"
    assert reasons({"NoExecPaths": refused, "ExecPaths": allowed}) == ([what] if nearest else [])


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.conf", "UnsetEnvironment=A LD_PRELOAD", "UnsetEnvironment=LD_PRELOAD takes the library away from it"),
        ("a.conf", "UnsetEnvironment=LD_PRELOAD=/other.so", ""),
        ("a.conf", "Environment=", ""),
        ("zzz.conf", "Environment=", "zzz.conf comes after our drop-in and changes Environment="),
        ("zzz.conf", "Environment=LD_PRELOAD=/a.so", "zzz.conf comes after our drop-in and changes Environment="),
        ("zzz.conf", "Environment=A=1", ""),
        ("zz-preload-jemalloc.conf", "UnsetEnvironment=LD_PRELOAD", ""),  # ours, by which it is excluded
        ("zzz-preload-jemalloc-profile.conf", "Environment=LD_PRELOAD=/a.so", ""),  # ours, of a profile
    ],
)
def test_the_files_of_a_unit(root: pathlib.Path, name: str, text: str, reason: str) -> None:
    path = pathlib.Path(places.drop_in_path("a.service")).with_name(name)
    path.parent.mkdir(parents=True)
    path.write_text(f"[Service]\n{text}\n")
    found = reasons({}, unit_files=[root / "missing.service", path])
    assert [reason in why for why in found] == ([True] if reason else [])


def test_the_names_of_our_drop_ins() -> None:
    ours = (f"/run/{changes.DROP_IN}", f"/run/{profile.DROP_IN}", "/run/own-preload-jemalloc.conf")
    assert systemd.Unit("a.service", "", ours).foreign_files == ["/run/own-preload-jemalloc.conf"]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/usr/bin/env LD_PRELOAD=/usr/lib/x.so /bin/sleep 9", "its ExecStart= sets LD_PRELOAD=/usr/lib/x.so itself"),
        ("/bin/sh -c 'LD_PRELOAD=/a.so exec sleep 9'", "its ExecStart= sets LD_PRELOAD=/a.so itself"),
        ("/usr/bin/env LD_PRELOAD=/opt/jemalloc/current/lib/libjemalloc.so sleep 9", ""),
        ("/bin/sh -c 'test -z \"$LD_PRELOAD\"'", ""),
        ("/usr/bin/env -i /bin/sleep 9", "its ExecStart= clears the environment by env"),
        ("/usr/bin/env -u LD_PRELOAD /bin/sleep 9", "its ExecStart= clears the environment by env"),
        ("/usr/bin/env A=1 /bin/sleep -i", ""),
        ("/bin/sleep - ", ""),
    ],
)
def test_the_command(command: str, reason: str) -> None:
    shown = f"{{ path={command.split()[0]} ; argv[]={command} ; ignore_errors=no ; start_time=[n/a] ; pid=0 }}"
    assert reasons({"ExecStart": shown}) == ([f"{reason}; take that out"] if reason else [])


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"RefuseManualStop": "yes"}, "it runs, and RefuseManualStop=yes lets nobody restart it"),
        ({"RefuseManualStart": "yes"}, "it runs, and RefuseManualStart=yes lets nobody restart it"),
        ({"CanStart": "no"}, "it runs, and systemd cannot start it again (CanStart=no)"),
        ({"CanStart": "yes", "RefuseManualStop": "no"}, ""),
    ],
)
def test_what_cannot_be_restarted(properties: t.Dict[str, str], reason: str) -> None:
    assert reasons(properties) == ([reason] if reason else [])
    assert reasons(properties, active="inactive") == []
