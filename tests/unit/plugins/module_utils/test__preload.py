# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scopes: texts, plans, and the change of all files or none."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _preload as preload
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from tests.unit.conftest import put

PREFIX = "/opt/jemalloc"
OURS = "/opt/jemalloc/current/lib/libjemalloc.so"
TEXTS = preload.Texts(
    service="# preload.jemalloc\n[Service]\n@SETTINGS@\n",
    manager="# preload.jemalloc\n[Manager]\n@SETTINGS@\n",
    environment="LD_PRELOAD=@LD_PRELOAD@\n",
    profile="# preload.jemalloc\nexport X=1\n",
)
PART = f"# BEGIN preload.jemalloc\nLD_PRELOAD={OURS}\n# END preload.jemalloc\n"
SERVICE = TEXTS.service.replace("@SETTINGS@", f'Environment="LD_PRELOAD={OURS}"')
MANAGER = TEXTS.manager.replace("@SETTINGS@", f'DefaultEnvironment="LD_PRELOAD={OURS}"')


def drop_in(root: pathlib.Path, unit: str) -> pathlib.Path:
    """Return where our drop-in of a unit stands."""
    return root / "etc/systemd/system" / f"{unit}.d" / "zz-preload-jemalloc.conf"


NOBODY = preload.Scopes()


def unit(root: pathlib.Path, name: str = "puma.service", text: str = "", environment: str = "") -> systemd.Unit:
    """Return a unit with one unit file, and one environment file if that has a text."""
    path = put(root / "usr/lib/systemd/system" / name, f"[Service]\n{text}\n")
    environments = (put(root / "etc/default" / name, environment),) if environment else ()
    return systemd.Unit(name, "active", (path,), environments)


def test_service_text(root: pathlib.Path) -> None:
    assert preload.service_text(unit(root), TEXTS.service, PREFIX, NOBODY) == SERVICE
    foreign = unit(root, text="Environment='LD_PRELOAD=%h/a \"b\"'", environment="A=1\n")
    value = f'{OURS}:%h/a:\\"b\\"'
    assert preload.service_text(foreign, TEXTS.service, PREFIX, NOBODY) == SERVICE.replace(OURS, value)


def test_service_text_leaves_our_own_drop_in_out(root: pathlib.Path) -> None:
    path = put(drop_in(root, "puma.service"), "[Service]\nEnvironment=LD_PRELOAD=/old.so\n")
    found = systemd.Unit("puma.service", "active", (*unit(root).unit_files, path, str(root / "missing.conf")))
    assert preload.service_text(found, TEXTS.service, PREFIX, NOBODY) == SERVICE


def test_service_text_refuses_what_would_win(root: pathlib.Path) -> None:
    found = unit(root, environment="LD_PRELOAD=/a.so\n")
    with pytest.raises(JemallocError) as caught:
        preload.service_text(found, TEXTS.service, PREFIX, NOBODY)
    assert str(caught.value) == (
        f"services: {root}/etc/default/puma.service sets LD_PRELOAD for puma.service and would win over our "
        "drop-in; take that line out, or write it as Environment= in a drop-in of puma.service."
    )


def planned(
    root: pathlib.Path,
    *units: systemd.Unit,
    host: bool = False,
    texts: t.Optional[preload.Texts] = TEXTS,
    prefix: str = PREFIX,
) -> t.Tuple[t.Dict[str, t.Optional[str]], t.List[str]]:
    """Return what a plan changes, by the path below the root, and what is foreign."""
    scopes = preload.Scopes("environment" if host else None, units)
    changes, foreign = preload.plan(scopes, texts, prefix, str(root))
    return (
        {os.path.relpath(change.path, str(root)): change.after for change in changes},
        [os.path.relpath(path, str(root)) for path in foreign],
    )


COMMON = {
    "etc/profile.d/jemalloc.sh": TEXTS.profile,
    "usr/local/bin/jemalloc.sh": "/opt/jemalloc/current/bin/jemalloc.sh",
    "usr/local/bin/no-jemalloc.sh": "/opt/jemalloc/current/bin/no-jemalloc.sh",
}
PUMA = "etc/systemd/system/puma.service.d/zz-preload-jemalloc.conf"
MANAGER_PATH = "etc/systemd/system.conf.d/zz-preload-jemalloc.conf"


