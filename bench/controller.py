# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller pays for a fleet far larger than this machine: our two actions, and the role, beside two pings.

Run it by `make bench-controller`, or as bench/controller.py [--hosts 100,1000,10000]. The hosts are not there: a
connection plugin of this bench answers at once. Prints CPU seconds and the largest memory of the controller per host.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PLAY = "- hosts: all\n  gather_facts: false\n  {does}\n"

#: The ways: two tasks each, and the role where nothing is left to do, which is one module call.
WAYS = {
    "pings": "tasks: [{ansible.builtin.ping: {}}, {ansible.builtin.ping: {}}]",
    "ours": "tasks: [{preload.jemalloc.jemalloc: {}}, {preload.jemalloc.jemalloc_preload: {services: [puma]}}]",
    "role": "roles: [{role: preload.jemalloc.jemalloc, jemalloc_services: [puma]}]",
}

#: The largest ratio to pings that is promised for our actions.
TARGET = 1.2


def measure(way: str, hosts: int, work: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Return the CPU seconds of a play and the largest memory in MiB of any of its processes."""
    (work / "hosts").write_text("".join(f"host{number:05} ansible_connection=instant\n" for number in range(hosts)))
    (work / "play.yml").write_text(PLAY.replace("{does}", WAYS[way]))
    command = ["ansible-playbook", "--inventory", str(work / "hosts"), str(work / "play.yml")]
    # the shell's own time counts all that it waited for; ru_maxrss of waited-for children is of the largest one
    script = "import os, resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL); "
    script += "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
    script += "print(done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)"
    done = subprocess.run(
        [sys.executable, "-c", script, *command], env=environment, stdout=subprocess.PIPE, encoding="utf-8", check=True
    )
    status, cpu, memory = done.stdout.split()
    if status != "0":
        raise SystemExit(f"{' '.join(command)} ended with {status}.")
    return float(cpu), float(memory)


def main(arguments: t.Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default="100,1000,10000")
    given = parser.parse_args(arguments)
    environment = {
        **{key: value for key, value in os.environ.items() if not re.match("ANSIBLE_", key)},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANSIBLE_CONNECTION_PLUGINS": str(ROOT / "bench" / "plugins" / "connection"),
        "ANSIBLE_FORKS": str(len(os.sched_getaffinity(0)) * 2),
        "ANSIBLE_PIPELINING": "1",
        "LC_ALL": "C.UTF-8",
    }
    print(f"{'hosts':>8}{'way':>8}{'CPU ms a host':>16}{'MiB':>8}{'ratio':>8}{'target':>8}")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        for hosts in map(int, given.hosts.split(",")):
            spent = {way: measure(way, hosts, Path(name), environment) for way in WAYS}
            for way, (cpu, memory) in spent.items():
                ratio = cpu / spent["pings"][0]
                target = f"{TARGET:8.2f}" if way == "ours" else ""
                print(f"{hosts:8}{way:>8}{cpu * 1000 / hosts:16.1f}{memory:8.0f}{ratio:8.2f}{target}", flush=True)


if __name__ == "__main__":
    main()
