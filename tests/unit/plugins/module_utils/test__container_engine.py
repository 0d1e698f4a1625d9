# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the processes of containers map, by a made-up /proc."""

from __future__ import annotations

import pathlib
import subprocess
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _container_engine as engine_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes

PREFIX = "/opt/jemalloc"
LIBRARY = f"{PREFIX}/5.3.1/lib/libjemalloc.so.2"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> t.Tuple[bytes, bytes]:
    """A program that asks for a loader, and a static one."""
    directory = tmp_path_factory.mktemp("programs")
    (directory / "main.c").write_text("int main(void) { return 0; }")
    for name, options in (("dynamic", []), ("static", ["-static"])):
        subprocess.run(["gcc", *options, "-o", str(directory / name), str(directory / "main.c")], check=True)
    return (directory / "dynamic").read_bytes(), (directory / "static").read_bytes()


def child(directory: pathlib.Path, parent: int) -> None:
    """Let a process have a parent."""
    text = (directory / "stat").read_text()
    (directory / "stat").write_text(text.replace(" S 1 ", f" S {parent} "))


def test_mapped(proc: t.Any, programs: t.Tuple[bytes, bytes]) -> None:
    dynamic, static = programs
    proc.add(10, "/run/podman-init", program=static)
    child(proc.add(11, "/usr/bin/app", LIBRARY, program=dynamic), 10)
    child(proc.add(12, "/usr/bin/sh", program=dynamic), 11)
    child(proc.add(13, "/usr/bin/odd", program=b"#!"), 11)
    proc.add(20, LIBRARY, program=dynamic)  # somebody else's
    (child(proc.add(14, "/usr/bin/gone", program=dynamic), 11))
    (proc.top / "14" / "exe").unlink()
    found = engine_util.mapped([10, 99], PREFIX, str(proc.top))
    assert found == {11: {"5.3.1"}, 12: set()}
    assert engine_util.lacking(found, "5.3.1") == "1 of its 2 processes do not map jemalloc 5.3.1"
    assert engine_util.lacking(found, None) == "1 of its 2 processes still map jemalloc"
    assert engine_util.lacking(found, processes.ANY) == ""
    assert engine_util.lacking({11: {"5.3.1"}}, "5.3.1") == ""
    assert engine_util.lacking({11: {"5.3.1"}}, "5.3.1", "5.3.1") == "1 of its 1 processes do not map jemalloc 5.3.1"
    assert engine_util.lacking({}, None, None) == ""