def test_plan_of_a_service(root: pathlib.Path) -> None:
    assert planned(root, unit(root)) == ({PUMA: SERVICE, **COMMON}, [])


def test_plan_of_the_host(root: pathlib.Path) -> None:
    put(root / "etc/environment", "A=1\n")
    put(root / "etc/systemd/system.conf", "[Manager]\nDefaultEnvironment=LD_PRELOAD=/a.so\n")
    manager = MANAGER.replace(OURS, f"{OURS}:/a.so")
    assert planned(root, host=True) == ({MANAGER_PATH: manager, "etc/environment": f"A=1\n{PART}", **COMMON}, [])


def test_plan_of_a_host_without_systemd(root: pathlib.Path) -> None:
    (root / "run/systemd/system").rmdir()
    changes, _foreign = planned(root, host=True)
    assert sorted(changes) == ["etc/environment", *sorted(COMMON)]


def test_plan_of_nobody(root: pathlib.Path) -> None:
    assert planned(root) == (COMMON, [])


def test_plan_follows_the_link_of_the_environment(root: pathlib.Path) -> None:
    put(root / "etc/default/locale", "A=1\n")
    (root / "etc/environment").symlink_to("default/locale")
    changes, _foreign = preload.plan(preload.Scopes("environment"), TEXTS, PREFIX, str(root))
    changes_util.apply(changes)
    assert os.readlink(str(root / "etc/environment")) == "default/locale"
    assert (root / "etc/default/locale").read_text() == f"A=1\n{PART}"


def make(
    root: pathlib.Path, *units: systemd.Unit, host: bool = False, present: bool = True
) -> t.List[changes_util.Change]:
    """Plan and apply."""
    scopes = preload.Scopes("environment" if host else None, units)
    changes, _foreign = preload.plan(scopes, TEXTS if present else None, PREFIX, str(root))
    changes_util.apply(changes)
    return changes


Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Tuple[int, t.Any, float]]]


@pytest.mark.parametrize("environment", [None, b"", b"A=1", b"A=1\n", b"\xff\r\n"])
def test_there_and_back(root: pathlib.Path, environment: t.Optional[bytes]) -> None:
    if environment is not None:
        (root / "etc/environment").write_bytes(environment)
        (root / "etc/environment").chmod(0o640)
    units = [unit(root), unit(root, "cron.service")]
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert len(make(root, *units, host=True)) == 7
    assert make(root, *units, host=True) == []
    assert (root / "usr/local/bin/jemalloc.sh").is_symlink()
    assert len(make(root, units[0])) == 3
    assert not drop_in(root, "cron.service").parent.exists()
    assert drop_in(root, "puma.service").exists()
    assert len(make(root, present=False)) == 4
    assert make(root, present=False) == []
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    if environment is not None:
        assert (root / "etc/environment").stat().st_mode & 0o777 == 0o640


def test_a_drop_in_directory_with_something_foreign_stays(root: pathlib.Path) -> None:
    make(root, unit(root))
    foreign = put(drop_in(root, "puma.service").parent / "a.conf", "[Service]\n")
    make(root, present=False)
    assert os.listdir(os.path.dirname(foreign)) == ["a.conf"]


def test_order_is_such_that_nothing_ever_leads_nowhere(root: pathlib.Path) -> None:
    first = [change.path for change in make(root, unit(root), host=True)]
    assert [os.path.relpath(path, str(root)) for path in first] == [
        MANAGER_PATH,
        "etc/environment",
        "etc/profile.d/jemalloc.sh",
        PUMA,
        "usr/local/bin/jemalloc.sh",
        "usr/local/bin/no-jemalloc.sh",
    ]
    last = [os.path.relpath(change.path, str(root)) for change in make(root, present=False)]
    assert last[0] == PUMA
    assert last[-1] == "usr/local/bin/no-jemalloc.sh"


