# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of a host that are not the library's: no store, a stale entry, no D-Bus, a full disk; and its passwords."""

from __future__ import annotations

import json
import os
import re
import subprocess
import typing as t
from pathlib import Path

import pytest

from tests.attack import heal_lab as lab
from tests.conftest import Run

WAYS = ("environment", "ld_so_preload")
ENABLED: dict[str, t.Any] = {"jemalloc_enabled": True, "jemalloc_services": [lab.SERVICE]}

#: What the dynamic linker says at the start of every program.
NOISE = "cannot be preloaded"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, tarball: t.Callable[[str], tuple[str, str]]) -> Path:
    """A bundle of jemalloc 9.9.9."""
    return lab.make_bundle(tmp_path_factory.mktemp("bundle"), tarball("9.9.9"))


@pytest.fixture(scope="session")
def container(
    run: Run,
    tmp_path_factory: pytest.TempPathFactory,
    bundle: Path,
    tarball: t.Callable[[str], tuple[str, str]],
) -> t.Iterator[lab.Host]:
    """A container that nothing was installed in."""
    with lab.host(run, tmp_path_factory.mktemp("host"), bundle, tarball("9.9.9")[1]) as made:
        yield made


@pytest.fixture
def host(container: lab.Host) -> t.Iterator[lab.Host]:
    """The container, and afterwards without anything of ours, whatever a test left in it."""
    yield container
    container.play(jemalloc_state="absent")
    container.shell("! mountpoint -q /opt/jemalloc || umount -l /opt/jemalloc; rm -rf /opt/jemalloc")


def check_healthy(host: lab.Host, **wanted: t.Any) -> None:
    """See that the service and a login have the library, that nothing complains, and that a second run does nothing."""
    assert host.mapped() == {lab.LIBRARY}
    assert lab.LIBRARY in host.login("cat /proc/self/maps")
    assert host.login("/bin/true") == ""
    assert host.shell("cat /etc/ld.so.preload 2>/dev/null | grep -v :: || true; /bin/true") == ""
    assert "changed=0" in host.play(**wanted)


@pytest.mark.parametrize("how", ["removed", "unmounted"])
@pytest.mark.parametrize("via", WAYS)
def test_the_store_is_gone(host: lab.Host, via: str, how: str) -> None:
    wanted: dict[str, t.Any] = {**ENABLED, "jemalloc_enabled_via": via}
    if how == "unmounted":
        host.shell("mkdir -p /opt/jemalloc && mount -t tmpfs tmpfs /opt/jemalloc && chmod 755 /opt/jemalloc")
    host.play(**wanted)
    assert host.mapped() == {lab.LIBRARY}
    host.shell("rm -rf /opt/jemalloc" if how == "removed" else "umount -l /opt/jemalloc")
    host.shell(f"systemctl restart {lab.SERVICE}")  # as at the next boot
    assert NOISE in host.login("/bin/true")
    assert host.mapped() == set()
    printed = host.play(fails=True, bare=True, jemalloc_version="previous", **wanted)
    assert "version: there is no previous installation in /opt/jemalloc to go back to; name a release" in printed
    host.play("--check", bare=True, jemalloc_version="5.3.0", **wanted)  # apt is asked for its archives
    printed = host.play(**wanted)
    assert "[ERROR]" not in printed
    check_healthy(host, **wanted)


@pytest.mark.parametrize("via", WAYS)
def test_an_unmanaged_entry_is_stale(host: lab.Host, via: str) -> None:
    host.shell("echo /opt/gone.so > /etc/ld.so.preload")
    try:
        printed = host.play(**ENABLED, jemalloc_enabled_via=via)
        assert "/etc/ld.so.preload preloads /opt/gone.so, which does not exist; remove it there." in printed
        assert "does not count against it: /bin/true, /bin/sh, /usr/bin/python3" in printed
        assert host.mapped() == {lab.LIBRARY}
        assert "changed=0" in host.play(**ENABLED, jemalloc_enabled_via=via)
        host.play(jemalloc_state="absent")
        # the shell itself complains as well
        assert "/opt/gone.so" in host.shell("cat /etc/ld.so.preload").splitlines()
    finally:
        host.shell("rm /etc/ld.so.preload")


