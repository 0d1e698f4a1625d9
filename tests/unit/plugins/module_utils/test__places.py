# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the files of scopes stand, and which refer to an installation."""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
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


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("etc/systemd/system/a.service.d/zz-preload-jemalloc.conf", True),
        ("etc/systemd/user/a.service.d/zz-preload-jemalloc.conf", True),
        ("etc/systemd/system/a.service.d/own.conf", False),
        ("etc/systemd/system/zz-preload-jemalloc.conf", False),
        ("run/systemd/system/a.service.d/zz-preload-jemalloc.conf", False),
        ("etc/systemd/system.conf.d/zz-preload-jemalloc.conf", True),
        ("etc/environment", True),
        ("etc/profile.d/jemalloc.sh", True),
        ("etc/ld.so.preload", True),
        ("etc/ld.so.preload.without-jemalloc", True),
        ("usr/local/bin/tool", True),
        ("usr/local/bin/a/tool", False),
        ("usr/bin/tool", False),
        ("etc/passwd", False),
    ],
)
def test_is_known(root: pathlib.Path, path: str, known: bool) -> None:
    assert places.is_known(str(root / path), str(root)) is known


def test_directories(root: pathlib.Path) -> None:
    put(drop_in(root, "a.service"), SERVICE)
    (root / "etc/systemd/user/b.service.d").mkdir(parents=True)
    (root / "etc/systemd/system/a.timer.d").mkdir()
    names = ["etc", "etc/profile.d", "etc/systemd", "etc/systemd/system", "etc/systemd/system.conf.d"]
    names += ["etc/systemd/system/a.service.d", "etc/systemd/user", "etc/systemd/user/b.service.d", "usr/local/bin"]
    assert sorted({*places.directories(str(root))}) == [str(root / name) for name in names]


def test_drop_ins_of_users_are_told_from_others(root: pathlib.Path) -> None:
    paths = [places.drop_in_path("a.service", user, str(root)) for user in (False, True)]
    assert [places.is_user_drop_in(path) for path in paths] == [False, True]
    assert places.present_drop_ins(str(root)) == []
    for path in paths:
        put(pathlib.Path(path), SERVICE)
    assert places.present_drop_ins(str(root)) == paths


def test_present_commands_are_those_of_ours(root: pathlib.Path) -> None:
    ours = "#!/bin/sh\n# Managed by the Ansible collection preload.jemalloc; changes made here are lost.\n"
    put(root / "usr/local/bin/b", ours)
    put(root / "usr/local/bin/a", f"{ours}{'x' * (4095 - len(ours))}")
    put(root / "usr/local/bin/large", f"{ours}{'x' * (4096 - len(ours))}")
    put(root / "usr/local/bin/other", "#!/bin/sh\n")
    (root / "usr/local/bin/link").symlink_to("b")
    (root / "usr/local/bin/directory").mkdir()
    assert places.present_commands(str(root)) == [str(root / "usr/local/bin" / name) for name in "ab"]


def test_wrapper_links_are_those_into_the_store(root: pathlib.Path) -> None:
    (root / "usr/local/bin").mkdir(parents=True)
    links = [root / "usr/local/bin" / name for name in ("jemalloc.sh", "no-jemalloc.sh")]
    assert places.wrapper_links(PREFIX, str(root)) == []
    links[0].symlink_to(f"{PREFIX}/current/bin/jemalloc.sh")
    links[1].symlink_to("/opt/other/current/bin/no-jemalloc.sh")
    assert places.wrapper_links(PREFIX, str(root)) == [str(links[0])]


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


def test_files_for_more_than_one_service_by_their_scopes(root: pathlib.Path) -> None:
    put(root / "etc/default/locale", "")
    (root / "etc/environment").symlink_to("default/locale")
    assert places.host_files(str(root)) == {
        str(root / "etc/systemd/system.conf.d/zz-preload-jemalloc.conf"): "host",
        str(root / "etc/default/locale"): "login",
        str(root / "etc/profile.d/jemalloc.sh"): "login",
        str(root / "etc/ld.so.preload"): "ld_so_preload",
        str(root / "etc/ld.so.preload.without-jemalloc"): "ld_so_preload",
    }


def test_one_store(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    directory = root / "usr/local/bin"
    directory.mkdir(parents=True)
    (tmp_path / "one" / "current").mkdir(parents=True)
    (tmp_path / "same").symlink_to("one")
    places.check_one_store(str(tmp_path / "two"))
    (directory / "no-jemalloc.sh").symlink_to("/somewhere/else.sh")
    (directory / "jemalloc.sh").symlink_to(tmp_path / "one/current/bin/jemalloc.sh")
    for prefix in ("one", "same"):
        places.check_one_store(str(tmp_path / prefix))
    with pytest.raises(
        JemallocError, match=rf"^prefix: {tmp_path}/two is not where .* that is {tmp_path}/one\. Nothing"
    ):
        places.check_one_store(str(tmp_path / "two"))
    (tmp_path / "one" / "current").rmdir()
    places.check_one_store(str(tmp_path / "two"))
