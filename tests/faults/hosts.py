# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container with systemd that may be harmed: what the tests of faults ask of the driver in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

import ansible
import pytest
from lab import sentence

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _rendering as rendering

ROOT = Path(__file__).parents[2]
IMAGE = "bookworm"
PREFIX = "/opt/jemalloc"

#: Where the container finds what it needs of this machine, none of which it can change.
LAB = "/lab"

# app is for the lists of services, out for those of what is kept out. With Type=exec a process that has started is the
# program already, with its environment, and not the copy of systemd that is about to be it.
_PREPARE = """
for unit in app other out; do
  printf '[Service]\\nType=exec\\nExecStart=/bin/sleep infinity\\n' > /etc/systemd/system/$unit.service
done
printf '#!/bin/sh\\nexec /bin/true\\n' > /usr/bin/tool
chmod 755 /usr/bin/tool
useradd --create-home tester
systemctl daemon-reload
systemctl start app other out
"""

#: What every host starts every day.
PROGRAMS = {
    "a program": ["/bin/true"],
    "a shell": ["/bin/sh", "-c", "for word in a b; do /bin/true; done"],
    "Python": ["/usr/bin/python3", "-c", ""],
    "a login": ["su", "-l", "root", "-c", "true"],
    "a login of a user": ["su", "-l", "tester", "-c", "true"],
    "a set-user-ID program": ["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", "su --help >/dev/null"],
    "a service": ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "/bin/true"],
    "a service of a user": [
        *("systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--property=User=tester", "/bin/true"),
    ],
    "what is kept out": ["sh", "-lc", "tool"],
    # it also warns of what it would read by daemon-reload
    "services": ["env", "SYSTEMD_LOG_LEVEL=err", "systemctl", "restart", "app", "other", "out"],
}


#: The module alone, all that its connection has started, or the connection.
CUTS = ("kill", "session", "hangup")

ENVIRONMENT = {
    "host": True,
    "services": ["app", {"name": "other", "malloc_conf": {"narenas": 2}}],
    "exclude": ["out", "tool"],
}
LIST = {"host": True, "via": "ld_so_preload", "services": ["app"], "exclude": ["out", "tool"]}
SERVICES = {"services": ["app", "other"]}
OTHERS = {"services": [{"name": "app", "malloc_conf": {"narenas": 2}}, "out"]}
ABSENT = {"state": "absent"}

#: What others have in the files that are shared.
FOREIGN = """
library=$(ldconfig -p | sed -n 's/.*libm.so.6 .* => //p')
printf "# kept\\n$library" > /etc/ld.so.preload
printf "A=1\\r\\nLD_PRELOAD='$library'" > /etc/environment
chmod 640 /etc/environment
mkdir /etc/systemd/system/app.service.d
printf "[Service]\\nEnvironment=LD_PRELOAD=$library\\n" > /etc/systemd/system/app.service.d/own.conf
systemctl daemon-reload
"""


@dataclass(frozen=True)
class Operation:
    """A run of the module: what the host has before it, what ran before it, and its arguments."""

    name: str
    arguments: dict[str, t.Any]
    foreign: str = ""
    earlier: dict[str, t.Any] = field(default_factory=dict)


OPERATIONS = [
    Operation("enable-environment", ENVIRONMENT),
    Operation("enable-list", LIST, FOREIGN),
    Operation("enable-services", SERVICES, FOREIGN),
    Operation("change-to-list", LIST, "", ENVIRONMENT),
    Operation("change-to-environment", ENVIRONMENT, "", LIST),
    Operation("change-services", OTHERS, "", SERVICES),
    Operation("disable-environment", ABSENT, FOREIGN, ENVIRONMENT),
    Operation("disable-list", ABSENT, "", LIST),
]


class Answer(t.NamedTuple):
    """How a run of a module ended; result is empty when it was cut, which is known from what the driver did."""

    cut: bool
    status: int
    changes: int
    seconds: float
    output: str
    result: dict[str, t.Any]

    def sentence(self) -> str:
        """Return the message of a run that failed as it should."""
        return sentence(self.output, self.result)


