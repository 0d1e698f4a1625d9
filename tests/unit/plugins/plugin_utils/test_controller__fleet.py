# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who builds for whom: trust flows down the inventory, whatever the hosts say and in which order they say it."""

from __future__ import annotations

import itertools
import multiprocessing
import pathlib
import tempfile
import typing as t

import hypothesis
import hypothesis.strategies as st
import pytest

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _cache as caching
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _fleet as fleet
from tests.unit import packed

#: In the order of the inventory; a, b and c build.
HOSTS = {"a": "2.41", "b": "2.36", "x": "2.36", "c": "2.31", "y": "2.41", "z": "2.31"}


def need(libc_version: str = "2.36", version: str = "5.3.1") -> caching.Need:
    """Return the need of a host with that C library."""
    return packed.need(version, libc_version=libc_version)


def trust(host: str, hosts: t.Iterable[str] = tuple(HOSTS), build_host: str = "", shared: bool = True) -> fleet.Trust:
    """Return whose builds a host of an inventory takes."""
    return fleet.trust(host, {"all": list(hosts), "old": ["c", "z"]}, build_host, shared)


def volunteer(directory: pathlib.Path, host: str, hosts: t.Mapping[str, str], version: str = "5.3.1") -> None:
    """Record the need of a host."""
    fleet.volunteer(str(directory), need(hosts[host], version), trust(host, hosts))


def builders(directory: pathlib.Path, hosts: t.Mapping[str, str]) -> dict[str, str]:
    """Return who builds for each host."""
    return {host: fleet.builder(str(directory), need(age)) for host, age in hosts.items()}


@pytest.mark.parametrize(
    ("host", "build_host", "shared", "takes"),
    [
        ("a", "", True, "a"),
        ("c", "", True, "abxc"),
        ("c", "", False, "c"),
        ("a", "z", True, "az"),
        ("c", "old", True, "cz"),
        ("c", "elsewhere", True, ("c", "elsewhere")),
        ("localhost", "", True, ("localhost",)),
    ],
)
def test_trust(host: str, build_host: str, shared: bool, takes: t.Iterable[str]) -> None:
    found = trust(host, build_host=build_host, shared=shared)
    assert found.builders == frozenset(takes)
    assert (found.named, found.shared) == (bool(build_host), shared and host != "localhost")


@pytest.mark.parametrize("order", [*itertools.permutations("abc"), tuple("zyxcba"), tuple("yzxabc")])
def test_each_with_an_older_library_than_all_before_builds(tmp_path: pathlib.Path, order: t.Sequence[str]) -> None:
    for host in [*order, *HOSTS]:
        volunteer(tmp_path, host, HOSTS)
    assert builders(tmp_path, HOSTS) == {"a": "a", "b": "b", "x": "b", "c": "c", "y": "a", "z": "c"}
    served = {host: fleet.waiting(str(tmp_path), need(), host) for host in "abcx"}
    assert served == {"a": "y", "b": "x", "c": "z", "x": ""}
    assert [fleet.position(str(tmp_path), need(), host) for host in "abcx"] == [(1, 3), (2, 3), (3, 3), (1, 3)]


def test_the_oldest_first_builds_for_all(tmp_path: pathlib.Path) -> None:
    hosts = {"a": "2.31", "b": "2.41", "c": "2.36", "d": "2.31"}
    for host in reversed(hosts):
        volunteer(tmp_path, host, hosts)
    assert builders(tmp_path, hosts) == dict.fromkeys(hosts, "a")
    assert fleet.waiting(str(tmp_path), need(), "a") == "b..d (3 hosts)"


def test_a_false_claim_costs_a_build_of_its_host(tmp_path: pathlib.Path) -> None:
    hosts = {**HOSTS, "x": "1.0"}
    for host in hosts:
        volunteer(tmp_path, host, hosts)
    assert builders(tmp_path, hosts) == {"a": "a", "b": "b", "x": "x", "c": "x", "y": "a", "z": "x"}


