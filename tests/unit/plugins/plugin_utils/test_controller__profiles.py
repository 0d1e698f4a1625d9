# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of profiles on the controller: unpacked, drawn, and told of in a few lines."""

from __future__ import annotations

import base64
import os
import pathlib
import typing as t
import zlib

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _graphs as graphs
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _profiles as profiles


def pack(data: bytes) -> str:
    """Return a file as the module sends it."""
    return base64.b64encode(zlib.compress(data)).decode("ascii")


def refused(tmp_path: pathlib.Path, content: t.Any) -> str:
    """Return why a file is not kept."""
    with pytest.raises(JemallocError) as error:
        profiles.keep(str(tmp_path / "place"), {"12.txt": content})
    assert not (tmp_path / "place").exists()
    return str(error.value)


def test_what_cannot_be_unpacked(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = zlib.compress(b"x" * 1000)
    assert refused(tmp_path, "no base64").startswith("12.txt cannot be unpacked (")
    assert refused(tmp_path, base64.b64encode(b"no zlib").decode()).startswith("12.txt cannot be unpacked (")
    assert refused(tmp_path, ["x"]) == "12.txt is no text of at most 16 MiB"
    large = "12.txt is cut off, or larger than 512 MiB"
    for cut in (packed[:-6], b""):
        assert refused(tmp_path, base64.b64encode(cut).decode()) == large
    monkeypatch.setattr(profiles, "_MOST_BYTES", 999)
    assert refused(tmp_path, pack(b"x" * 1000)) == large.replace("512", "0")
    monkeypatch.setattr(profiles, "_MOST_PACKED", 9)
    assert refused(tmp_path, "x" * 10) == "12.txt is no text of at most 0 MiB"


@pytest.mark.parametrize("contents", [None, [], "x", {f"{number}.txt": pack(b"") for number in range(65)}])
def test_what_is_no_profile(tmp_path: pathlib.Path, contents: t.Any) -> None:
    with pytest.raises(JemallocError, match=r"^contents is no mapping of the files of a profile$"):
        profiles.keep(str(tmp_path / "place"), contents)
    assert not (tmp_path / "place").exists()


def test_files_that_are_too_large_together(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "_MOST_TOGETHER", 1999)
    with pytest.raises(JemallocError, match=r"^2\.txt is cut off, or larger than 0 MiB$"):
        profiles.keep(str(tmp_path / "place"), {f"{number}.txt": pack(b"x" * 1000) for number in (1, 2)})
    assert not (tmp_path / "place").exists()


def test_files_that_are_there_are_replaced(tmp_path: pathlib.Path) -> None:
    for text in (b"one", b"two"):
        assert profiles.keep(str(tmp_path), {"12.txt": pack(text)}) == ([f"{tmp_path}/12.txt"], [])
        assert (tmp_path / "12.txt").read_bytes() == text
    assert os.listdir(str(tmp_path)) == ["12.txt"]


def test_a_file_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "12.txt").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        profiles.keep(str(tmp_path), {"12.txt": pack(b"text")})
    assert os.listdir(str(tmp_path)) == ["12.txt"]


def test_what_is_read_on_a_terminal_is_plain(tmp_path: pathlib.Path) -> None:
    data = b"main\t1\n\x1b[2J\xc3" + b"\xa9 \xff" + b"y" * (2 << 20) + b"\xc2"
    profiles.keep(str(tmp_path), {"1.txt": pack(data), "1.raw.heap": pack(data)})
    assert (tmp_path / "1.raw.heap").read_bytes() == data
    assert (tmp_path / "1.txt").read_text() == f"main\t1\n\ufffd[2J\xe9 \ufffd{'y' * (2 << 20)}\ufffd"


def test_a_picture_of_the_host(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harmless, harmful = b"<svg><g></g></svg>", b"<svg><script>alert(1)</script></svg>"
    contents = {"1.svg": pack(harmless), "2.svg": pack(harmful)}
    left_out = "{} of the host is left out, as dot does not draw that."
    assert profiles.keep(str(tmp_path), contents) == ([f"{tmp_path}/1.svg"], [left_out.format("2.svg")])
    assert os.listdir(str(tmp_path)) == ["1.svg"]
    monkeypatch.setattr(graphs, "MOST_PICTURE", len(harmless) - 1)
    assert profiles.keep(str(tmp_path), {"1.svg": pack(harmless)}) == ([], [left_out.format("1.svg")])


GRAPH = 'digraph "{}" {{\n}}\n'


@pytest.fixture
def files(tmp_path: pathlib.Path) -> t.List[str]:
    """Two graphs, of which one has a picture already, and one more."""
    for name in ("1.dot", "1.svg", "2.dot", "3.dot"):
        (tmp_path / name).write_text(GRAPH.format(name))
    return [f"{tmp_path}/{name}" for name in ("1.dot", "1.svg", "2.dot", "3.dot")]


def test_draw(files: t.List[str], tmp_path: pathlib.Path, program: t.Callable[[str, str], pathlib.Path]) -> None:
    log = program("dot", 'echo "svg of $(cat)"')
    assert profiles.draw(files) == ([f"{tmp_path}/2.svg", f"{tmp_path}/3.svg"], "")
    assert (tmp_path / "3.svg").read_text() == f"svg of {GRAPH.format('3.dot')}"
    assert (tmp_path / "1.svg").read_text() == GRAPH.format("1.svg")
    assert log.read_text().splitlines()[0] == "-Tsvg"
    assert profiles.draw([f"{tmp_path}/1.txt"]) == ([], "")


def test_what_cannot_be_drawn(
    files: t.List[str],
    tmp_path: pathlib.Path,
    program: t.Callable[[str, str], pathlib.Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program("dot", 'case $(cat) in *3.dot*) echo "no  fonts" >&2; exit 1;; esac')
    why = "Pictures are left out, as dot fails with 3.dot: no fonts."
    assert profiles.draw(files) == ([f"{tmp_path}/2.svg"], why)
    assert not (tmp_path / "3.svg").exists()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert profiles.draw(files) == (
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