class Host:
    """A container, by the driver that runs in it; options are more of those that podman takes."""

    def __init__(self, files: Path, name: str = "faults", options: t.Sequence[str] = ()) -> None:
        self._files = files
        self._environment = {**os.environ, "CONTAINERS_CONF": str(ROOT / ".ci" / "containers.conf")}
        self._name = f"preload-jemalloc-{name}-{os.getpid()}"
        image = self._podman(str(ROOT / ".ci" / "build-image"), IMAGE).splitlines()[-1]
        volumes = {
            ROOT: f"{LAB}/ansible_collections/preload/jemalloc",
            Path(ansible.__file__).parent: f"{LAB}/ansible",
            files: f"{LAB}/files",
        }
        self._podman(
            *("podman", "run", "--detach", "--rm", "--replace", f"--name={self._name}", "--network=none"),
            # what root of a real host may do: read the maps of any process, have services with a view of their own
            *("--cap-add=SYS_PTRACE,SYS_ADMIN", "--systemd=always", f"--env=PYTHONPATH={LAB}"),
            *(f"--volume={source}:{target}:ro" for source, target in volumes.items()),
            *options,
            *(image, "/sbin/init"),
        )
        # systemctl fails as long as there is no systemd to ask
        self._podman(
            *("podman", "exec", self._name, "sh", "-c"),
            "for _ in $(seq 60); do systemctl is-system-running --wait && exit; sleep 0.5; done; exit 1",
        )
        self._driver = subprocess.Popen(
            *(["podman", "exec", "-i", self._name, "python3", f"{volumes[ROOT]}/tests/faults/driver.py"],),
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self.ask("shell", script=_PREPARE)
        self.ask("keep", name="original")

    def _podman(self, *command: str) -> str:
        done = subprocess.run(command, env=self._environment, capture_output=True, encoding="utf-8", check=False)
        if done.returncode:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}", pytrace=False)
        return done.stdout

    def close(self) -> None:
        """End the container."""
        assert self._driver.stdin
        self._driver.stdin.close()
        self._driver.wait()
        self._podman("podman", "rm", "--force", "--time=0", self._name)

    def ask(self, what: str, /, **arguments: t.Any) -> t.Any:
        """Ask the driver."""
        assert self._driver.stdin
        assert self._driver.stdout
        self._driver.stdin.write(f"{json.dumps([what, arguments])}\n")
        self._driver.stdin.flush()
        answer = json.loads(self._driver.stdout.readline())
        if "error" in answer:
            pytest.fail(f"{what}: {answer['error']}")
        return answer["value"]

    def give(self, source: Path, name: str = "") -> str:
        """Make a file of this machine known to the container; return its path there."""
        target = self._files / (name or source.name)
        if source != target:
            shutil.copy(source, target)
        return f"{LAB}/files/{target.name}"

    def give_strace(self) -> list[str]:
        """Make this machine's strace known to the container, which has none; return how it is called there."""
        program = shutil.which("strace")
        assert program
        listing = subprocess.run(["ldd", program], stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout
        paths = re.findall(r"(/\S+) \(0x", listing)
        inside = os.path.dirname(self.give(Path(program), "strace"))
        for path in paths:
            self.give(Path(path))
        loader = next(os.path.basename(path) for path in paths if os.path.basename(path).startswith("ld"))
        # with its own libraries: those of the container may be older
        return [f"{inside}/{loader}", "--library-path", inside, f"{inside}/strace"]

    def run(self, arguments: t.Mapping[str, t.Any], **how: t.Any) -> Answer:
        """Run jemalloc_preload as its action does."""
        return Answer(**self.ask("run", module="jemalloc_preload", arguments=rendered(arguments), **how))

    def begin(self, operation: Operation) -> None:
        """Make the container what it is before an operation: known as "foreign" without us, and as "before"."""
        self.ask("shell", script=operation.foreign)
        self.ask("keep", name="foreign")
        if operation.earlier:
            assert self.run(operation.earlier).status == 0
        self.ask("keep", name="before")

    def check_processes(self) -> None:
        """See that whatever starts now does so without a complaint, and that systemd has none either."""
        assert self.ask("start", programs=PROGRAMS) == {}
        assert self.ask("shell", script="systemctl is-system-running || true") == "running\n"

    def check_unchanged(self, since: str) -> None:
        """See that every file is as it was."""
        assert self.ask("differences", name=since) == {}


def rendered(arguments: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return what the action hands to the module."""
    return {"prefix": PREFIX, "texts": rendering.render(PREFIX), **arguments}
