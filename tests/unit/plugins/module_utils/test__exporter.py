# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program as a file: what is in it, and that it runs without Ansible on every Python of this machine."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import typing as t
import zipfile

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _collector as collector
from ansible_collections.preload.jemalloc.plugins.module_utils import _exporter as exporter
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

_HERE = exporter.__name__.rpartition(".")[0]
_WHERE = (pathlib.Path.home() / ".pyenv" / "versions", pathlib.Path("/usr"))


def pythons() -> t.List[str]:
    """Return every Python here that a host can have, each minor version once."""
    found: t.Dict[int, str] = {sys.version_info.minor: sys.executable}
    for minor in range(9, 15):
        for place in _WHERE:
            for path in [*place.glob(f"3.{minor}.*/bin/python3.{minor}"), *place.glob(f"bin/python3.{minor}")]:
                found.setdefault(minor, str(path))
    return [path for _minor, path in sorted(found.items())]


@pytest.mark.parametrize("python", pythons())
def test_it_runs_without_ansible(python: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.pyz"
    path.write_bytes(exporter.program("/usr/bin/python3"))
    command = [python, "-I", "-S", str(path), "--prefix", "/opt/jemalloc", "--directory", str(tmp_path)]
    done = subprocess.run(command, cwd="/", env={}, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "jemalloc_collect_duration_seconds " in (tmp_path / "jemalloc.prom").read_text()


def test_it_says_in_a_sentence_what_is_wrong(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.pyz"
    path.write_bytes(exporter.program(sys.executable))
    path.chmod(0o755)
    command = [str(path), "--prefix", "/opt/jemalloc", "--directory", str(tmp_path / "missing")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    expected = f"{tmp_path}/missing: No such file or directory; jemalloc.prom is as it was.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)


def test_the_same_sources_make_the_same_file(tmp_path: pathlib.Path) -> None:
    whole = exporter.program("/usr/bin/python3")
    assert whole == exporter.program("/usr/bin/python3")
    assert whole.startswith(b"#!/usr/bin/python3 -I\n")
    (tmp_path / "metrics.pyz").write_bytes(whole)
    with zipfile.ZipFile(tmp_path / "metrics.pyz") as archive:
        members = archive.infolist()
    assert [member.filename for member in members] == sorted(member.filename for member in members)
    assert {member.date_time for member in members} == {(1980, 1, 1, 0, 0, 0)}
    assert {(member.create_system, member.external_attr >> 16) for member in members} == {(3, 0o644)}


def test_it_has_what_it_needs_and_no_more() -> None:
    names = {name.rpartition(".")[2] for name in exporter.sources()}
    assert {"_collector", "_metrics", "_info", "_errors"} <= names
    assert names.isdisjoint({"_exporter", "_timer", "_expose", "_host", "_build", "_malloc_conf"})


def test_imports() -> None:
    source = (
        "import os\n"
        f"from {_HERE} import _one as one\n"
        f"from {_HERE}._two import Two\n"
        "from elsewhere import _three\n"
        "from . import four\n"
        f"if t.TYPE_CHECKING:\n    from {_HERE} import _types\n"
        f"def late():\n    from {_HERE} import _late\n"
    )
    assert exporter.imports(source) == [f"{_HERE}._one", f"{_HERE}._two"]


def test_a_source_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "__name__", f"{_HERE}._missing")
    with pytest.raises(JemallocError, match=r"^The source of .*_missing is not there, of which the program is made"):
        exporter.sources()


def test_interpreter(tmp_path: pathlib.Path) -> None:
    assert exporter.interpreter(os.path.realpath("/usr/bin/python3")) == "/usr/bin/python3"
    assert exporter.interpreter("/opt/python/bin/python3.12") == "/opt/python/bin/python3.12"
    with pytest.raises(JemallocError, match=r"^'/opt/my python/bin/python3' is the Python of this host, and systemd"):
        exporter.interpreter("/opt/my python/bin/python3")
