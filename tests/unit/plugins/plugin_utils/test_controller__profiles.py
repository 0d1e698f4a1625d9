# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of profiles on the controller: unpacked, drawn, and told of in a few lines."""

from __future__ import annotations

import base64
import pathlib
import typing as t
import zlib

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _profiles as profiles


def refused(tmp_path: pathlib.Path, content: str) -> str:
    """Return why a file is not kept."""
    with pytest.raises(JemallocError) as error:
        profiles.keep(str(tmp_path / "place"), {"12.txt": content})
    assert not (tmp_path / "place").exists()
    return str(error.value)


def test_what_cannot_be_unpacked(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = zlib.compress(b"x" * 1000)
    assert refused(tmp_path, "no base64").startswith("The host sent a file 12.txt that cannot be unpacked (")
    assert refused(tmp_path, base64.b64encode(b"no zlib").decode()).startswith(
        "The host sent a file 12.txt that cannot"
    )
    large = "The host sent a file 12.txt that is cut off, or larger than 512 MiB."
    assert refused(tmp_path, base64.b64encode(packed[:-6]).decode()) == large
    monkeypatch.setattr(profiles, "_MOST_BYTES", 999)
    assert refused(tmp_path, base64.b64encode(packed).decode()) == large.replace("512", "0")


def test_files_that_are_there_are_replaced(tmp_path: pathlib.Path) -> None:
    for text in (b"one", b"two"):
        content = base64.b64encode(zlib.compress(text)).decode()
        assert profiles.keep(str(tmp_path), {"12.txt": content}) == [f"{tmp_path}/12.txt"]
        assert (tmp_path / "12.txt").read_bytes() == text


@pytest.fixture
def graphs(tmp_path: pathlib.Path) -> t.List[str]:
    """Two graphs, of which one has a picture already, and one more."""
    for name in ("1.dot", "1.svg", "2.dot", "3.dot"):
        (tmp_path / name).write_text(name)
    return [f"{tmp_path}/{name}" for name in ("1.dot", "1.svg", "2.dot", "3.dot")]


def test_draw(graphs: t.List[str], tmp_path: pathlib.Path, program: t.Callable[[str, str], pathlib.Path]) -> None:
    log = program("dot", 'echo "svg of $(cat "$4")" > "$3"')
    assert profiles.draw(graphs) == ([f"{tmp_path}/2.svg", f"{tmp_path}/3.svg"], "")
    assert (tmp_path / "3.svg").read_text() == "svg of 3.dot\n"
    assert (tmp_path / "1.svg").read_text() == "1.svg"
    assert log.read_text().splitlines()[0] == f"-Tsvg -o {tmp_path}/2.svg {tmp_path}/2.dot"
    assert profiles.draw([f"{tmp_path}/1.txt"]) == ([], "")


def test_what_cannot_be_drawn(
    graphs: t.List[str],
    tmp_path: pathlib.Path,
    program: t.Callable[[str, str], pathlib.Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program("dot", 'case $4 in */3.dot) echo "no  fonts" >&2; exit 1;; esac')
    why = "Pictures are left out, as dot fails with 3.dot: no fonts."
    assert profiles.draw(graphs) == ([f"{tmp_path}/2.svg"], why)
    program("dot", "exec sleep 60")
    monkeypatch.setattr(profiles, "_TIME_LIMIT", 0.1)
    assert profiles.draw(graphs) == ([], "Pictures are left out, as dot took more than 0.1 s for 2.dot.")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert profiles.draw(graphs) == (
        [],
        "Pictures are left out, as neither the host nor this machine has dot, of the package graphviz.",
    )


def test_summary() -> None:
    result = {
        "unit": "puma.service",
        "version": "5.3.1",
        "seconds": 60.0,
        "early": "",
        "processes": [{"pid": 12}],
        "top": [{"function": "most", "mb": 119.4}, {"function": "f", "mb": 0.1}],
        "left_out": [],
        "directory": "/d",
        "files": ["/d/12.txt"],
    }
    assert profiles.summary(result) == [
        "puma.service ran for 60 s with profiling by jemalloc 5.3.1, and 1 process left dumps. What was allocated and "
        "still in use then:",
        "     119.4 MB  most",
        "       0.1 MB  f",
        "The files are in /d:",
        "12.txt",
    ]
    two = [{"pid": 12}, {"pid": 13}]
    lines = profiles.summary({**result, "processes": two, "top": [], "early": "why", "left_out": ["Something."]})
    assert "2 processes left dumps" in lines[0]
    assert lines[1:4] == ["nothing of more than 0.1 MB", "It ended early: why.", "Something."]
