# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root on one host of a fleet is not root on the others: its builds reach no host that does not trust it."""

from __future__ import annotations

import json
import re
import subprocess
import typing as t

import pytest

from tests.attack import lab as attack
from tests.conftest import Run
from tests.fleet import lab
from tests.unit import packed

Tarball = t.Callable[[str], tuple[str, str]]
Evil = t.Callable[..., bytes]

#: Makes a file of root where its library is only looked at.
LIBRARY = r"""
#include <fcntl.h>
const char jemalloc_version[] = "9.9.9-0-g0123abc";
__attribute__((constructor)) static void own(void) { creat("/root/owned", 0600); }
"""


@pytest.fixture(scope="module")
def fleet(run: Run, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[lab.Fleet]:
    """Three hosts alike; the last one is in the hands of somebody else."""
    directory = tmp_path_factory.mktemp("trust")
    place = {"name": "preload-jemalloc-trust", "network": "preload-jemalloc-trust", "subnet": "10.79.41"}
    with attack.taken_over(run, directory, 3, **place) as made:
        yield made


def lie(fleet: lab.Fleet, bundle: bytes, **missing: t.Any) -> None:
    """Let the last host answer these values as missing, and this bundle as what it built."""
    attack.lie(fleet, missing=missing, packed=packed.answer(bundle))


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory, tarball: Tarball) -> Evil:
    """Make a bundle that is said to be a build of 9.9.9 and takes over a host that looks at it."""
    directory = tmp_path_factory.mktemp("evil")
    (directory / "evil.c").write_text(LIBRARY)
    library = directory / "libjemalloc.so.2"
    soname = "-Wl,-soname,libjemalloc.so.2"
    subprocess.run(["gcc", "-shared", "-fPIC", soname, "-o", library, directory / "evil.c"], check=True)
    digest = tarball("9.9.9")[1].partition(":")[2]
    made = {"release": "9.9.9", "source": {"sha256": digest}, "platform": packed.platform(libc_lowest="1.0")}
    return lambda **more: packed.bundle(library.read_bytes(), **{**made, **more})


@pytest.fixture(scope="module")
def wanted(fleet: lab.Fleet, tarball: Tarball) -> dict[str, t.Any]:
    """What asks for the release; its source is on all hosts."""
    path, checksum = tarball("9.9.9")
    for host in fleet.hosts:
        fleet.run("podman", "cp", path, f"{host}:/root/")
    return {"jemalloc_version": "9.9.9", "jemalloc_checksum": checksum, "jemalloc_origins": ["/root"]}


@pytest.fixture
def clean(fleet: lab.Fleet) -> lab.Fleet:
    """The fleet without anything of ours, and an empty cache."""
    fleet.run("rm", "-rf", str(fleet.cache))
    for host in fleet.hosts:
        fleet.shell(host, "rm -rf /opt/jemalloc /opt/jemalloc-build /root/owned")
    return fleet


def builders(fleet: lab.Fleet) -> list[str]:
    """Return who built the bundles of the cache, the oldest first."""
    index = fleet.cache / "index.json"
    return [entry["builder"] for entry in json.loads(index.read_text())] if index.exists() else []


def owned(fleet: lab.Fleet) -> list[str]:
    """Return the hosts on which the library of the other one was run."""
    return [host for host in fleet.hosts if fleet.shell(host, "ls /root/owned 2>/dev/null || true")]


def taken(fleet: lab.Fleet, *hosts: str) -> dict[str, str]:
    """Return whose builds hosts run."""
    return {host: receipt.get("builder", "") for host, receipt in fleet.receipts("9.9.9", hosts).items()}


