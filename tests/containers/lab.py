# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with systemd, a podman that reads drop-ins of quadlets, and podman-compose; and images in its storage."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import typing as t
from pathlib import Path

from tests.checkout import ROOT
from tests.conftest import Run
from tests.fleet.lab import Fleet, wait_until

NETWORK, ADDRESS = "preload-jemalloc-containers", "10.79.2.11"

#: The host: podman 5.4. Its compiler is for the release that builds in no time, its libjemalloc2 for a real one.
_PACKAGES = "podman podman-compose runc netavark aardvark-dns gcc make libc6-dev libjemalloc2"

# As .ci/containers.conf; a network of its own would need the tools of a firewall.
_CONF = """[containers]
default_ulimits = ["nofile=20000:20000", "nproc=30000:30000"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def image(run: Run, directory: Path) -> str:
    """Return the image of the host, which is made unless it is there already."""
    base = run(str(ROOT / ".ci" / "build-image"), "trixie").splitlines()[-1]
    lines = [
        f"FROM {base}",
        f"RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends {_PACKAGES} && apt-get clean",
        "COPY containers.conf /etc/containers/containers.conf",
        "VOLUME /var/lib/containers",
    ]
    text = "".join(f"{line}\n" for line in lines)
    name = f"localhost/preload-jemalloc-containers:{hashlib.sha256((text + _CONF).encode()).hexdigest()[:12]}"
    if subprocess.run(["podman", "image", "exists", name], check=False).returncode:
        (directory / "Containerfile").write_text(text)
        (directory / "containers.conf").write_text(_CONF)
        run("podman", "build", "--quiet", "--network=host", "--pull=false", f"--tag={name}", str(directory))
    return name


@contextlib.contextmanager
def host(run: Run, directory: Path) -> t.Iterator[Fleet]:
    """Start the host."""
    made = Fleet(run, directory, ("jemalloc-containers",), {"jemalloc-containers": "trixie"})
    name = made.hosts[0]
    built = image(run, directory)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / "key"))
    remove = ("podman", "rm", "--force", "--ignore", "--volumes", "--time=0", name)
    run(*remove)
    run("podman", "network", "rm", "--force", NETWORK)
    run("podman", "network", "create", "--subnet", f"{ADDRESS.rpartition('.')[0]}.0/24", NETWORK)
    try:
        run(
            *("podman", "run", "--detach", f"--name={name}", f"--hostname={name}", f"--network={NETWORK}"),
            # podman itself would mount the control groups of systemd twice, and runc is lost then
            *(f"--ip={ADDRESS}", "--systemd=false", "--env=container=podman", "--privileged", "--cgroupns=private"),
            *("--tmpfs=/run:rw,mode=755", "--tmpfs=/run/lock", "--tmpfs=/tmp:rw,mode=1777"),
            f"--volume={directory}/key.pub:/root/.ssh/authorized_keys:ro",
            *(built, "/sbin/init"),
        )
        inventory = {"all": {"vars": made.variables(), "hosts": {name: {"ansible_host": ADDRESS}}}}
        made.inventory.write_text(json.dumps(inventory))
        wait_until(
            lambda: made.shell(name, "systemctl is-system-running", check=False).strip() in ("running", "degraded")
        )
        yield made
    finally:
        run(*remove)
        run("podman", "network", "rm", "--force", NETWORK)


def load(run: Run, directory: Path, made: Fleet, name: str, known_as: str) -> None:
    """Bring an image to the host, under a name."""
    archive = directory / "image.tar"
    run("podman", "save", "--quiet", "--format=oci-archive", f"--output={archive}", name)
    run("podman", "cp", str(archive), f"{made.hosts[0]}:/root/image.tar")
    archive.unlink()
    loaded = made.shell(made.hosts[0], "podman load --quiet --input /root/image.tar && rm /root/image.tar")
    there = loaded.strip().splitlines()[-1].rpartition(" ")[2]
    made.shell(made.hosts[0], f"podman tag {there} {known_as}")
