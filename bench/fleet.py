# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet costs: this collection beside a role that compiles per host, the distribution's package, and two pings.

Run it by `make bench-fleet`, or as python -m bench.fleet --sources DIRECTORY [--hosts 1,5,10,20,40] [--peer DIRECTORY].
The peer is a clone of the public role carrolcox/ansible-jemalloc, which is changed as little as makes it load today:
its bare include becomes include_tasks. All ways run on the same kind of fleet, systemd containers of Debian 11, 12 and
13 that are new for each of them, with the same source from a server on this machine, which the bridge of the fleet
reaches too. Writes the table docs/fleet.md and the plot docs/fleet.svg.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

from bench.fleet_figures import Figures, plot, promises, table
from tests.fleet import lab

ROOT = Path(__file__).resolve().parents[1]

SERVICE = "cron"

# So many times a second run and two pings take turns; odd, for the median.
TURNS = 3

PING = """
- hosts: all
  gather_facts: false
  tasks: [{ansible.builtin.ping: {}}, {ansible.builtin.ping: {}}]
"""

PACKAGE = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.apt: {name: libjemalloc2}
    - ansible.builtin.file: {path: /etc/systemd/system/SERVICE.service.d, state: directory, mode: "0755"}
    - ansible.builtin.template: {src: DROP_IN, dest: /etc/systemd/system/SERVICE.service.d/jemalloc.conf, mode: "0644"}
      notify: Restart
  handlers:
    - name: Restart
      ansible.builtin.systemd_service: {name: SERVICE, state: restarted, daemon_reload: true}
"""

DROP_IN = "[Service]\nEnvironment=LD_PRELOAD=/usr/lib/x86_64-linux-gnu/libjemalloc.so.2\n"

PEER = """
- hosts: all
  roles: [ROLE]
"""

PAGE = """# What a fleet costs

Measured on {date} on a machine with {cores} processors by `make bench-fleet`: controller and hosts (systemd containers
of Debian 11, 12 and 13 in turn, reached by ssh) share them, so wall time grows with all CPU time. `bench/fleet.py` says
what the ways are.

{promises}

![wall and CPU time over the number of hosts](fleet.svg)

{table}
"""


@dataclasses.dataclass(frozen=True)
class Step:
    """A run of a way that is measured, or if its phase is empty only made."""

    way: str
    phase: str
    playbook: str
    variables: dict[str, t.Any] = dataclasses.field(default_factory=dict)


class Bench:
    """A fleet under measurement."""

    def __init__(self, fleet: lab.Fleet, environment: dict[str, str]) -> None:
        """Look up the first process of each host, through which its kernel counters are read."""
        self._fleet = fleet
        self._environment = environment
        self._pids = {
            host: int(fleet.run("podman", "inspect", "--format", "{{.State.Pid}}", host)) for host in fleet.hosts
        }

    def measure(self, step: Step) -> Figures:
        """Make one run and return what it took."""
        extra = ["--extra-vars", json.dumps(step.variables)] if step.variables else []
        command = ["ansible-playbook", "--inventory", str(self._fleet.inventory), *extra, step.playbook]
        calls, cpu, sent = self._calls(), self._cpu(), self._received()
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(
            command, cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(f"{step.way}, {step.phase}: {done.stdout.decode()[-4000:]}")
        hosts = len(self._fleet.hosts)
        controller = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Figures(
            step.way,
            hosts,
            step.phase,
            wall,
            controller,
            self._cpu() - cpu,
            (self._received() - sent) / hosts,
            (self._calls() - calls) / hosts,
        )

    def _cpu(self) -> float:
        """Return the CPU seconds of all hosts so far, as the control groups of their containers count them."""
        return sum(cpu_seconds(Path(f"/proc/{pid}/cgroup").read_text()) for pid in self._pids.values())

    def _received(self) -> int:
        """Return the bytes that all hosts got over the network so far."""
        total = 0
        for pid in self._pids.values():
            lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.strip().startswith("eth"))
        return total

    def _calls(self) -> int:
        """Return how many modules the hosts ran so far, as they write it into their journals."""
        count = "journalctl --no-pager --output=cat --grep='^Invoked with' | wc -l"
        return sum(int(self._fleet.shell(host, count, check=False).split()[-1]) for host in self._fleet.hosts)


def cpu_seconds(cgroup: str) -> float:
    """Return the CPU seconds of the container that a /proc/PID/cgroup belongs to; v1, or v2 where there is no v1."""
    for line in sorted(cgroup.splitlines(), key=lambda line: "cpuacct" not in line):
        _number, controllers, path = line.split(":", 2)
        # its own group stands above those that its systemd makes
        top = re.match(r".*?libpod-[^/]*", path)
        if top and "cpuacct" in controllers:
            return int(Path(f"/sys/fs/cgroup/cpuacct{top[0]}/cpuacct.usage").read_text()) / 1e9
        if top and not controllers:
            text = Path(f"/sys/fs/cgroup{top[0]}/cpu.stat").read_text()
            return int(dict(each.split() for each in text.splitlines())["usage_usec"]) / 1e6
    raise SystemExit("The control groups of this machine count no CPU seconds.")


def runner(environment: dict[str, str]) -> t.Callable[..., str]:
    """Return what runs a command and gives back what it printed."""

    def run(*command: str, check: bool = True, **more: str) -> str:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**environment, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        if check and done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stdout[-4000:]}")
        return done.stdout

    return run


def peer_role(checkout: Path, work: Path) -> Path:
    """Copy the peer's role with its bare include replaced, and return a playbook for it."""
    role = work / "peer"
    shutil.copytree(checkout, role, ignore=shutil.ignore_patterns(".git"))
    for path in role.glob("tasks/*.yml"):
        path.write_text(re.sub(r"^(\s*)include:", r"\1include_tasks:", path.read_text(), flags=re.MULTILINE))
    return write(work / "peer.yml", PEER.replace("ROLE", str(role)))


