# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that a timer runs, called in this process."""

from __future__ import annotations

import os
import pathlib
import re
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _collector as collector
from tests.unit.conftest import Proc

LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6"


@pytest.fixture
def run(tmp_path: pathlib.Path, root: pathlib.Path) -> t.Callable[..., int]:
    """Run the program with a store and a directory of its own."""
    directory = tmp_path / "textfile"
    directory.mkdir()

    def call(prefix: t.Union[str, pathlib.Path] = tmp_path / "jemalloc") -> int:
        return collector.main(["--prefix", str(prefix), "--directory", str(directory)])

    return call


def test_it_replaces_the_file(run: t.Callable[..., int], tmp_path: pathlib.Path, proc: Proc) -> None:
    proc.add(1, LIBC)
    proc.add(2, LIBC, unit=collector.SERVICE)
    proc.add(3, LIBC, cgroup=f"0::/docker/{'1' * 64}/system.slice/{collector.SERVICE}\n")
    path = tmp_path / "textfile" / "jemalloc.prom"
    path.write_text("old")
    path.chmod(0o600)
    old_umask = os.umask(0o077)
    try:
        assert run() == 0
    finally:
        os.umask(old_umask)
    text = path.read_text()
    assert 'jemalloc_unit_processes{unit="puma.service",scope="system"' in text
    assert f'unit="{collector.SERVICE}",scope="system"' not in text
    assert f'unit="{collector.SERVICE}",scope="container"' in text
    assert text.endswith("\n")
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == ["jemalloc.prom"]


def test_installations(
    run: t.Callable[..., int], tmp_path: pathlib.Path, proc: Proc, installed: t.Callable[..., None]
) -> None:
    installed(str(tmp_path / "jemalloc"), "5.3.1")
    assert run() == 0
    text = (tmp_path / "textfile" / "jemalloc.prom").read_text()
    assert 0 < float(re.findall(r"^jemalloc_collect_duration_seconds (\S+)$", text, re.MULTILINE)[0]) < 600
    assert 'jemalloc_installation_damaged{release="5.3.1"} 0\n' in text


def test_errors_leave_the_file(
    run: t.Callable[..., int], tmp_path: pathlib.Path, proc: Proc, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "textfile" / "jemalloc.prom"
    path.write_text("old")
    assert run("relative") == 1
    assert capsys.readouterr().err == (
        "prefix: 'relative' cannot hold the store; name an absolute path of letters, digits and ._+@- such as "
        "/opt/jemalloc.\n"
    )
    assert path.read_text() == "old"
    path.unlink()
    path.parent.rmdir()
    assert run() == 1
    assert capsys.readouterr().err == f"{path.parent}: No such file or directory; jemalloc.prom is as it was.\n"


def test_without_arguments_it_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        collector.main([])
    assert raised.value.code == 2
    assert "--directory" in capsys.readouterr().err
