# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the unit tests share: fake programs, a made-up /proc, a server on this machine."""

from __future__ import annotations

import contextlib
import http.server
import os
import pathlib
import struct
import threading
import typing as t

import pytest
from ansible.module_utils.common import warnings

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes
from ansible_collections.preload.jemalloc.plugins.module_utils import _download as download
from ansible_collections.preload.jemalloc.plugins.module_utils import _install as install_util


@pytest.fixture(autouse=True)
def _harmless(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep logs of failed builds here, do not wait before a download is tried again, and use no proxy.

    Warnings of other tests are forgotten: Ansible's half for hosts gathers them in a variable, as a module is a process
    of its own there.
    """
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(warnings, "_global_warnings", {})
    monkeypatch.setattr(install_util, "LOGS", (str(tmp_path),))
    monkeypatch.setattr(download, "PAUSES", (0, 0))
    monkeypatch.setattr(changes, "LOCK", f"{tmp_path}/preload-jemalloc.lock")


@pytest.fixture
def program(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[[str, str], pathlib.Path]:
    """Put a shell script in front of everything on the PATH; return the file that gets the arguments of its calls."""
    directory = tmp_path / "programs"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    def make(name: str, script: str) -> pathlib.Path:
        path, log = directory / name, directory / f"{name}.log"
        path.write_text(f'#!/bin/sh\necho "$*" >> {log}\n{script}')
        path.chmod(0o755)
        log.write_text("")
        return log

    return make


@contextlib.contextmanager
def serving(handler: t.Type[http.server.BaseHTTPRequestHandler]) -> t.Iterator[str]:
    """Have a server on this machine that answers by a handler; its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


def put(path: pathlib.Path, text: str, mode: int = 0o644) -> str:
    """Write a file and the directories that lead to it; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return str(path)


MAPPING = "7f12{number:08x}000-7f12{number:08x}fff {access} 00001000 08:01 {inode}{blanks}{path}\n"


def maps_of(*paths: str, access: str = "r-xp") -> str:
    """Return maps as the kernel writes them: of each file its code, and one that is only read."""
    lines: t.List[str] = []
    for number, path in enumerate(paths):
        for each in ("r--p", access):
            place = {"number": len(lines), "inode": 1000 + number, "blanks": " " * 18}
            lines.append(MAPPING.format(access=each, path=path, **place))
    return "".join(lines)


class Proc:
    """A made-up /proc."""

    def __init__(self, top: pathlib.Path) -> None:
        self.top = top
        top.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        pid: int,
        *paths: str,
        maps: t.Optional[str] = None,
        unit: str = "puma.service",
        cgroup: str = "",
        program: bytes = b"",
        environment: t.Optional[t.Dict[str, str]] = None,
        secure: bool = False,
        threads: int = 1,
        started: int = 0,
        flags: int = 0x400000,
        name: str = "puma: 5.6 (x)",
    ) -> pathlib.Path:
        """Add a process that maps files; started is in seconds since the host started. Return its directory."""
        directory = self.top / str(pid)
        directory.mkdir()
        (directory / "maps").write_text(maps_of(*paths) if maps is None else maps)
        (directory / "cgroup").write_text(cgroup or f"0::/system.slice/{unit}\n")
        fields = [str(flags), *["0"] * 10, str(threads), "0", str(started * os.sysconf("SC_CLK_TCK")), "9", "25", "1"]
        (directory / "stat").write_text(f"{pid} ({name}) S 1 1 1 0 -1 {' '.join(fields)}\n")
        (directory / "status").write_text("Name:\tpuma\nVmRSS:\t  100 kB\nVmSwap:\t  8 kB\nThreads:\t1\n")
        (directory / "smaps_rollup").write_text(
            "0-1 ---p 0 00:00 0 [rollup]\nRss:  100 kB\nPss:  50 kB\nPss_Dirty:  9 kB\n"
        )
        whole = [f"{key}={value}" for key, value in {"PATH": "/bin", **(environment or {})}.items()]
        (directory / "environ").write_text("\0".join([*whole, ""]))
        (directory / "auxv").write_bytes(struct.pack("6Q", 6, 4096, 23, int(secure), 0, 0))
        (directory / "program").write_bytes(program)
        (directory / "exe").symlink_to(directory / "program")
        return directory


@pytest.fixture
def proc(tmp_path: pathlib.Path) -> Proc:
    """A made-up /proc without processes; it is that of the fixture root."""
    return Proc(tmp_path / "root" / "proc")
