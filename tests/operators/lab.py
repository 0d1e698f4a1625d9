# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A systemd container with two services, and a controller's directory in which an operator calls playbooks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import typing as t
from dataclasses import dataclass
from pathlib import Path

from tests.checkout import ROOT
from tests.conftest import Run
from tests.fleet.lab import wait_until

SERVICES = ("app", "other")
RELEASES = ("9.9.8", "9.9.9")

#: Ends what a play prints for a host.
_RECAP = re.compile(r"^web1 .*?changed=(\d+) .*?failed=(\d+)", re.MULTILINE)


class Played(t.NamedTuple):
    """What a play printed, how many tasks changed something, and whether it failed."""

    output: str
    changed: int
    failed: bool

    @property
    def text(self) -> str:
        """What was printed, in one line."""
        return re.sub(r"\s+", " ", self.output)


@dataclass(frozen=True)
class Operator:
    """A host, and the directory in which an operator works."""

    run: Run
    directory: Path
    name: str
    #: The variables that install a release without a build, by the release.
    releases: t.Mapping[str, t.Mapping[str, str]]

    def shell(self, script: str, check: bool = True) -> str:
        """Run a script on the host."""
        return self.run("podman", "exec", self.name, "sh", "-c", script, check=check)

    def inventory(self, **variables: str) -> Path:
        """Write an inventory in INI, with variables of the group as they are written there; return its path."""
        proxy = f"-o ProxyCommand='podman exec -i {self.name} /usr/sbin/sshd -i'"
        options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        lines = [
            "[web]",
            f"web1 ansible_user=root ansible_ssh_private_key_file={self.directory}/key "
            f'ansible_python_interpreter=/usr/bin/python3 ansible_ssh_common_args="{options} {proxy}"',
            "[web:vars]",
            f"jemalloc_cache={self.directory}/cache",
            "jemalloc_build_host=localhost",  # whose builds the host takes
            *(f"{name}={value}" for name, value in variables.items()),
        ]
        path = self.directory / "hosts"
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def play(
        self, playbook: str, *arguments: str, ini: t.Optional[t.Mapping[str, str]] = None, until: int = 0
    ) -> Played:
        """Play a playbook of the collection, or a file of the directory, until a task ends it if that is given."""
        inventory = self.inventory(**(ini or {}))
        what = playbook if playbook.endswith(".yml") else f"preload.jemalloc.{playbook}"
        settings = {"ANSIBLE_PIPELINING": "1", "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.directory / "cp")}
        if until:
            settings.update(ANSIBLE_CALLBACK_PLUGINS=str(Path(__file__).parent / "callbacks"), INTERRUPT_AT=str(until))
            settings["ANSIBLE_CALLBACKS_ENABLED"] = "interrupt"
        command = ("ansible-playbook", f"--inventory={inventory}", *arguments, what)
        output = self.run(*command, cwd=self.directory, check=False, **settings)
        assert "Traceback" not in output, output
        counts = _RECAP.search(output)
        if until and not counts:
            return Played(output, 0, True)
        assert counts, output
        return Played(output, int(counts.group(1)), counts.group(2) != "0")

    def site(self, *arguments: str, version: str = "9.9.9", ini: t.Optional[t.Mapping[str, str]] = None) -> Played:
        """Play the main playbook with a release."""
        release = [word for name, value in self.releases[version].items() for word in ("-e", f"{name}={value}")]
        return self.play("site", *release, *arguments, ini=ini)

    def pids(self) -> dict[str, str]:
        """Return the main process of each service."""
        return {name: self.shell(f"systemctl show --property=MainPID --value {name}").strip() for name in SERVICES}

    def mapped(self) -> dict[str, str]:
        """Return the release that the main process of each service maps, nothing for none."""
        found = {}
        for name, pid in self.pids().items():
            paths = re.findall(r"/opt/jemalloc/([^/]+)/", self.shell(f"cat /proc/{pid}/maps"))
            found[name] = paths[0] if paths else ""
        return found

    def environ(self, service: str, *names: str) -> list[str]:
        """Return the values of variables of a service's main process, nothing for one that it has not."""
        text = self.shell(f"cat /proc/$(systemctl show --property=MainPID --value {service})/environ")
        found = dict(each.partition("=")[::2] for each in text.split("\0"))
        return [found.get(name, "") for name in names]

    def enabled(self) -> set[str]:
        """Return the services that have a drop-in of ours."""
        listed = self.shell("ls -d /etc/systemd/system/*.service.d/zz-preload-jemalloc.conf", check=False)
        return set(re.findall(r"/(\w+)\.service\.d/zz", listed))

    def current(self) -> str:
        """Return the current release, nothing for none."""
        return self.shell("readlink /opt/jemalloc/current || true").strip()


@contextlib.contextmanager
def operator(
    run: Run, directory: Path, tarball: t.Callable[[str], tuple[str, str]], suite: str = "bookworm"
) -> t.Iterator[Operator]:
    """Start the host, and build two releases for it on this machine."""
    name = f"preload-jemalloc-operators-{suite}-{os.getpid()}"
    releases = {}
    for version in RELEASES:
        path, checksum = tarball(version)
        releases[version] = {"jemalloc_version": version, "jemalloc_checksum": checksum, "jemalloc_method": "bundle"}
        arguments = {"version": version, "checksum": checksum, "origins": [path], "prefix": str(directory / "store")}
        arguments["cache"] = str(directory / "cache")
        module = ("--module-name=preload.jemalloc.jemalloc", f"--args={json.dumps(arguments)}")
        run("ansible", "--connection=local", *module, "localhost", cwd=directory)
    made = Operator(run, directory, name, releases)
    image = run(str(ROOT / ".ci" / "build-image"), suite).splitlines()[-1]
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / "key"))
    remove = ("podman", "rm", "--force", "--ignore", "--time=0", name)
    try:
        run(
            *("podman", "run", "--detach", f"--name={name}", "--network=none", "--systemd=always"),
            *("--cap-add=SYS_PTRACE,NET_ADMIN,SYS_ADMIN", image, "/sbin/init"),
        )
        wait_until(lambda: "running" in made.shell("systemctl is-system-running", check=False))
        made.shell(
            f"install -d -m 700 /root/.ssh; echo '{(directory / 'key.pub').read_text()}' > /root/.ssh/authorized_keys"
        )
        for service in SERVICES:
            unit = "[Service]\\nExecStart=/bin/sleep infinity\\n"
            made.shell(f"printf '{unit}' > /etc/systemd/system/{service}.service && systemctl start {service}")
        yield made
    finally:
        run(*remove)
