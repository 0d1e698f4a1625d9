# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet pays for one download and one build, whatever dies in the middle of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import typing as t
from pathlib import Path

import pytest

from tests.fleet.lab import SUITES, Fleet, Sources, mapped, serving, start, wait_until

Tarball = t.Callable[[str], tuple[str, str]]


def test_one_download_and_one_build(clean: Fleet, sources: Sources) -> None:
    fleet = clean
    wanted: dict[str, t.Any] = {
        "jemalloc_version": "5.3.0",
        "jemalloc_origins": [sources.address],
        "jemalloc_services": ["cron"],
    }
    sources.asked.clear()
    with_compiler = [host for host in fleet.hosts if fleet.shell(host, "command -v gcc || true")]  # of earlier tests
    printed = fleet.play("site", **wanted)
    receipts = fleet.receipts("5.3.0", fleet.hosts)
    built = [host for host, receipt in receipts.items() if receipt["method"] == "source"]
    assert sources.asked == ["/jemalloc-5.3.0.tar.bz2"]
    assert built == [fleet.oldest] == [fleet.hosts[0]]
    assert {receipt["method"] for host, receipt in receipts.items() if host not in built} == {"bundle"}
    assert len({receipt["library_sha256"] for receipt in receipts.values()}) == 1
    compilers = [host for host in fleet.hosts if fleet.shell(host, "command -v gcc || true")]
    assert set(compilers) == {*with_compiler, *built}
    library = "/opt/jemalloc/5.3.0/lib/libjemalloc.so.2"
    assert {host: mapped(fleet, host, "cron") for host in fleet.hosts} == {host: {library} for host in fleet.hosts}

    said_by_hosts(fleet, printed, built[0], sources.address)
    assert {receipt.get("builder") for host, receipt in receipts.items() if host not in built} == {built[0]}
    again = fleet.play("site", **wanted)
    assert re.findall(r"changed=(\d+)", again) == ["0"] * len(fleet.hosts)
    said = re.findall(r"^fleet\d+: .*", again, re.MULTILINE)
    assert sorted(said) == [f"{host}: jemalloc 5.3.0; pending: none" for host in fleet.hosts]
    assert sources.asked == ["/jemalloc-5.3.0.tar.bz2"]


def said_by_hosts(fleet: Fleet, printed: str, builder: str, address: str) -> None:
    """See what a first run prints of the hosts, of which one builds."""
    said = re.findall(r"^fleet\d\S*(?: \(\d+ hosts\))?: .*", printed, re.MULTILINE)
    others = [host for host in fleet.hosts if host != builder]
    ends = [line for line in said if line.endswith("pending: none")]
    end = "jemalloc 5.3.0; restarted and verified cron (1 process); pending: none"
    assert sorted(ends) == [f"{host}: {end}" for host in fleet.hosts]
    goes_on = re.compile(r"building jemalloc 5\.3\.0 \(\d+ s\)$")  # every 15 s
    said = [line for line in said if line not in ends and not goes_on.search(line)]
    assert said[:3] == [
        f"{builder}: downloaded the source from {address}/jemalloc-5.3.0.tar.bz2",
        f"{builder}: building jemalloc 5.3.0 for x86_64-glibc (1 of 1)",
        f"{others[0]}..{others[-1]} ({len(others)} hosts): waiting for that build",
    ]
    assert re.fullmatch(rf"{builder}: built jemalloc 5.3.0 in \d+ s", said[3])
    assert sorted(said[4:]) == [f"{host}: installing jemalloc 5.3.0, built on {builder}" for host in others]


