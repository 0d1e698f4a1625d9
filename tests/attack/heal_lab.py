# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A systemd container that is reached by ssh, with a bundle of a release that builds in no time."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import subprocess
import sys
import typing as t
from pathlib import Path

from tests.checkout import ROOT
from tests.conftest import Run
from tests.fleet.lab import Fleet, wait_until

NAME, SUBNET = "preload-jemalloc-heal", "10.79.7"
PREFIX = "/opt/jemalloc"
LIBRARY = f"{PREFIX}/9.9.9/lib/libjemalloc.so.2"
RUNNER = ROOT / "tests" / "faults" / "run_module.py"

#: The service that is enabled by its name.
SERVICE = "app"

_PREPARE = f"""
printf '[Service]\\nType=exec\\nExecStart=/bin/sleep infinity\\n' > /etc/systemd/system/{SERVICE}.service
systemctl daemon-reload
systemctl start {SERVICE}
"""


def run_module(name: str, **arguments: t.Any) -> dict[str, t.Any]:
    """Run a module on this machine; return its result."""
    command = [sys.executable, str(RUNNER), name, json.dumps(arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    result: dict[str, t.Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def make_bundle(directory: Path, source: tuple[str, str]) -> Path:
    """Build 9.9.9 from its source and a checksum; return the path of its bundle, beside a list with its digest."""
    path, checksum = source
    prefix, dist = str(directory / "store"), directory / "dist"
    wanted = {"version": "9.9.9", "checksum": checksum, "origins": [path], "build_packages": False}
    built = run_module("jemalloc", prefix=prefix, **wanted)
    assert not built.get("failed"), built
    packed = run_module("jemalloc_bundle", prefix=prefix, version="9.9.9", dist=str(dist))
    dist.mkdir()
    bundle = dist / "jemalloc-9.9.9.tar.gz"
    bundle.write_bytes(base64.b64decode(packed["content"]))
    sums = subprocess.check_output(["sha256sum", bundle.name], cwd=dist, encoding="utf-8")
    (dist / "SHA256SUMS").write_text(sums)
    return bundle


class Host:
    """The container, and how the role is played on it."""

    def __init__(self, fleet: Fleet, checksum: str) -> None:
        self._fleet = fleet
        self._wanted = {"jemalloc_version": "9.9.9", "jemalloc_checksum": checksum, "jemalloc_bundle": "/srv"}

    def shell(self, script: str, check: bool = True) -> str:
        """Run a script in it, without a login."""
        return self._fleet.shell(NAME, script, check)

    def login(self, command: str) -> str:
        """Run a command in it as ssh does; return all that it printed."""
        variables = self._fleet.variables()
        key = ("-i", variables["ansible_ssh_private_key_file"], *variables["ansible_ssh_common_args"].split())
        return self._fleet.run("ssh", *key, f"root@{SUBNET}.11", command)

    def play(self, *options: str, fails: bool = False, bare: bool = False, **variables: t.Any) -> str:
        """Play the role, for 9.9.9 unless it is bare; return what was printed, in one line."""
        settings = variables if bare else {**self._wanted, **variables}
        printed = self._fleet.play("site", *options, check=False, **settings)
        assert ("failed=0" not in printed) == fails, printed
        assert "Traceback" not in printed, printed
        assert "unreachable=0" in printed, printed
        return re.sub(r"\s+", " ", printed)

    def mapped(self, service: str = SERVICE) -> set[str]:
        """Return the libraries of ours that the processes of a service map."""
        script = f"for f in $(grep -l /{service}.service /proc/[0-9]*/cgroup); do cat $(dirname $f)/maps; done"
        # the shell itself complains where the store is gone
        return set(re.findall(rf"^[0-9a-f]+-[0-9a-f]+ .* ({PREFIX}/\S+)", self.shell(script), re.MULTILINE))


@contextlib.contextmanager
def host(run: Run, directory: Path, bundle: Path, checksum: str) -> t.Iterator[Host]:
    """Start the container; remove it afterwards in all cases."""
    fleet = Fleet(run, directory, (NAME,), {NAME: "bookworm"})
    image = run(str(ROOT / ".ci" / "build-image"), "bookworm").splitlines()[-1]
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / "key"))

    def remove() -> None:
        run("podman", "rm", "--force", "--ignore", "--time=0", NAME)
        run("podman", "network", "rm", "--force", NAME)

    remove()
    try:
        run("podman", "network", "create", "--internal", "--subnet", f"{SUBNET}.0/24", NAME)
        run(
            *("podman", "run", "--detach", f"--name={NAME}", f"--hostname={NAME}", f"--network={NAME}"),
            *(f"--ip={SUBNET}.11", "--systemd=always", "--cap-add=SYS_PTRACE,SYS_ADMIN"),
            f"--volume={directory}/key.pub:/root/.ssh/authorized_keys:ro",
            f"--volume={bundle.parent}:/srv:ro",
            *(image, "/sbin/init"),
        )
        # Each task logs in anew, and so gets the environment that the host gives at that moment.
        address = {"ansible_host": f"{SUBNET}.11", "ansible_ssh_args": "-o ControlMaster=no -o ControlPath=none"}
        inventory = {"all": {"vars": fleet.variables(), "hosts": {NAME: address}}}
        fleet.inventory.write_text(json.dumps(inventory))
        wait_until(lambda: "running" in fleet.shell(NAME, "systemctl is-system-running", check=False))
        fleet.shell(NAME, _PREPARE)
        yield Host(fleet, checksum)
    finally:
        remove()
