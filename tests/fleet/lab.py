# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets of systemd containers that are reached by ssh, and a server of sources that counts what is fetched from it."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import subprocess
import threading
import time
import typing as t
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.checkout import ROOT
from tests.conftest import Run

NETWORK, SUBNET = "preload-jemalloc-fleet", "10.79.1"

#: The C libraries of these differ: glibc 2.31, 2.36, 2.41. The first host has the oldest, so it builds for all.
SUITES = ("bullseye", "bookworm", "trixie")

#: A host that is gone is noticed after some seconds, not after the minutes that TCP takes.
SSH = (
    "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "
    "-o ServerAliveInterval=3 -o ServerAliveCountMax=3"
)


@dataclass
class Fleet:
    """Hosts that run, how they are reached, and the controller's directory for all that a test leaves."""

    run: Run
    directory: Path
    hosts: tuple[str, ...] = ()
    suites: dict[str, str] = field(default_factory=dict)
    listing: str = "hosts.json"

    @property
    def inventory(self) -> Path:
        """The inventory file."""
        return self.directory / self.listing

    @property
    def cache(self) -> Path:
        """The controller's cache."""
        return self.directory / "cache"

    @property
    def oldest(self) -> str:
        """The host with the oldest C library, which builds for all as the first one."""
        return next(host for host in self.hosts if self.suites[host] == SUITES[0])

    def ordered(self, *hosts: str, **groups: t.Sequence[str]) -> Fleet:
        """Return the fleet with an inventory that lists these hosts in this order, and these groups."""
        inventory = json.loads(self.inventory.read_text())
        known = inventory["all"]["hosts"]
        inventory["all"]["hosts"] = {host: known[host] for host in hosts}
        inventory["all"]["children"] = {name: {"hosts": dict.fromkeys(group)} for name, group in groups.items()}
        made = replace(self, hosts=hosts, listing=f"{'-'.join([*hosts, *groups])}.json")
        made.inventory.write_text(json.dumps(inventory))
        return made

    def variables(self) -> dict[str, t.Any]:
        """Return what all hosts have in common."""
        return {
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_private_key_file": str(self.directory / "key"),
            "ansible_ssh_common_args": SSH,
            "jemalloc_cache": str(self.cache),
        }

    def command(self, playbook: str, *arguments: str, **variables: t.Any) -> list[str]:
        """Return the command that plays a playbook of the collection."""
        extra = ["--extra-vars", json.dumps(variables)] if variables else []
        return ["ansible-playbook", "--inventory", str(self.inventory), *extra, *arguments, f"playbooks/{playbook}.yml"]

    def play(self, playbook: str, *arguments: str, check: bool = True, **variables: t.Any) -> str:
        """Play a playbook and return what it printed."""
        settings = {"ANSIBLE_FORKS": "2", "ANSIBLE_PIPELINING": "1"}
        return self.run(*self.command(playbook, *arguments, **variables), check=check, **settings)

    def shell(self, host: str, script: str, check: bool = True) -> str:
        """Run a script on a host."""
        return self.run("podman", "exec", host, "sh", "-c", script, check=check)

    def reaches(self, host: str) -> bool:
        """Whether the controller gets to a host; one that was started anew has another address of the link layer."""
        ping = ("ansible", "--inventory", str(self.inventory), "--module-name=ansible.builtin.ping", host)
        return "SUCCESS" in self.run(*ping, check=False)

    def receipts(self, version: str, hosts: t.Sequence[str]) -> dict[str, t.Any]:
        """Return the receipts that hosts have of a release."""
        return {host: json.loads(self.shell(host, f"cat /opt/jemalloc/{version}/receipt.json")) for host in hosts}


@contextlib.contextmanager
def fleet(
    run: Run,
    directory: Path,
    suites: t.Sequence[str],
    name: str = "fleet",
    network: str = NETWORK,
    subnet: str = SUBNET,
) -> t.Iterator[Fleet]:
    """Start a container for each of these Debian releases, in a network of their own."""
    made = Fleet(run, directory, tuple(f"{name}{number:02}" for number in range(1, len(suites) + 1)))
    made.suites = dict(zip(made.hosts, suites))
    images = {suite: run(str(ROOT / ".ci" / "build-image"), suite).splitlines()[-1] for suite in sorted(set(suites))}
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / "key"))
    remove = ("podman", "rm", "--force", "--ignore", "--time=0", *made.hosts)
    run(*remove)
    run("podman", "network", "rm", "--force", network)
    run("podman", "network", "create", "--subnet", f"{subnet}.0/24", network)
    try:
        inventory: dict[str, t.Any] = {"all": {"vars": made.variables(), "hosts": {}}}
        for number, (host, suite) in enumerate(made.suites.items(), 11):
            address = f"{subnet}.{number}"
            inventory["all"]["hosts"][host] = {"ansible_host": address}
            run(
                *("podman", "run", "--detach", f"--name={host}", f"--hostname={host}", f"--network={network}"),
                *(f"--ip={address}", "--systemd=always", "--cap-add=SYS_PTRACE,NET_ADMIN,SYS_ADMIN"),
                f"--volume={directory}/key.pub:/root/.ssh/authorized_keys:ro",
                *(images[suite], "/sbin/init"),
            )
        made.inventory.write_text(json.dumps(inventory))
        for host in made.hosts:
            wait_until(lambda host=host: "running" in made.shell(host, "systemctl is-system-running", check=False))
        yield made
    finally:
        run(*remove)
        run("podman", "network", "rm", "--force", network)


def mapped(fleet: Fleet, host: str, service: str) -> set[str]:
    """Return the libraries of ours that the processes of a service map."""
    script = f"for f in $(grep -l /{service}.service /proc/[0-9]*/cgroup); do cat $(dirname $f)/maps; done"
    return set(re.findall(r"/opt/jemalloc/\S+", fleet.shell(host, script)))


def wait_until(condition: t.Callable[[], object], seconds: float = 120) -> None:
    """Wait for something that is going to be."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"It was not so within {seconds} s.")
        time.sleep(0.2)


class Sources(http.server.ThreadingHTTPServer):
    """Serves a directory to the controller and the fleet, and remembers what was asked for."""

    def __init__(self, directory: Path, address: str) -> None:
        """Listen on an address of this machine."""
        asked: list[str] = []
        self.asked = asked

        class Handler(http.server.SimpleHTTPRequestHandler):
            """Remembers what is asked for."""

            def __init__(self, *arguments: t.Any) -> None:
                """Serve that directory."""
                super().__init__(*arguments, directory=str(directory))

            def do_GET(self) -> None:
                """Answer."""
                asked.append(self.path)
                if not (directory / self.path.lstrip("/")).exists():
                    self.path = f"/{self.path.rpartition('/')[2]}"  # also below the path of upstream's releases
                super().do_GET()

            def log_message(self, *_arguments: t.Any) -> None:
                """Say nothing."""

        super().__init__((address, 0), Handler)

    @property
    def address(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def serving(directory: Path, address: str = "127.0.0.1") -> t.Iterator[Sources]:
    """Serve a directory while the block runs."""
    with Sources(directory, address) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def start(fleet: Fleet, environment: dict[str, str], playbook: str, **variables: t.Any) -> subprocess.Popen[str]:
    """Start a playbook without waiting for it."""
    return subprocess.Popen(
        fleet.command(playbook, **variables),
        cwd=ROOT,
        env={**environment, "ANSIBLE_FORKS": "10", "ANSIBLE_PIPELINING": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
    )