def write(path: Path, text: str) -> Path:
    """Write a file and return its path."""
    path.write_text(text)
    return path


def release(version: str, checksums: t.Mapping[str, str]) -> dict[str, str]:
    """Return the variables that ask for a release."""
    checksum = {"jemalloc_checksum": checksums[version]} if version in checksums else {}
    return {"jemalloc_version": version, **checksum}


def steps(
    work: Path, server: lab.Sources, releases: t.Sequence[dict[str, str]], peer: Path | None
) -> dict[str, list[Step]]:
    """Return the runs that each kind of fleet sees.

    Ours and its floor take turns on the same hosts, so that what else the machine does meets both alike.
    """
    site = str(ROOT / "playbooks" / "site.yml")
    old, new = releases
    drop_in = write(work / "jemalloc.conf", DROP_IN)
    ours: dict[str, t.Any] = {"jemalloc_services": [SERVICE], "jemalloc_origins": [server.address]}
    cold, warm = {"jemalloc_cache": str(work / "cold")}, {"jemalloc_cache": str(work / "warm")}
    package = write(work / "package.yml", PACKAGE.replace("SERVICE", SERVICE).replace("DROP_IN", str(drop_in)))
    ping = str(write(work / "ping.yml", PING))
    turns = [Step("two pings", "second", ping), Step("ours", "second", site, {**ours, **warm, **old})]
    found = {
        "cache": [Step("filling the cache", "", site, {**ours, **warm, **each}) for each in releases],
        "ours": [
            Step("ours", "first, cached", site, {**ours, **warm, **old}),
            *(turns * TURNS),
            Step("ours", "upgrade, cached", site, {**ours, **warm, **new}),
        ],
        "package": [Step("package", phase, str(package)) for phase in ("first", "second")],
        "ours, from nothing": [
            Step("ours, from nothing", "first", site, {**ours, **cold, **old}),
            Step("ours, from nothing", "upgrade", site, {**ours, **cold, **new}),
        ],
    }
    if peer:
        # the hosts reach the server by the bridge; the path is the one of upstream's releases
        given = {"jemalloc_repo": f"http://{lab.SUBNET}.1:{server.server_address[1]}"}
        phases = (("first", old), ("second", old), ("upgrade", new))
        found["peer"] = [
            Step("peer", phase, str(peer), {**given, "jemalloc_version": each["jemalloc_version"]})
            for phase, each in phases
        ]
    return found