def test_2_9_is_older_than_2_31(tmp_path: pathlib.Path) -> None:
    hosts = {"a": "2.31", "b": "2.9"}
    for host in hosts:
        volunteer(tmp_path, host, hosts)
    assert builders(tmp_path, hosts) == {"a": "a", "b": "b"}


def test_the_next_one_builds_when_a_builder_withdraws(tmp_path: pathlib.Path) -> None:
    for host in HOSTS:
        volunteer(tmp_path, host, HOSTS)
    fleet.withdraw(str(tmp_path), need(), "b")
    assert builders(tmp_path, HOSTS) == {"a": "a", "b": "x", "x": "x", "c": "c", "y": "a", "z": "c"}
    fleet.withdraw(str(tmp_path), need(), "a")
    fleet.withdraw(str(tmp_path), need(), "c")
    left = {host: age for host, age in HOSTS.items() if host in "xyz"}
    assert builders(tmp_path, left) == {"x": "x", "y": "x", "z": "z"}
    for host in left:
        fleet.withdraw(str(tmp_path), need(), host)
    assert fleet.builder(str(tmp_path), need()) == ""


def test_nobody(tmp_path: pathlib.Path) -> None:
    assert fleet.builder(str(tmp_path), need()) == ""
    assert fleet.waiting(str(tmp_path), need(), "a") == ""
    assert fleet.position(str(tmp_path), need(), "a") == (1, 1)


def test_several_builds(tmp_path: pathlib.Path) -> None:
    for host, version in (("a", "5.3.0"), ("b", "5.3.1"), ("x", "5.3.1"), ("c", "5.3.1"), ("b", "5.3.1")):
        volunteer(tmp_path, host, dict.fromkeys(HOSTS, "2.36"), version)
    needs = [(need(version=version), host) for version, host in (("5.3.0", "a"), ("5.3.1", "b"))]
    assert [fleet.builder(str(tmp_path), each) for each, _host in needs] == ["a", "b"]
    assert [fleet.waiting(str(tmp_path), each, host) for each, host in needs] == ["", "c, x"]
    assert sorted(fleet.position(str(tmp_path), each, host) for each, host in needs) == [(1, 2), (2, 2)]


LIBRARIES = st.sampled_from(["1.0", "2.9", "2.17", "2.31", "2.36", "2.41", "99.9", ""])


@hypothesis.given(claims=st.lists(LIBRARIES, min_size=1, max_size=12), data=st.data())
def test_no_host_ever_uses_a_build_of_a_later_one(claims: t.List[str], data: st.DataObject) -> None:
    hosts = {f"web{number}": claim for number, claim in enumerate(claims)}
    names = list(hosts)
    orders = [data.draw(st.permutations(names)) for _run in range(2)]
    lost = data.draw(st.sets(st.sampled_from(names), max_size=len(names) - 1))
    found = []
    for order in orders:
        with tempfile.TemporaryDirectory() as directory:
            for host in order:
                volunteer(pathlib.Path(directory), host, hosts)
            for host in [host for host in order if host in lost]:
                fleet.withdraw(directory, need(), host)
            found.append(builders(pathlib.Path(directory), hosts))
    assert found[0] == found[1]
    for host in set(names) - lost:
        chosen = found[0][host]
        before = [name for name in names[: names.index(host) + 1] if name not in lost]
        fitting = [name for name in before if need(hosts[name]).age <= need(hosts[host]).age]
        assert chosen in before
        assert chosen in trust(host, hosts).builders
        assert chosen == fitting[0]


def come(directory: pathlib.Path, number: int) -> None:
    """Volunteer as one of many processes."""
    volunteer(directory, f"web{number}", {f"web{each}": f"2.{each % 7 + 20}" for each in range(20)})


def test_many_at_once(tmp_path: pathlib.Path) -> None:
    workers = [multiprocessing.Process(target=come, args=(tmp_path, number)) for number in range(20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert fleet.builder(str(tmp_path), need()) == "web0"
    assert fleet.waiting(str(tmp_path), need(), "web0") == "web1..web19 (19 hosts)"