@pytest.mark.parametrize("link", [True, False])
def test_foreign_files_of_our_names_are_left_alone(root: pathlib.Path, link: bool) -> None:
    put(root / "etc/profile.d/jemalloc.sh", "# somebody else's\n")
    command = root / "usr/local/bin/jemalloc.sh"
    command.parent.mkdir(parents=True)
    if link:
        command.symlink_to("/opt/other/jemalloc.sh")
    else:
        command.write_text("#!/bin/sh\n")
    names = ["etc/profile.d/jemalloc.sh", "usr/local/bin/jemalloc.sh"]
    other = "usr/local/bin/no-jemalloc.sh"
    assert planned(root) == ({other: COMMON[other]}, names)
    assert planned(root, texts=None) == ({}, [])


def test_a_profile_of_ours_that_changed_is_put_right(root: pathlib.Path) -> None:
    put(root / "etc/profile.d/jemalloc.sh", "# preload.jemalloc\nold\n", 0o600)
    make(root)
    assert (root / "etc/profile.d/jemalloc.sh").read_text() == TEXTS.profile
    assert (root / "etc/profile.d/jemalloc.sh").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_new_files_and_directories_can_be_read_by_everybody(root: pathlib.Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        make(root, unit(root), host=True)
    finally:
        os.umask(before)
    assert drop_in(root, "puma.service").stat().st_mode & 0o777 == 0o644
    assert drop_in(root, "puma.service").parent.stat().st_mode & 0o777 == 0o755
    assert (root / "usr/local/bin").stat().st_mode & 0o777 == 0o755


def contents(root: pathlib.Path) -> t.Dict[str, t.Union[str, bytes]]:
    """Return every file and link below the root; empty directories that were made on the way do not count."""
    return {
        str(path): os.readlink(str(path)) if path.is_symlink() else path.read_bytes()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_write_over_a_foreign_link(root: pathlib.Path) -> None:
    target = put(root / "etc/target", "kept", 0o600)
    files.replace_link(str(root / "etc/link"), target)
    changes_util.apply([changes_util.Change(str(root / "etc/link"), "kept", "new")])
    assert pathlib.Path(target).read_text() == "kept"
    assert (root / "etc/link").read_text() == "new"


def test_what_a_run_changed_is_given_back(root: pathlib.Path) -> None:
    login, listed = str(root / "etc/environment"), put(root / "etc/ld.so.preload", f"{OURS}::\n/a.so\n")
    put(pathlib.Path(login), f"A=1\n{PART}B=2\n")
    link, command = str(root / "usr/local/bin/jemalloc.sh"), str(root / "usr/local/bin/tool")
    os.makedirs(os.path.dirname(link))
    os.symlink("/opt/jemalloc/current/bin/jemalloc.sh", link)
    before = {login: "A=1\n", listed: "/a.so\n", link: None, command: "#!/bin/sh\n", str(root / PUMA): None}
    changes, left = preload.plan_restored(before, {}, str(root))
    assert changes == [
        changes_util.Change(listed, f"{OURS}::\n/a.so\n", "/a.so\n"),
        changes_util.Change(login, f"A=1\n{PART}B=2\n", "A=1\nB=2\n"),  # what came meanwhile stays
        changes_util.Change(link, "/opt/jemalloc/current/bin/jemalloc.sh", None, link=True, mode=0o755),
        changes_util.Change(command, None, "#!/bin/sh\n", mode=0o755),
    ]
    assert left == []


@pytest.mark.parametrize("path", ["etc/passwd", "etc/systemd/system/a.service.d/own.conf"])
def test_what_is_not_ours_is_not_given_back(root: pathlib.Path, path: str) -> None:
    with pytest.raises(JemallocError) as caught:
        preload.plan_restored({str(root / path): ""}, {}, str(root))
    assert str(caught.value) == (
        f"restore: {root}/{path} is not a file of this module; hand on what it returned as before."
    )


@pytest.mark.parametrize(
    ("now", "left"), [(f"{OURS}::\n/theirs.so\n", "/theirs.so\n"), ("/by-hand.so\n", "/by-hand.so\n")]
)
def test_a_killed_change_of_the_list_is_rolled_back_where_it_stands(root: pathlib.Path, now: str, left: str) -> None:
    listed = pathlib.Path(put(root / "etc/ld.so.preload", now))
    kept = root / f"etc/.ld.so.preload.kept{files.TEMPORARY_SUFFIX}"
    put(kept, "/theirs.so\n")
    preload.clear_leftovers(str(root))
    assert listed.read_text() == left
    assert not kept.exists()
