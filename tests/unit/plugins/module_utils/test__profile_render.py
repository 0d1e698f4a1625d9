# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of dumps, with a tool that is a script, and a systemd-run that runs it without a box around it."""

from __future__ import annotations

import base64
import os
import pathlib
import shutil
import subprocess
import typing as t
import zlib

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _profile_dumps as dumps_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile_render as render

MAPS = "\nMAPPED_LIBRARIES:\n5500-5501 r--p 0 08:01 1   {program}\n"
LIMIT = 1 << 20

# It knows dumps by what is in them, and a program by its name.
JEPROF = r"""#!/bin/sh
# --text --dot --collapsed
echo Using local file >&2
case $1 in
  --raw)
    case $2 in */missing) echo "$2 does not exist." >&2; exit 1 ;; esac
    printf -- '--- symbol\nbinary=%s\n0x1 main\n---\n--- heap\n' "$2"
    echo 'can only dump remote profiles' >&2
    exit 2 ;;
  --base=*) grep -q first "${1#--base=}" && exit 1 ;;
  --text)
    case $2 in --base=*) echo "grown from $(grep -c . "${2#--base=}") to $(grep -c . "$4") lines of $3"; exit ;; esac
    grep -q -- '--- heap' "$2" || exit 9
    grep -q textless "$2" && { echo; echo 'no text' >&2; echo ' ' >&2; exit 1; }
    printf 'Total: 19.5 MB\n    19.4  99.6%%  99.6%%     19.4  99.6%% most\n'
    printf '     0.1   0.4%% 100.0%%      0.1   0.4%% a b\n' ;;
  --collapsed) echo 'main<0000000000001179>;f(int<5>)<00000000000011c3> 12' ;;
  --dot) echo digraph ;;
esac
"""


def dump(program: str = "/usr/bin/ruby", mark: str = "", used: int = 5) -> bytes:
    """Return a dump."""
    return f"heap_v2/524288\n  t*: 10: {used} [0: 0]\n{mark}\n{MAPS.format(program=program)}".encode()


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory of dumps."""
    directory = tmp_path / "dumps"
    directory.mkdir()
    return directory


@pytest.fixture
def calls(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.List[t.List[str]]:
    """The commands that were run; what is handed to the tool is here."""
    (tmp_path / "waiting").mkdir()
    monkeypatch.setattr(render, "_WAITING", str(tmp_path / "waiting"))
    path = tmp_path / "jeprof"
    path.write_text(JEPROF)
    path.chmod(0o755)
    return []


@pytest.fixture
def run(tmp_path: pathlib.Path, place: pathlib.Path, calls: t.List[t.List[str]]) -> t.Callable[..., render.Rendered]:
    """Render what is in the directory of dumps."""

    def outputs(command: t.Sequence[str]) -> t.Tuple[int, str, str]:
        calls.append(list(command))
        inner = list(command[command.index("env") :])  # only root can be somebody else
        handed = next(item for item in command if item.startswith("--property=BindReadOnlyPaths=")).split("=")[2]
        for name in os.listdir(handed):
            assert os.stat(f"{handed}/{name}").st_mode & 0o777 == 0o400
        assert os.stat(handed).st_mode & 0o777 == 0o700
        done = subprocess.run(inner, capture_output=True, encoding="utf-8", check=False)
        return done.returncode, done.stdout, done.stderr

    def whole(**files: bytes) -> render.Rendered:
        for name, data in files.items():
            _word, pid, number = name.split("_")
            (place / f"dump.{pid}.{number}.i{number}.heap").write_bytes(data)
        with dumps_util.Directory(str(place)) as directory:
            tool = render.Tool(outputs, str(tmp_path / "jeprof"), directory)
            found = dumps_util.ranked(directory, LIMIT)
            return render.render(tool, directory, found, LIMIT)

    return whole


def unpacked(made: render.Rendered) -> t.Dict[str, str]:
    """Return the files."""
    return {
        name: zlib.decompress(base64.b64decode(content)).decode("utf-8", "surrogateescape")
        for name, content in made.contents.items()
    }


@pytest.fixture(autouse=True)
def _no_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take dot away where this machine has it."""
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "dot" else which(name))


