# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of restarts share: a made-up systemctl with a made-up /proc."""

from __future__ import annotations

import itertools
import os
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd

PUMA = restarts.Service("puma.service", "5.3.1")


class Fake:
    """A systemd whose service runs with what its drop-in says, as far as that library lets it start."""

    def __init__(self, root: pathlib.Path, prefix: str, broken: t.Collection[str] = ()) -> None:
        self.root, self.prefix, self.broken = root, prefix, broken
        self.proc = root / "proc"
        self.pids = itertools.count(100)
        self.states: t.Dict[str, str] = {}
        self.kill_mode, self.again = "control-group", 0
        self.stopped = (0, "")
        self.calls: t.List[str] = []
        self.warnings: t.List[str] = []
        self.journal = (0, "")
        self.restarted = (0, "")

    def start(self, unit: str, version: t.Optional[str], count: int = 1) -> None:
        """Let a service run with a release."""
        for directory in self.proc.iterdir():
            if unit in (directory / "cgroup").read_text():
                (directory / "cgroup").write_text("0::/\n")
        for _number in range(count):
            directory = self.proc / str(next(self.pids))
            directory.mkdir()
            (directory / "cgroup").write_text(f"0::/system.slice/{unit}\n")
            path = f"{self.prefix}/{version}/lib/libjemalloc.so.2" if version else "/lib/libc.so.6"
            (directory / "maps").write_text(f"7f00-7f01 r-xp 0 08:01 12   {path}\n")
        self.states[unit] = "active"

    def __call__(
        self, arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
    ) -> t.Tuple[int, str]:
        """Answer a command."""
        self.calls.append(" ".join(arguments))
        unit = arguments[-1]
        if "restart" in arguments:
            return self._restart(unit)
        if "show" in arguments:
            return 0, "\n".join(map(self._shown, arguments[arguments.index("--") + 1 :]))
        if "stop" in arguments:
            return self.stopped
        return self.journal if arguments[0] == "journalctl" else (0, "")

    def _shown(self, unit: str) -> str:
        properties = {
            "Names": f"alias.service {unit}",
            "KillMode": self.kill_mode,
            "NRestarts": self.again,
            "ActiveState": self.states.get(unit, ""),
            "MainPID": self.main_pid(unit),
        }
        return "".join(f"{name}={value}\n" for name, value in properties.items())

    def main_pid(self, unit: str) -> str:
        """Return the main process of a service."""
        return min((d.name for d in self.proc.iterdir() if unit in (d / "cgroup").read_text()), default="0")

    def _restart(self, unit: str) -> t.Tuple[int, str]:
        drop_in = pathlib.Path(places.drop_in_path(systemd.template_of(unit) or unit))
        version = None
        if drop_in.exists():
            name = drop_in.read_text().split(f"{self.prefix}/")[1].split("/")[0]
            version = os.readlink(f"{self.prefix}/current") if name == "current" else name
        self.start(unit, version)
        if version in self.broken:
            self.states[unit] = "failed"
            return self.restarted
        return 0, ""


@pytest.fixture
def prefix(root: pathlib.Path, installed: t.Callable[..., None]) -> str:
    """A store with 5.1.0 and, current, 5.3.1."""
    for version in ("5.1.0", "5.3.1"):
        installed(f"{root}/store", version)
    (root / "store" / "current").symlink_to("5.3.1")
    return f"{root}/store"


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, root: pathlib.Path, prefix: str) -> t.Callable[..., Fake]:
    """Make a fake systemd that the functions use together with its /proc."""

    def make(*broken: str) -> Fake:
        fake = Fake(root, prefix, broken)
        monkeypatch.setattr(restarts, "INTERVAL", 0)
        return fake

    return make


def drop_in(prefix: str, unit: str = "puma.service") -> pathlib.Path:
    """Write a drop-in as the collection does."""
    path = pathlib.Path(places.drop_in_path(unit))
    path.parent.mkdir(parents=True)
    path.write_text(
        f"# preload.jemalloc\n[Service]\nEnvironment=LD_PRELOAD={prefix}/current/lib/libjemalloc.so:/a.so\n"
    )
    return path