def test_an_entry_of_a_host_that_is_taken_over(clean: lab.Fleet, wanted: dict[str, t.Any], evil: Evil) -> None:
    first, second, last = clean.hosts
    lie(clean, evil(), libc_version="1.0")
    printed = clean.play("site", jemalloc_hosts=last, **wanted)
    assert f"{last}: building jemalloc 9.9.9" in printed
    assert builders(clean) == [last]

    printed = clean.play("site", jemalloc_hosts=f"{first}:{second}", **wanted)
    assert f"{second}: installing jemalloc 9.9.9, built on {first}" in printed
    assert taken(clean, first, second) == {first: "", second: first}
    assert builders(clean) == [last, first]
    assert owned(clean) == []

    # Even where it stands first: with a build host named, no other one builds for any.
    clean.shell(second, "rm -rf /opt/jemalloc")
    turned = clean.ordered(last, first, second)
    turned.play("site", jemalloc_hosts=second, jemalloc_build_host=first, **wanted)
    assert taken(clean, second) == {second: first}
    assert owned(clean) == []

    listed = clean.play("cache")
    assert f"built on {last} at" in listed
    removed = clean.play("cache", jemalloc_cache_builder=last, jemalloc_cache_state="absent")
    assert f"1 bundle of {last} removed from" in removed
    assert builders(clean) == [first]


def test_the_attack_is_real(clean: lab.Fleet, wanted: dict[str, t.Any], evil: Evil) -> None:
    """A host that the operator trusts by name is trusted: what the test above looks for does come then."""
    first, _second, last = clean.hosts
    lie(clean, evil(), libc_version="1.0")
    clean.play("site", jemalloc_hosts=last, **wanted)
    clean.play("site", check=False, jemalloc_hosts=first, jemalloc_build_host=last, **wanted)
    assert owned(clean) == [first]


def test_all_at_once(clean: lab.Fleet, wanted: dict[str, t.Any], evil: Evil) -> None:
    first, second, last = clean.hosts
    lie(clean, evil(), libc_version="1.0")
    printed = clean.play("site", **wanted)
    assert sorted(re.findall(r"^(\S+): building", printed, re.MULTILINE)) == [first, last]
    assert taken(clean, first, second) == {first: "", second: first}
    assert owned(clean) == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"release": "9.9.8", "source": {"sha256": "0" * 64}}, "it holds jemalloc 9.9.8, not 9.9.9"),
        ({"source": {"sha256": "0" * 64}}, "it was built from another source"),
        ({"platform": packed.platform(architecture="aarch64")}, "it is for aarch64 with glibc, "),
        ({"platform": packed.platform(libc_lowest="2.38")}, "it needs glibc 2.38, "),
    ],
)
def test_an_entry_is_what_was_asked_for(
    clean: lab.Fleet, wanted: dict[str, t.Any], evil: Evil, more: dict[str, t.Any], reason: str
) -> None:
    last = clean.hosts[-1]
    lie(clean, evil(**more))
    printed = re.sub(r"\s+", " ", clean.play("site", check=False, jemalloc_hosts=last, **wanted))
    assert "failed=1" in printed
    assert reason in printed, printed
    assert builders(clean) == []


def test_a_build_host_builds_what_the_play_asks_for(
    clean: lab.Fleet,
    wanted: dict[str, t.Any],
    evil: Evil,
    tarball: Tarball,
) -> None:
    first, second, last = clean.hosts
    path, checksum = tarball("9.9.8")
    clean.run("podman", "cp", path, f"{first}:/root/")
    other = {"version": "9.9.8", "checksum": checksum, "sources": [checksum.partition(":")[2]]}
    lie(clean, evil(), **other)
    given = {**wanted, "jemalloc_build_host": first}
    printed = clean.play("site", check=False, jemalloc_hosts=last, **given)
    assert "failed=1" in printed
    assert "9.9.8" not in clean.shell(first, "ls /opt/jemalloc-build 2>/dev/null || true")
    assert builders(clean) == []
    printed = clean.play("site", check=False, jemalloc_hosts=f"{second}:{last}", **given)
    assert re.search(rf"^{second}\s.*failed=0", printed, re.MULTILINE), printed
    assert taken(clean, second) == {second: first}
    assert clean.shell(first, "ls /opt/jemalloc-build").split() == ["9.9.9", "current"]