def measure(
    run: t.Callable[..., str], environment: dict[str, str], hosts: int, runs: t.Sequence[Step]
) -> list[Figures]:
    """Make the runs on a new fleet of so many hosts; of those made several times, take the one of median wall time."""
    suites = [lab.SUITES[number % len(lab.SUITES)] for number in range(hosts)]
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, lab.fleet(run, Path(directory), suites) as fleet:
        bench = Bench(fleet, environment)
        found: dict[tuple[str, str], list[Figures]] = {}
        for step in runs:
            figures = bench.measure(step)
            print(
                f"{hosts:3} hosts, {step.way}, {step.phase}: {figures.wall:.1f} s, {figures.cpu:.1f} CPU s", flush=True
            )
            found.setdefault((step.way, step.phase), []).append(figures)
    medians = [sorted(each, key=lambda one: one.wall)[len(each) // 2] for each in found.values()]
    return [each for each in medians if each.phase]


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default="1,5,10,20,40")
    parser.add_argument("--peer", type=Path, help="a clone of the peer's repository; without it that way is left out")
    parser.add_argument("--peer-hosts", default="1,5,10,20,40", help="on so many hosts; each of them compiles")
    parser.add_argument("--cold-hosts", default="1,5,10,20,40", help="so many hosts for ours with an empty cache")
    parser.add_argument("--sources", type=Path, required=True, help="directory with jemalloc-VERSION.tar.bz2")
    parser.add_argument("--checksum", action="append", default=[], help="VERSION=sha256:... of another one")
    parser.add_argument("--old", default="5.3.0", help="the release of the first run")
    parser.add_argument("--new", default="5.3.1", help="the release of the upgrade")
    parser.add_argument("--forks", default="20")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="directory of fleet.md and fleet.svg")
    return parser.parse_args()


def environment_of(forks: str) -> dict[str, str]:
    """Return the environment of the runs."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CONTAINERS_CONF": str(ROOT / ".ci" / "containers.conf"),
        "ANSIBLE_FORKS": forks,
        "ANSIBLE_PIPELINING": "1",
        "NO_PROXY": "127.0.0.1",
        "LC_ALL": "C.UTF-8",
    }


def runs_of(given: argparse.Namespace, names: t.Iterable[str]) -> list[tuple[int, str]]:
    """Return the sizes and kinds of the fleets; those that compile on hosts take most of the time, and come last."""
    limits = {"peer": given.peer_hosts, "ours, from nothing": given.cold_hosts}
    sizes = given.hosts.split(",")
    wanted = [(int(size), name) for size in sizes for name in names if size in limits.get(name, given.hosts).split(",")]
    return sorted(wanted, key=lambda each: each[1] in limits)


def page(found: t.Sequence[Figures], date: str) -> str:
    """Return the page of figures that were measured on this machine."""
    return PAGE.format(date=date, cores=os.cpu_count(), promises="\n".join(promises(found)), table=table(found))


def main() -> None:
    """Measure, and write the table and the plot."""
    given = arguments()
    environment = environment_of(given.forks)
    run = runner(environment)
    found: list[Figures] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, lab.serving(given.sources, "") as server:
        work = Path(directory)
        peer = peer_role(given.peer, work) if given.peer else None
        checksums = dict(each.split("=", 1) for each in given.checksum)
        releases = [release(version, checksums) for version in (given.old, given.new)]
        ways = steps(work, server, releases, peer)
        measure(run, environment, len(lab.SUITES), ways.pop("cache"))
        for size, name in runs_of(given, list(ways)):
            shutil.rmtree(work / "cold", ignore_errors=True)
            found += measure(run, environment, size, ways[name])
            given.out.mkdir(exist_ok=True)
            write(given.out / "fleet.json", json.dumps([dataclasses.asdict(each) for each in found], indent=2))
            write(given.out / "fleet.md", page(found, time.strftime("%Y-%m-%d")))
            plot(found, given.out / "fleet.svg")
    print(table(found), "", *promises(found), sep="\n")


if __name__ == "__main__":
    main()