def test_all_that_is_made(run: t.Callable[..., render.Rendered], calls: t.List[t.List[str]]) -> None:
    first, last = dump(mark="\n\n"), dump(used=7)
    made = run(dump_12_0=first, dump_12_1=last)
    assert unpacked(made) == {
        "12.collapsed": "main;f(int<5>) 12\n",
        "12.dot": "digraph\n",
        "12.growth.txt": "grown from 4 to 4 lines of /usr/bin/ruby\n",
        "12.heap": f"--- symbol\nbinary=/usr/bin/ruby\n0x1 main\n---\n--- heap\n{last.decode()}",
        "12.txt": (
            "Total: 19.5 MB\n    19.4  99.6%  99.6%     19.4  99.6% most\n     0.1   0.4% 100.0%      0.1   0.4% a b\n"
        ),
    }
    assert made.top == [("most", 19.4), ("a b", 0.1)]
    assert made.left_out == []
    # nothing of the environment is handed on, and no rights
    for call in calls:
        assert call[0] == "systemd-run"
        assert call[call.index("setpriv") :][:4] == [
            *("setpriv", f"--reuid={os.getuid()}", f"--regid={os.getgid()}", "--clear-groups"),
        ]
        assert call[call.index("env") + 1] == "-i"
        assert {"--property=PrivateTmp=yes", "--property=ProtectSystem=strict", "--property=PrivateNetwork=yes"} < set(
            call
        )


def test_nothing_is_left_of_what_the_tool_got(run: t.Callable[..., render.Rendered], tmp_path: pathlib.Path) -> None:
    run(dump_12_0=dump())
    run(dump_13_0=dump("/opt/missing"))
    assert os.listdir(tmp_path / "waiting") == []


def test_one_dump_shows_no_growth(run: t.Callable[..., render.Rendered]) -> None:
    assert sorted(run(dump_12_0=dump()).contents) == ["12.collapsed", "12.dot", "12.heap", "12.txt"]


def test_what_the_tool_cannot_do_is_left_out(run: t.Callable[..., render.Rendered], tmp_path: pathlib.Path) -> None:
    made = run(dump_12_0=dump("/opt/missing", used=9), dump_13_0=dump(mark="textless"))
    assert sorted(made.contents) == ["12.raw.heap", "13.collapsed", "13.dot", "13.heap"]
    assert unpacked(made)["12.raw.heap"] == dump("/opt/missing", used=9).decode()
    assert made.left_out == [
        "The dump with names is left out for process 12: /opt/missing does not exist.",
        "The text is left out for process 13: no text.",
    ]
    assert made.top == []
    (tmp_path / "jeprof").write_text(JEPROF.replace("--collapsed", "--old"))
    made = run()
    assert "13.collapsed" not in made.contents
    assert made.left_out[0] == "Collapsed stacks are left out, as the tool of this release makes none."


def test_no_word_of_the_tool() -> None:
    assert render._said("\n \n") == "no word"


def test_many_processes(run: t.Callable[..., render.Rendered], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "MOST_PROCESSES", 1)
    made = run(dump_12_0=dump(used=4), dump_13_0=dump(used=5))
    assert "13.txt" in made.contents
    assert "12.txt" not in made.contents
    assert made.left_out == ["Of 2 processes the 1 with the most memory in use are rendered."]


def test_what_is_too_large_is_left_out(run: t.Callable[..., render.Rendered], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_MOST_BYTES", 100)
    noise = base64.b64encode(os.urandom(200)).decode()
    made = run(dump_12_0=dump(mark=noise))
    assert "12.heap" not in made.contents
    assert made.left_out[0] == "12.heap is left out, as it takes 0 MiB even when it is packed."


def test_a_dump_that_changes_meanwhile(
    run: t.Callable[..., render.Rendered], monkeypatch: pytest.MonkeyPatch, place: pathlib.Path
) -> None:
    ranked = dumps_util.ranked

    def then_gone(directory: dumps_util.Directory, limit: int) -> t.List[dumps_util.Found]:
        found = ranked(directory, limit)
        directory.remove(directory.scan())
        return found

    monkeypatch.setattr(dumps_util, "ranked", then_gone)
    made = run(dump_12_0=dump())
    assert made == render.Rendered({}, [], ["The dump of process 12 changed meanwhile."])


def test_the_picture(
    run: t.Callable[..., render.Rendered],
    program: t.Callable[[str, str], pathlib.Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    program("dot", 'echo "<svg>$(cat $2)</svg>"')
    assert unpacked(run(dump_12_0=dump()))["12.svg"] == "<svg>digraph</svg>\n"
    program("dot", "echo no fonts >&2; exit 1")
    made = run(dump_12_0=dump())
    assert made.left_out == ["The picture is left out for process 12: no fonts."]


def test_top() -> None:
    text = "Total: 9.9 MB\n" + "".join(f"{size:8.1f}  1.0%  1.0% {size:8.1f}  1.0% f{size}\n" for size in range(7))
    more = "    -3.0   1.0%   1.0%      3.0   1.0% f6\n     0.5   1.0%   1.0%      3.0   1.0% f4\n"
    assert render.top([text, more]) == [("f5", 5.0), ("f4", 4.5), ("f3", 3.0), ("f6", 3.0), ("f2", 2.0)]
    assert render.top(["     0.0   1.0%   1.0%      3.0   1.0% f\n"]) == []
    assert render.top(["     1.0   1.0%   1.0%      3.0   1.0% f\udcff\n"]) == [("f?", 1.0)]
