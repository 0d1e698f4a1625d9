# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A systemd container with a compiler, reached by ssh as web1, and an inventory file named hosts, as in the pages."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import typing as t
from dataclasses import dataclass
from pathlib import Path

from tests.checkout import ROOT
from tests.conftest import Run
from tests.fleet.lab import SSH, wait_until

NAME, ADDRESS = "preload-jemalloc-status", "10.79.3.11"

#: Services that only sleep.
SERVICES = ("puma", "sidekiq", "shop", "kept")

_UNIT = "[Unit]\nDescription=Test\n[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"

_PLAY = """
- hosts: all
  gather_facts: false
  roles:
    - role: preload.jemalloc.jemalloc
      vars: {variables}
"""


@dataclass(frozen=True)
class Host:
    """The container, and the directory in which commands are typed; play.yml there is the operator's own playbook."""

    run: Run
    directory: Path
    environment: t.Mapping[str, str]

    def shell(self, script: str, check: bool = True) -> str:
        """Run a script in the container."""
        return self.run("podman", "exec", NAME, "bash", "-c", script, check=check)

    def type(self, command: str, check: bool = True, **more: str) -> str:
        """Run a command as an operator types it on the controller."""
        return self.run("bash", "-c", command, cwd=self.directory, check=check, **more)

    def enable(self, *options: str, **variables: t.Any) -> str:
        """Write these variables into the operator's own playbook and play it."""
        (self.directory / "play.yml").write_text(_PLAY.format(variables=json.dumps(variables)))
        return self.run("ansible-playbook", "-i", "hosts", "-l", "web1", *options, "play.yml", cwd=self.directory)

    def mapped(self, service: str) -> str:
        """Return the release that the main process of a service maps, nothing when it maps none."""
        maps = self.shell(f"cat /proc/$(systemctl show -P MainPID {service})/maps")
        return next((line.split("/")[3] for line in maps.splitlines() if "/opt/jemalloc/" in line), "")

    def running(self) -> dict[str, str]:
        """Return what each of the services maps; all of them have to run."""
        assert self.shell(f"systemctl is-active {' '.join(SERVICES)}").split() == ["active"] * len(SERVICES)
        return {service: self.mapped(service) for service in SERVICES}

    def wait_until_up(self) -> None:
        """Wait until the container answers by ssh."""
        wait_until(lambda: "running" in self.shell("systemctl is-system-running", check=False))
        ping = ("ansible", "-i", "hosts", "web1", "-m", "ansible.builtin.ping")
        wait_until(lambda: "SUCCESS" in self.run(*ping, cwd=self.directory, check=False))

    def reset(self) -> None:
        """Remove what a test left, by hand."""
        drop_ins = "/etc/systemd/system/*.service.d"
        self.shell(
            "sed -i /libjemalloc/d /etc/ld.so.preload; sed -i '/BEGIN preload/,/END preload/d' /etc/environment;"
            f"rm -rf {drop_ins}/zz-preload-jemalloc.conf {drop_ins}/zzz.conf /etc/systemd/system.conf.d /opt/jemalloc"
            " /etc/profile.d/jemalloc.sh /usr/local/bin/* /etc/ld.so.preload*;"
            f"systemctl daemon-reload && systemctl restart {' '.join(SERVICES)}"
        )


def image(run: Run, directory: Path) -> str:
    """Return the image of the host, which is made unless it is there already."""
    base = run(str(ROOT / ".ci" / "build-image"), "bookworm").splitlines()[-1]
    install = "apt-get install -y -qq --no-install-recommends gcc make libc6-dev"
    text = f"FROM {base}\nRUN apt-get update -qq && {install} && apt-get clean\n"
    name = f"localhost/{NAME}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if subprocess.run(["podman", "image", "exists", name], check=False).returncode:
        (directory / "Containerfile").write_text(text)
        run("podman", "build", "--quiet", "--network=host", "--pull=false", f"--tag={name}", str(directory))
    return name


@contextlib.contextmanager
def host(run: Run, directory: Path, environment: t.Mapping[str, str]) -> t.Iterator[Host]:
    """Start the container, with its services, and write the inventory, which has a host that cannot be reached too."""
    built = image(run, directory)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / "key"))
    made = Host(run, directory, environment)
    remove = ("podman", "rm", "--force", "--ignore", "--time=0", NAME)
    run(*remove)
    run("podman", "network", "rm", "--force", NAME)
    run("podman", "network", "create", "--subnet", f"{ADDRESS.rpartition('.')[0]}.0/24", NAME)
    try:
        run(
            *("podman", "run", "--detach", f"--name={NAME}", "--hostname=web1", f"--network={NAME}", f"--ip={ADDRESS}"),
            *("--systemd=always", "--cap-add=SYS_PTRACE,NET_ADMIN,SYS_ADMIN"),
            f"--volume={directory}/key.pub:/root/.ssh/authorized_keys:ro",
            *(built, "/sbin/init"),
        )
        common = {
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_private_key_file": str(directory / "key"),
            "ansible_ssh_common_args": SSH,
            "jemalloc_cache": str(directory / "cache"),
        }
        hosts = {"web1": {"ansible_host": ADDRESS}, "lost": {"ansible_host": "127.0.0.1", "ansible_port": 1}}
        (directory / "hosts").write_text(json.dumps({"all": {"vars": common, "hosts": hosts}}))
        made.wait_until_up()
        for service in SERVICES:
            made.shell(f"printf '{_UNIT}' > /etc/systemd/system/{service}.service")
        made.shell(f"systemctl daemon-reload && systemctl enable --now {' '.join(SERVICES)}")
        yield made
    finally:
        run(*remove)
        run("podman", "network", "rm", "--force", NAME)
