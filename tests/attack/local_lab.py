# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container with systemd in which an unprivileged user means harm, beside root who runs modules."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
import typing as t
from pathlib import Path

import ansible
import pytest

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _rendering as rendering
from tests.checkout import ROOT

IMAGE = "bookworm"
PREFIX = "/opt/jemalloc"
STAGING = f"{PREFIX}/.staging"

#: Who means harm; its systemd runs without a login.
USER, UID = "mallory", 1000

#: Where the container finds what it needs of this machine, none of which it can change.
LAB = "/lab"

_RUN_MODULE = f"{LAB}/ansible_collections/preload/jemalloc/tests/faults/run_module.py"

# A compiler is not needed for a library that is there; make brings it. A build that waits does so in its sandbox.
_GCC = "#!/bin/sh\ncat >/dev/null\n"
_MAKE = f"""#!/bin/sh
for argument; do case $argument in DESTDIR=*) to=${{argument#DESTDIR=}}{PREFIX}/9.9.9/lib ;; esac; done
mkdir -p "$to" && cp {LAB}/files/libjemalloc.so.2 "$to"
"""
_CONFIGURE = "#!/bin/sh\n(cd / && exec setsid sleep 86399) &\nwhile [ -e /srv/wait ]; do sleep 0.1; done\n"

_PREPARE = f"""
set -e
useradd --create-home --uid {UID} {USER}
mkdir -m 1777 /srv/{USER}
printf '[Service]\\nType=exec\\nExecStart=/bin/sleep infinity\\n' > /etc/systemd/system/app.service
printf '[Service]\\nType=exec\\nExecStart=/bin/sleep infinity\\n' > /etc/systemd/user/own.service
install -m 755 {LAB}/files/gcc {LAB}/files/make /usr/local/bin/
systemctl daemon-reload
systemctl start app
loginctl enable-linger {USER}
"""


class Answer(t.NamedTuple):
    """How a module ended."""

    status: int
    result: dict[str, t.Any]

    @property
    def warnings(self) -> list[str]:
        """What the module said."""
        return [each["event"]["msg"] if isinstance(each, dict) else each for each in self.result.get("warnings", [])]


class LocalLab:
    """The container, by podman."""

    def __init__(self, files: Path, library: Path) -> None:
        self._environment = {**os.environ, "CONTAINERS_CONF": str(ROOT / ".ci" / "containers.conf")}
        self.name = f"preload-jemalloc-local-{os.getpid()}"
        image = self._podman(str(ROOT / ".ci" / "build-image"), IMAGE).splitlines()[-1]
        self._give(files, library)
        volumes = {
            ROOT: f"{LAB}/ansible_collections/preload/jemalloc",
            Path(ansible.__file__).parent: f"{LAB}/ansible",
            files: f"{LAB}/files",
        }
        self._podman(
            *("podman", "run", "--detach", "--rm", "--replace", f"--name={self.name}", "--network=none"),
            # what root of a real host may do: read the maps of any process, have services with a view of their own
            *("--cap-add=SYS_PTRACE,SYS_ADMIN", "--systemd=always", f"--env=PYTHONPATH={LAB}"),
            *(f"--volume={source}:{target}:ro" for source, target in volumes.items()),
            *(image, "/sbin/init"),
        )
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            # systemctl fails as long as there is no systemd to ask
            self.shell("for _ in $(seq 120); do systemctl is-system-running --wait && exit; sleep 0.5; done; exit 1")
            self.shell(_PREPARE)
            self.wait(f"[ -S /run/user/{UID}/systemd/private ]")
            stack.pop_all()

    def _give(self, files: Path, library: Path) -> None:
        """Make the tools and the source of the lab's release."""
        files.chmod(0o755)
        shutil.copy(library, files / "libjemalloc.so.2")
        for name, text in (("gcc", _GCC), ("make", _MAKE)):
            (files / name).write_text(text)
        with tarfile.open(files / "jemalloc-9.9.9.tar.bz2", "w:bz2") as tar:
            for name, text in (("configure", _CONFIGURE), ("VERSION", "9.9.9-0-g0\n"), ("src/jemalloc.c", "")):
                member = tarfile.TarInfo(f"jemalloc-9.9.9/{name}")
                member.size, member.mode = len(text), 0o755
                tar.addfile(member, io.BytesIO(text.encode("ascii")))

    def _podman(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self._environment, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        if done.returncode:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}{done.stdout}", pytrace=False)
        return done.stdout

    def close(self) -> None:
        """End the container."""
        self._podman("podman", "rm", "--force", "--time=0", self.name)

    def shell(self, script: str, user: str = "root") -> str:
        """Run a script; return what it printed."""
        return self._podman("podman", "exec", f"--user={user}", self.name, "sh", "-c", script)

    def wait(self, condition: str) -> None:
        """Wait until a script succeeds."""
        self.shell(f"for _ in $(seq 600); do if {condition}; then exit; fi; sleep 0.1; done; exit 1")

    def begin(self, *command: str, user: str = "root") -> subprocess.Popen[str]:
        """Start a command that goes on."""
        return subprocess.Popen(
            ["podman", "exec", f"--user={user}", self.name, *command],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )

    def begin_module(self, name: str, arguments: t.Mapping[str, t.Any]) -> subprocess.Popen[str]:
        """Start a module as root."""
        return self.begin("python3", _RUN_MODULE, f"jemalloc{name}", json.dumps(arguments))

    def end_module(self, process: subprocess.Popen[str]) -> Answer:
        """Wait for a module; return how it ended."""
        output = process.communicate()[0]
        line = next((each for each in output.splitlines() if each.startswith("{")), "")
        if not line:
            pytest.fail(f"the module ended with {process.returncode}: {output}", pytrace=False)
        return Answer(process.returncode, json.loads(line))

    def module(self, name: str, **arguments: t.Any) -> Answer:
        """Run a module as root."""
        return self.end_module(self.begin_module(name, arguments))

    def install(self) -> dict[str, t.Any]:
        """Return the arguments of jemalloc that build the lab's release."""
        checksum = self.shell(f"sha256sum {LAB}/files/jemalloc-9.9.9.tar.bz2").split()[0]
        return {
            "version": "9.9.9",
            "checksum": f"sha256:{checksum}",
            "origins": [f"{LAB}/files"],
            "method": "source",
            "prefix": PREFIX,
            "build_packages": False,
        }

    def preload(self, **arguments: t.Any) -> Answer:
        """Run jemalloc_preload as its action does."""
        return self.module("_preload", prefix=PREFIX, texts=rendering.render(PREFIX), **arguments)

    def restart(self, preloaded: Answer) -> Answer:
        """Restart what jemalloc_preload named, as the role does."""
        return self.module("_service", services=preloaded.result["restarts"], prefix=PREFIX)

    def processes(self, pattern: str) -> list[tuple[int, int]]:
        """Return the processes whose command matches, each with its user."""
        script = f"ps -eo pid=,uid=,args= | grep -E '{pattern}' | grep -v grep || true"
        return [(int(line.split()[0]), int(line.split()[1])) for line in self.shell(script).splitlines()]

    def wait_for_processes(self, pattern: str, count: int = 1) -> list[tuple[int, int]]:
        """Wait until that many processes match."""
        deadline = time.monotonic() + 120
        while len(found := self.processes(pattern)) < count:
            assert time.monotonic() < deadline, f"{found} in place of {count} processes with {pattern}"
            time.sleep(0.1)
        return found
