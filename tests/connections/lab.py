# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers without systemd, and images under construction, which the role reaches by their connection plugins."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
import typing as t
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.checkout import ROOT
from tests.conftest import Run

#: A container that is a host as any other: it has Python, and a compiler, but no systemd.
IMAGE = ("--variant=minbase", "--include=python3,gcc,make,libc6-dev")

#: What of the package ansible is unpacked: the collections of the connection plugins.
_COLLECTIONS = ("containers/podman", "community/docker", "community/library_inventory_filtering_v1")

#: What lists everything in a container but what others write there (the kernel, Ansible, Python and apt), and the empty
#: lock, which is never unlinked: another run may be about to take it.
PICTURE = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /root/.ansible -o -path /var/lib/apt
  -o -path /run/preload-jemalloc.lock
  -o -path /etc/hosts -o -path /etc/resolv.conf -o -path /etc/hostname -o -name __pycache__ \) -prune
  -o -printf '%p %y %m %u %l\n' -type f -path '/etc/*' -exec sha256sum {} + | LC_ALL=C sort
""".replace("\n  ", " ")


def unpack_collections(run: Run, directory: Path, names: t.Sequence[str] = _COLLECTIONS) -> Path:
    """Download these collections; return the directory in which Ansible finds them."""
    requirements = f"--requirement={ROOT / 'requirements-connections.txt'}"
    run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={directory}", requirements)
    (wheel,) = directory.glob("ansible-*.whl")
    wanted = tuple(f"ansible_collections/{name}/" for name in names)
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(directory, [name for name in packed.namelist() if name.startswith(wanted)])
    wheel.unlink()
    return directory


@contextlib.contextmanager
def reaching(run: Run, directory: Path, environment: dict[str, str]) -> t.Iterator[Run]:
    """Give what runs a command that finds the connection plugins, and podman's service in the place of docker's."""
    socket = directory / "podman.sock"
    settings = {
        "ANSIBLE_COLLECTIONS_PATH": str(unpack_collections(run, directory)),
        "DOCKER_HOST": f"unix://{socket}",
    }
    service = subprocess.Popen(["podman", "system", "service", "--time=0", settings["DOCKER_HOST"]], env=environment)
    try:
        while not socket.exists() and service.poll() is None:
            time.sleep(0.1)
        yield lambda *command, **more: run(*command, **{**settings, **more})
    finally:
        service.terminate()
        service.wait()


@dataclass(frozen=True)
class Container:
    """A container, by its name, and how it is reached: by podman, docker or buildah."""

    run: Run
    directory: Path
    engine: str
    name: str
    image: str

    @property
    def connection(self) -> str:
        """The connection plugin."""
        return {"docker": "community.docker.docker"}.get(self.engine, f"containers.podman.{self.engine}")

    def start(self) -> None:
        """Make it of its image, in the place of one from before."""
        self.remove()
        if self.engine == "buildah":
            self.run("buildah", "from", "--pull-never", f"--name={self.name}", self.image)
        else:
            options = (f"--name={self.name}", "--network=none", "--stop-signal=SIGKILL")
            self.run("podman", "run", "--detach", *options, self.image, "sleep", "3600")

    def remove(self) -> None:
        """Remove it, if it is there."""
        if self.engine == "buildah":
            self.run("buildah", "rm", self.name, check=False)
        else:
            self.run("podman", "rm", "--force", "--ignore", "--time=0", self.name)

    def start_in(self, *command: str) -> str:
        """Run a command in it as the engine starts it, without a shell or a login; return what it printed."""
        verb = ("buildah", "run", self.name, "--") if self.engine == "buildah" else ("podman", "exec", self.name)
        return self.run(*verb, *command)

    def shell(self, script: str) -> str:
        """Run a script in it."""
        return self.start_in("sh", "-c", script)

    def mapped(self, *command: str) -> set[str]:
        """Return the libraries of ours that a command shows in its maps."""
        return set(re.findall(r"/opt/jemalloc/\S+", self.start_in(*command)))

    def bring(self, path: str, to: str) -> None:
        """Copy a file into it."""
        if self.engine == "buildah":
            self.run("buildah", "copy", self.name, path, to)
        else:
            self.run("podman", "cp", path, f"{self.name}:{to}")

    def picture(self) -> list[str]:
        """Return everything in it."""
        return self.shell(PICTURE).splitlines()

    def play(self, *options: str, fails: bool = False, **variables: t.Any) -> tuple[str, int]:
        """Play the role on it; return what was printed, in one line, and how many tasks changed something."""
        host = {"ansible_connection": self.connection, "ansible_user": "root"}
        host["ansible_python_interpreter"] = "/usr/bin/python3"
        inventory = self.directory / "hosts.json"
        inventory.write_text(json.dumps({"all": {"hosts": {self.name: host}}}))
        extra = json.dumps({"jemalloc_cache": str(self.directory / "cache"), **variables})
        command = ["ansible-playbook", f"--inventory={inventory}", f"--extra-vars={extra}", *options]
        printed = self.run(*command, "preload.jemalloc.site", cwd=self.directory, check=False)
        assert "unreachable=0" in printed, printed
        assert ("failed=0" not in printed) == fails, printed
        assert "Traceback" not in printed
        (changed,) = re.findall(r"changed=(\d+)", printed)
        return re.sub(r"\s+", " ", printed), int(changed)
