# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a fleet has its bundles from: a host that only builds, and a mirror of a cache."""

from __future__ import annotations

import hashlib
import re
import typing as t

from tests.fleet.lab import SUITES, Fleet, mapped, serving

LIBRARY = "/opt/jemalloc/9.9.9/lib/libjemalloc.so.2"


def test_a_host_that_builds_for_others(clean: Fleet, tarball: t.Callable[[str], tuple[str, str]]) -> None:
    fleet = clean
    path, checksum = tarball("9.9.9")
    fleet.run("podman", "cp", path, f"{fleet.oldest}:/root/")
    others = [host for host in fleet.hosts if host != fleet.oldest]
    wanted: dict[str, t.Any] = {
        "jemalloc_hosts": ":".join(others),
        "jemalloc_build_host": fleet.oldest,
        "jemalloc_version": "9.9.9",
        "jemalloc_checksum": checksum,
        "jemalloc_origins": ["/root"],
        "jemalloc_services": ["cron"],
    }
    fleet.play("site", **wanted)
    assert {receipt["method"] for receipt in fleet.receipts("9.9.9", others).values()} == {"bundle"}
    assert {host: mapped(fleet, host, "cron") for host in others} == {host: {LIBRARY} for host in others}
    assert fleet.shell(fleet.oldest, "ls -d /opt/jemalloc*").split() == ["/opt/jemalloc-build"]
    again = fleet.play("site", **wanted)
    assert re.findall(r"changed=(\d+)", again) == ["0"] * len(others)


def test_a_group_of_hosts_that_build(clean: Fleet, tarball: t.Callable[[str], tuple[str, str]]) -> None:
    newest = next(host for host in clean.hosts if clean.suites[host] == SUITES[-1])
    others = [host for host in clean.hosts if host not in (newest, clean.oldest)]
    fleet = clean.ordered(*others, newest, clean.oldest, builders=[newest, clean.oldest])
    path, checksum = tarball("9.9.9")
    for host in (newest, clean.oldest):
        fleet.run("podman", "cp", path, f"{host}:/root/")
    wanted: dict[str, t.Any] = {
        "jemalloc_hosts": ":".join(others),
        "jemalloc_build_host": "builders",
        "jemalloc_version": "9.9.9",
        "jemalloc_checksum": checksum,
        "jemalloc_origins": ["/root"],
    }
    predicted = fleet.play("site", "--check", **wanted)
    printed = fleet.play("site", **wanted)
    assert {receipt["builder"] for receipt in fleet.receipts("9.9.9", others).values()} == {newest}
    # Which lowest C library the first build is going to have, only the build tells.
    assert [changed == "0" for changed in re.findall(r"changed=(\d+)", predicted)] == [False] * len(others)
    assert printed.count(": building jemalloc 9.9.9 for x86_64-glibc on ") == 1
    assert fleet.shell(clean.oldest, "ls -d /opt/jemalloc* || true").startswith("ls: ")
    again = fleet.play("site", **wanted)
    assert re.findall(r"changed=(\d+)", again) == ["0"] * len(others)


def test_a_mirror_of_a_cache(cached: tuple[Fleet, dict[str, t.Any]]) -> None:
    fleet, wanted = cached
    digest = hashlib.sha256((fleet.cache / "index.json").read_bytes()).hexdigest()
    with serving(fleet.cache) as mirror:
        given = {**wanted, "jemalloc_cache": str(fleet.directory / "other"), "jemalloc_cache_mirror": mirror.address}
        untrusted = fleet.play("site", check=False, **given)
        assert "cache_mirror: anybody on the way could change what" in untrusted
        changed = fleet.play("site", check=False, jemalloc_cache_mirror_checksum=f"sha256:{'0' * 64}", **given)
        assert f"SHA-256 is {digest} where" in changed
        assert fleet.shell(fleet.oldest, "ls -d /opt/jemalloc || true").startswith("ls: ")
        mirror.asked.clear()
        fleet.play("site", jemalloc_cache_mirror_checksum=f"sha256:{digest}", **given)
        assert len([path for path in mirror.asked if path.startswith("/bundles/")]) == 1
    assert {host: mapped(fleet, host, "cron") for host in fleet.hosts} == {host: {LIBRARY} for host in fleet.hosts}