@pytest.mark.parametrize("via", WAYS)
def test_no_dbus(host: lab.Host, via: str) -> None:
    host.shell("systemctl stop dbus.socket dbus.service; systemctl mask --runtime dbus.socket dbus.service")
    try:
        assert "Failed to" in host.shell("systemd-run --wait true", check=False)
        printed = host.play(**ENABLED, jemalloc_enabled_via=via)
        assert "does not count against it: systemd-run (exit status 1: Failed to" in printed
        assert host.mapped() == {lab.LIBRARY}
    finally:
        host.shell("systemctl unmask --runtime dbus.socket dbus.service; systemctl start dbus.socket")


SECRET = "s3cret"


def check_hidden(printed: str) -> None:
    """See that the password is nowhere in a text; where it is, show its place alone."""
    assert re.findall(rf".{{0,200}}{SECRET}.{{0,60}}", printed) == []


def test_passwords_are_not_shown(host: lab.Host) -> None:
    place = f"http://svc:{SECRET}@127.0.0.1:9/debian"
    host.shell(f"echo 'deb [trusted=yes] {place} bookworm main' > /etc/apt/sources.list.d/secret.list")
    try:
        # A direct query of apt shows the password: the test is about what is done with it.
        query = "apt-get indextargets --no-release-info --format '$(REPO_URI)' 'Created-By: Packages'"
        assert SECRET in host.shell(query)
        # Without an address among the origins the host looks for the source itself, and not the controller.
        own = {"jemalloc_version": "5.3.0", "jemalloc_origins": ["/missing.tar.gz"]}
        printed = host.play("-vvv", fails=True, bare=True, **own)
        assert "127.0.0.1:9" in printed
        check_hidden(printed)
        printed = host.play("-vvv", fails=True, jemalloc_origins=[place], jemalloc_method="source")
        assert "origins: a URL holds a user name or password" in printed
        check_hidden(printed)
        host.play(jemalloc_services=[lab.SERVICE])
        # Nothing is to be installed now, so that nobody looks at them.
        printed = host.play("-vvv", jemalloc_services=[lab.SERVICE], jemalloc_origins=[place])
        check_hidden(printed)
        check_hidden(host.shell("journalctl --no-pager; cat /opt/jemalloc/*/receipt.json /var/log/preload* || true"))
    finally:
        host.shell("rm /etc/apt/sources.list.d/secret.list")


@pytest.fixture
def disk(tmp_path: Path) -> t.Iterator[Path]:
    """A file system of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*sudo, "mount", "-t", "tmpfs", "-o", "size=1m,mode=1777", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run([*sudo, "umount", str(path)], check=True)


@pytest.mark.parametrize("free", [0, 4, 8, 16, 24, 32])
def test_a_full_disk_is_no_reason_to_build(
    disk: Path, bundle: Path, tarball: t.Callable[[str], tuple[str, str]], free: int
) -> None:
    source, checksum = tarball("9.9.9")
    filler = disk / "filler"
    filler.write_bytes(b"\0" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - free * 1024))
    found = lab.run_module(
        "jemalloc",
        prefix=str(disk / "jemalloc"),
        version="9.9.9",
        checksum=checksum,
        bundle=str(bundle),
        origins=[source],
        build_packages=False,
    )
    assert found["failed"]
    assert found["msg"].startswith(f"{disk}/jemalloc")
    assert found["msg"].endswith("No space left on device; make room there.")
    assert "warnings" not in found, json.dumps(found)
    assert not (disk / "jemalloc" / "9.9.9").exists()
