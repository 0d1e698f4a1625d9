# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A power cut at any moment leaves what the disk has got by then: a store that works, and files that are whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
from hosts import ABSENT
from lab import OPERATIONS, RUNNER, Lab, Operation, again, check_consistent, names

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _rendering as rendering

#: Cuts in the course of each operation; another one is right after its end.
CUTS, CUTS_IN_FULL = 1, 4

ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]

#: Files of /etc that the collection makes or shares.
SHARED = ("environment", "ld.so.preload", "ld.so.preload.without-jemalloc", "profile.d/jemalloc.sh")

PREFIX = Path("/opt/jemalloc")

# The module sees the directories of the disk, and no systemd.
_IN_PLACE = """
mount -t tmpfs tmpfs /run
mount --bind "$0/etc" /etc
mount --bind "$0/opt" /opt
mount --bind "$0/bin" /usr/local/bin
exec "$@"
"""


class Disk:
    """A file system in a file, which gets nothing that is not written through.

    ext4 writes the rest after as many seconds as commit= says, and the kernel what is 30 seconds old: no run takes as
    long. So a copy of the file is what a disk holds whose power is cut at that moment.
    """

    def __init__(self, top: Path) -> None:
        self.path = top / "disk"
        self.path.mkdir()
        self._image = top / "image"
        subprocess.run(["truncate", "--size=64M", str(self._image)], check=True)
        subprocess.run(["mkfs.ext4", "-q", str(self._image)], check=True)
        self._mount()
        subprocess.run([*ROOT, "chmod", "1777", str(self.path)], check=True)
        self.sync()

    def _mount(self) -> None:
        subprocess.run([*ROOT, "mount", "-o", "loop,commit=300", str(self._image), str(self.path)], check=True)

    def sync(self) -> None:
        """Write everything through, as a minute later."""
        subprocess.run(["sync", "--file-system", str(self.path)], check=True)

    def cut(self) -> None:
        """Go on with what the disk has got."""
        kept = self._image.with_name("kept")
        subprocess.run(["cp", "--sparse=always", str(self._image), str(kept)], check=True)
        self.unmount()
        kept.rename(self._image)
        self._mount()

    def unmount(self) -> None:
        """Take the file system away, also from what a run that was killed left running."""
        subprocess.run([*ROOT, "umount", "--lazy", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> t.Iterator[Disk]:
    """A disk whose power can be cut."""
    made = Disk(tmp_path)
    yield made
    made.unmount()


def moments(pytestconfig: pytest.Config) -> list[float]:
    """Return the parts of a run after which the power is cut; 1 is its end."""
    number = CUTS_IN_FULL if pytestconfig.getoption("full") else CUTS
    return [*((each + 0.5) / number for each in range(number)), 1]


def end_at(process: subprocess.Popen[str], moment: float, duration: float) -> bool:
    """Kill a run after a part of the time it takes, or wait for its end; return whether it was killed."""
    if moment < 1:
        time.sleep(duration * moment)
        process.send_signal(signal.SIGKILL)
    return Lab.end(process).status == -signal.SIGKILL


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_the_store(lab: Lab, disk: Disk, pytestconfig: pytest.Config, operation: Operation) -> None:
    prefix = disk.path / "jemalloc"
    whole, duration = lab.measured(operation, prefix)
    expected = names(prefix)
    for moment in moments(pytestconfig):
        lab.store(operation, prefix)
        disk.sync()
        killed = end_at(lab.start(prefix, operation.version, operation.arguments), moment, duration)
        disk.cut()
        check_consistent(prefix)
        done = again(lab, operation, prefix, whole)
        assert killed or not done.result["changed"]  # what ended is on the disk
        assert names(prefix) == expected


def start(disk: Disk, module: str, arguments: t.Mapping[str, t.Any]) -> subprocess.Popen[str]:
    """Start a module on a host that has its files on the disk."""
    return subprocess.Popen(
        [
            *(*ROOT, "unshare", "--mount", "sh", "-c", f"set -e; {_IN_PLACE}", str(disk.path)),
            *(sys.executable, str(RUNNER), module, json.dumps(arguments)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def scopes(disk: Disk, arguments: t.Mapping[str, t.Any]) -> subprocess.Popen[str]:
    """Start the module that says who preloads."""
    return start(disk, "jemalloc_preload", rendering.with_texts(dict(arguments)))


def shared(disk: Disk) -> dict[str, str]:
    """Return the files and links of the disk that are the collection's, or in part, by their names."""
    paths = [disk.path / "etc" / name for name in SHARED]
    found = {path.name: path.read_text() for path in paths if path.exists()}
    return {**found, **{name: os.readlink(disk.path / "bin" / name) for name in links(disk)}}


def links(disk: Disk) -> list[str]:
    """Return the links among the commands; one that begins with a dot has not got its name yet."""
    return [path.name for path in (disk.path / "bin").iterdir() if path.name[0] != "."]


@pytest.mark.parametrize("via", ["environment", "ld_so_preload"])
@pytest.mark.parametrize("enables", [True, False], ids=["enable", "disable"])
def test_who_preloads(lab: Lab, disk: Disk, pytestconfig: pytest.Config, via: str, enables: bool) -> None:
    shutil.copytree("/etc", disk.path / "etc", symlinks=True, ignore_dangling_symlinks=True)
    (disk.path / "etc" / "environment").write_text("A=1\n")
    for name in ("bin", "opt"):
        (disk.path / name).mkdir()
    installed = lab.end(start(disk, "jemalloc", lab.arguments(PREFIX, "9.9.9", {})))
    assert installed.status == 0, installed.output
    both: list[dict[str, t.Any]] = [ABSENT, {"host": True, "via": via}]
    arguments = both if enables else both[::-1]
    states, duration = [], 0.0
    for each in arguments:
        began = time.monotonic()
        done = lab.end(scopes(disk, each))
        duration = time.monotonic() - began
        assert done.status == 0, done.output
        states.append(shared(disk))
    assert states[0] != states[1]
    for moment in moments(pytestconfig):
        assert lab.end(scopes(disk, arguments[0])).status == 0
        disk.sync()
        killed = end_at(scopes(disk, arguments[1]), moment, duration)
        disk.cut()
        check_consistent(disk.path / "opt" / "jemalloc")
        found = shared(disk)
        for name in {*found, *states[0], *states[1]}:
            assert found.get(name) in (states[0].get(name), states[1].get(name)), name
        done = lab.end(scopes(disk, arguments[1]))
        assert done.status == 0, done.output
        # The name by which the watchdog knows a trial can be on the disk still: then the line is tried once more.
        assert killed or via == "ld_so_preload" or not done.result["changed"]
        assert shared(disk) == states[1]
