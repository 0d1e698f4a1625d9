# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with containers, which are processes of this machine that really map what they preload."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_container as module

Call = t.Callable[..., t.Dict[str, t.Any]]


Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Any]]


ENGINES = pathlib.Path(__file__).parents[3] / "engines.py"


LOADER = "/lib64/ld-linux-x86-64.so.2"


LIBC = b"\0GNU C Library (Debian GLIBC) stable release version %s.\n"


HEADER = "# Managed by the Ansible collection preload.jemalloc; changes made here are lost.\n"


DROP_IN = "etc/containers/systemd/{}.container.d/zz-preload-jemalloc.conf"


def libc(version: str) -> t.List[int]:
    """Return a C library that says it has a version."""
    return list(pathlib.Path("/bin/true").read_bytes() + LIBC % version.encode())


class World:
    """A host with containers."""

    def __init__(self, root: pathlib.Path, directory: pathlib.Path, prefix: str) -> None:
        self.root, self.prefix, self._directory = root, prefix, directory
        self.warnings: t.List[str] = []
        files = {name.lstrip("/"): name for name in ("/bin/true", "/bin/sh", "/bin/cat", LOADER)}
        image = {"Id": "image1", "RepoTags": ["app:1"], "Architecture": "amd64", "Config": {"Env": ["PATH=/bin"]}}
        self.state: t.Dict[str, t.Any] = {
            "root": str(root),
            "version": "5.4.2",
            "program": "/bin/sleep",
            "files": {**files, "lib/libc.so.6": libc("2.99")},
            "images": {"app": image},
            "containers": {},
        }
        directory.mkdir()
        for name in ("podman", "docker", "podman-compose", "systemctl"):
            (directory / name).write_text(f"#!{sys.executable} -IS\n{ENGINES.read_text()}")
            (directory / name).chmod(0o755)
        self.write()

    @property
    def shop(self) -> pathlib.Path:
        """The directory of a compose file."""
        return self.root / "srv" / "shop"

    def write(self, **more: t.Any) -> None:
        """Let the programs know what there is."""
        if more:
            self.read()
        self.state.update(more)
        (self._directory / "state.json").write_text(json.dumps(self.state))

    def read(self) -> t.Dict[str, t.Any]:
        """Return what there is by now."""
        self.state = json.loads((self._directory / "state.json").read_text())
        return self.state

    def quadlet(self, name: str, text: str = "Image=app:1\n", unit: str = "", runs: bool = True, **env: str) -> None:
        """Add a quadlet, and its container."""
        path = self.root / "etc/containers/systemd" / f"{name}.container"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"[Container]\n{text}")
        self.container(unit or f"{name}.service", {"PODMAN_SYSTEMD_UNIT": unit or f"{name}.service"}, runs, env)

    def compose(self, *containers: str, name: str = "compose.yaml", files: str = "compose.yaml", **env: str) -> str:
        """Add a compose file with these containers."""
        self.shop.mkdir(parents=True, exist_ok=True)
        (self.shop / name).write_text("services: {}\n")
        for each in containers:
            labels = {
                "project": "shop",
                "service": each.split("-")[0],
                "project.working_dir": str(self.shop),
                "project.config_files": files,
            }
            self.container(each, {f"com.docker.compose.{key}": value for key, value in labels.items()}, True, env)
        return str(self.shop / name)

    def container(self, key: str, labels: t.Dict[str, str], runs: bool, env: t.Dict[str, str]) -> None:
        """Add a container."""
        self.read()
        pid = subprocess.Popen([self.state["program"], "1000"], start_new_session=True).pid if runs else 0
        self.state["containers"][key] = {"pid": pid, "env": env, "labels": labels}
        self.write()

    def mapped(self, key: str) -> t.Optional[t.Set[str]]:
        """Return the releases that a container maps, None when it does not run."""
        pid = self.read()["containers"][key]["pid"]
        if not pid:
            return None
        maps = pathlib.Path(f"/proc/{pid}/maps").read_text()
        return set(re.findall(rf"{re.escape(self.prefix)}/([^/]+)/lib", maps))

    def environment(self, key: str) -> t.Dict[str, str]:
        """Return the environment that a container was started with."""
        return dict(self.read()["containers"][key]["seen"])

    def calls(self, pattern: str = "") -> t.List[str]:
        """Return the calls of the programs since the last time that match a pattern."""
        log = self._directory / "calls.log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.write_text("")
        return [line for line in lines if re.search(pattern, line)]

    def end(self) -> None:
        """End all containers."""
        for each in self.read()["containers"].values():
            if each["pid"]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each["pid"], signal.SIGKILL)

    def switch(self, version: str) -> None:
        """Make a release the current one."""
        with publish.locked(self.prefix):
            publish.switch(self.prefix, version, publish.Undo())


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A shared library that needs the C library, and says that it is jemalloc 9.9.9."""
    directory = tmp_path_factory.mktemp("library")
    text = '#include <stdio.h>\nconst char version[] = "9.9.9-0-g0123abc";\nint say(void) { return puts(version); }\n'
    (directory / "version.c").write_text(text)
    path = directory / "libjemalloc.so.2"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O0", "-o", str(path), str(directory / "version.c")], check=True)
    return path


@pytest.fixture
def prefix(tmp_path: pathlib.Path) -> str:
    """Where the store is."""
    return str(tmp_path / "store")


@pytest.fixture
def world(
    root: pathlib.Path,
    tmp_path: pathlib.Path,
    prefix: str,
    installed: t.Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> t.Iterator[World]:
    """A host with a store and no containers yet."""
    installed(prefix, "9.9.9")
    made = World(root, tmp_path / "programs", prefix)
    made.switch("9.9.9")
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}:{os.environ['PATH']}")
    monkeypatch.setattr(restarts, "INTERVAL", 0.01)
    monkeypatch.setattr(host.Host, "warn", lambda _this, words: made.warnings.append(words))
    yield made
    made.end()


@pytest.fixture
def containers(call: Call, world: World) -> Call:
    """Run the module."""

    def run(*entries: t.Any, **arguments: t.Any) -> t.Dict[str, t.Any]:
        return call(module, **{"prefix": world.prefix, "containers": list(entries), **arguments})

    return run