def test_a_mixed_fleet_with_the_newest_first(clean: Fleet, tarball: Tarball) -> None:
    newest_first = tuple(sorted(clean.hosts, key=lambda host: (-SUITES.index(clean.suites[host]), host)))
    fleet = clean.ordered(*newest_first)
    path, checksum = tarball("9.9.9")
    with serving(Path(path).parent) as server:
        printed = fleet.play(
            "site", jemalloc_version="9.9.9", jemalloc_checksum=checksum, jemalloc_origins=[server.address]
        )
        assert server.asked == ["/jemalloc-9.9.9.tar.bz2"]
    first = {suite: next(host for host in newest_first if fleet.suites[host] == suite) for suite in SUITES}
    builders = [first[suite] for suite in reversed(SUITES)]
    receipts = fleet.receipts("9.9.9", fleet.hosts)
    assert [host for host, receipt in receipts.items() if receipt["method"] == "source"] == builders
    taken = {host: receipt["builder"] for host, receipt in receipts.items() if receipt["method"] == "bundle"}
    assert taken == {host: first[fleet.suites[host]] for host in newest_first if host not in builders}
    assert sorted(re.findall(r"building jemalloc 9.9.9 for x86_64-glibc \((\d) of 3\)", printed)) == ["1", "2", "3"]
    entries = json.loads((fleet.cache / "index.json").read_text())
    assert sorted(entry["builder"] for entry in entries) == sorted(builders)
    again = fleet.play("site", jemalloc_version="9.9.9", jemalloc_checksum=checksum, jemalloc_origins=[server.address])
    assert re.findall(r"changed=(\d+)", again) == ["0"] * len(fleet.hosts)


@pytest.fixture
def slow(clean: Fleet, tarball: Tarball) -> dict[str, t.Any]:
    """What asks for a release that takes its time to build; its source is on all hosts."""
    path, checksum = tarball("8.8.8")
    for host in clean.hosts:
        clean.run("podman", "cp", path, f"{host}:/root/")
    return {"jemalloc_version": "8.8.8", "jemalloc_checksum": checksum, "jemalloc_origins": ["/root"]}


def read_until(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """Read what a process prints up to a line."""
    assert process.stdout
    printed = []
    for line in process.stdout:
        printed.append(line)
        found = re.search(pattern, line)
        if found:
            return found
    raise AssertionError("".join(printed))


def check(fleet: Fleet, hosts: t.Sequence[str]) -> list[str]:
    """See that these hosts have their own build or that of a host before them; return the hosts that made one."""
    receipts = fleet.receipts("8.8.8", hosts)
    made = {host: receipt.get("builder", host) for host, receipt in receipts.items()}
    assert {host: builder for host, builder in made.items() if builder > host} == {}
    own = {receipt["library_sha256"] for host, receipt in receipts.items() if made[host] == host}
    assert {receipt["library_sha256"] for receipt in receipts.values()} == own
    return [host for host, receipt in receipts.items() if receipt["method"] == "source"]


def oldest_so_far(fleet: Fleet, hosts: t.Sequence[str]) -> list[str]:
    """Return the hosts with an older C library than all before them: those build, as nobody trusts a host after it."""
    ages = [SUITES.index(fleet.suites[host]) for host in hosts]
    return [host for position, host in enumerate(hosts) if ages[position] < min(ages[:position], default=len(SUITES))]


def end_build(fleet: Fleet, builder: str) -> None:
    """Kill the processes of a build, with the module that waits for them."""
    fleet.shell(builder, "pkill -KILL python3; pkill -KILL configure; pkill -KILL sleep", check=False)


def end_host(fleet: Fleet, builder: str) -> None:
    """Take a host off the power."""
    fleet.run("podman", "kill", builder)


@pytest.mark.parametrize("end", [end_build, end_host])
def test_another_host_takes_over(
    clean: Fleet,
    slow: dict[str, t.Any],
    environment: dict[str, str],
    end: t.Callable[[Fleet, str], None],
) -> None:
    process = start(clean, environment, "site", **slow)
    builder = read_until(process, r"^(fleet\d+): building")[1]
    wait_until(lambda: "sleep" in clean.shell(builder, "ps -e -o comm="))
    end(clean, builder)
    printed, _errors = process.communicate()
    assert process.returncode
    survivors = [host for host in clean.hosts if host != builder]
    assert check(clean, survivors) == oldest_so_far(clean, survivors), printed
    if end is end_host:
        clean.run("podman", "start", builder)
        wait_until(lambda: clean.reaches(builder))
    assert "failed=0" in clean.play("site", **slow)
    assert check(clean, clean.hosts) == [builder, *oldest_so_far(clean, survivors)]


def test_the_controller_dies(clean: Fleet, slow: dict[str, t.Any], environment: dict[str, str]) -> None:
    process = start(clean, environment, "site", **slow)
    builder = read_until(process, r"^(fleet\d+): building")[1]
    wait_until(lambda: "sleep" in clean.shell(builder, "ps -e -o comm="))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    clean.play("site", **slow)
    assert check(clean, clean.hosts) == [builder]
    assert len(list((clean.cache / "bundles").iterdir())) == 1
