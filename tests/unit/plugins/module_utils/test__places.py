# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the files of scopes stand, and which refer to an installation."""

from __future__ import annotations

import pathlib

from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from tests.unit.conftest import put

PREFIX = "/opt/jemalloc"
OURS = "/opt/jemalloc/current/lib/libjemalloc.so"
PART = f"# BEGIN preload.jemalloc\nLD_PRELOAD={OURS}\n# END preload.jemalloc\n"
SERVICE = f'# preload.jemalloc\n[Service]\nEnvironment="LD_PRELOAD={OURS}"\n'
MANAGER = f'# preload.jemalloc\n[Manager]\nDefaultEnvironment="LD_PRELOAD={OURS}"\n'


def drop_in(root: pathlib.Path, unit: str) -> pathlib.Path:
    """Return where our drop-in of a unit stands."""
    return root / "etc/systemd/system" / f"{unit}.d" / "zz-preload-jemalloc.conf"


def test_paths() -> None:
    path = places.drop_in_path("a@1.service")
    assert path == "/etc/systemd/system/a@1.service.d/zz-preload-jemalloc.conf"
    assert places.unit_of_drop_in(path) == "a@1.service"


def test_references(root: pathlib.Path) -> None:
    assert places.references(PREFIX, str(root)) == []
    manager = put(root / "etc/systemd/system.conf.d/zz-preload-jemalloc.conf", MANAGER)
    service = put(drop_in(root, "a.service"), SERVICE.replace("current", "5.1.0"))
    environment = put(root / "etc/environment", PART)
    put(drop_in(root, "b.service"), "[Service]\nEnvironment=LD_PRELOAD=/opt/jemalloc/x.so\n")
    put(drop_in(root, "c.service"), SERVICE.replace("/opt/jemalloc/", "/opt/jemalloc2/"))
    assert places.references(PREFIX, str(root)) == [manager, service, environment]
    assert places.references(f"{PREFIX}/5.1.0", str(root)) == [service]
    assert places.references(f"{PREFIX}/5.1", str(root)) == []


def test_references_by_the_list_of_the_dynamic_linker(root: pathlib.Path) -> None:
    path = put(root / "etc/ld.so.preload", f"/a.so {PREFIX}/5.1.0/lib/libjemalloc.so\n")
    assert places.references(PREFIX, str(root)) == [path]
    assert places.references(f"{PREFIX}/5.3.1", str(root)) == []


def test_find_command(tmp_path: pathlib.Path) -> None:
    for name in ("a", "usr/local/bin"):
        (tmp_path / name).mkdir(parents=True)
    tool = put(tmp_path / "a" / "tool", "", 0o755)
    put(tmp_path / "usr/local/bin/tool", "", 0o755)
    path = f":{tmp_path}/usr/local/bin:{tmp_path}/missing:{tmp_path}/a"
    assert places.find_command("tool", path, str(tmp_path)) == tool
    assert places.find_command("other", path, str(tmp_path)) == ""
