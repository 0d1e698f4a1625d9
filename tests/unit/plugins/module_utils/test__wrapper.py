# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wrapper, run by the shells that there are, with a real library."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _wrapper as wrapper

SHELLS = [shell for shell in ("sh", "dash", "bash") if shutil.which(shell)]

Wrapper = t.Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """A shell."""
    return str(shutil.which(request.param))


@pytest.fixture
def prefix(tmp_path: pathlib.Path, library: pathlib.Path) -> pathlib.Path:
    """A store with the releases 5.1.0 and, current, 5.3.1."""
    for version in ("5.1.0", "5.3.1"):
        (tmp_path / "store" / version / "lib").mkdir(parents=True)
        shutil.copy(str(library), str(tmp_path / "store" / version / "lib" / "libjemalloc.so"))
    (tmp_path / "store" / "current").symlink_to("5.3.1")
    return tmp_path / "store"


@pytest.fixture
def run(shell: str, prefix: pathlib.Path) -> Wrapper:
    """Run the wrapper in an environment that holds nothing else."""
    path = prefix / "jemalloc.sh"
    path.write_text(wrapper.text(str(prefix)))

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [shell, str(path), *arguments],
            env={"PATH": "/usr/bin:/bin", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def test_the_text_names_the_prefix_only() -> None:
    assert "@PREFIX@" not in wrapper.text("/opt/jemalloc")
    assert wrapper.text("/opt/jemalloc").encode("ascii").startswith(b"#!/bin/sh\n# jemalloc.sh COMMAND ")


def test_without_a_command(run: Wrapper) -> None:
    done = run()
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr == "jemalloc.sh: no command was given; usage: jemalloc.sh COMMAND [ARGUMENT...]\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["plain"],
        ["with space", "", "  ", "a'b", 'a"b', "$HOME", "`id`", "*", "a\\b", "-n", "--", "new\nline", "~", "ä", ":"],
        [],
    ],
)
def test_arguments_survive(run: Wrapper, arguments: t.List[str]) -> None:
    done = run(sys.executable, "-I", "-c", "import sys; print(ascii(sys.argv[1:]))", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{arguments!a}\n", "")


def test_the_library_is_mapped(run: Wrapper, prefix: pathlib.Path) -> None:
    done = run("cat", "/proc/self/maps")
    assert f"{prefix}/5.3.1/lib/libjemalloc.so" in done.stdout
    assert done.stderr == ""


def test_exit_status_and_output_are_those_of_the_command(run: Wrapper) -> None:
    done = run("sh", "-c", "echo out; echo err >&2; exit 42")
    assert (done.returncode, done.stdout, done.stderr) == (42, "out\n", "err\n")


def test_a_signal_reaches_the_command_itself(run: Wrapper) -> None:
    assert run("sh", "-c", "kill -TERM $$").returncode == -15


@pytest.mark.parametrize("name", ["missing-command", "/missing/command", "/etc/passwd", "/"])
def test_a_command_that_cannot_be_run_ends_as_in_plain_exec(run: Wrapper, shell: str, name: str) -> None:
    plain = subprocess.run(
        [shell, "-c", 'exec "$@"', "sh", name], stderr=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin"}, check=False
    )
    assert run(name).returncode == plain.returncode
    assert plain.returncode in (126, 127)


OURS, OLD = "{prefix}/current/lib/libjemalloc.so", "{prefix}/5.1.0/lib/libjemalloc.so"

#: LD_PRELOAD before, LD_PRELOAD for the command.
PRELOADED = [
    (None, OURS),
    ("", OURS),
    (":", OURS),
    ("/foreign.so", f"{OURS}:/foreign.so"),
    ("/a.so:/b.so", f"{OURS}:/a.so:/b.so"),
    ("/a.so /b.so", f"{OURS}:/a.so:/b.so"),
    (" /a.so:: /b.so ", f"{OURS}:/a.so:/b.so"),
    (OURS, OURS),
    (f"/a.so:{OURS}:/b.so", f"{OURS}:/a.so:/b.so"),
    (f"{OLD}:/a.so", f"{OURS}:/a.so"),
    (f"{OLD} {OURS}", OURS),
    ("{prefix}-other/lib/libx.so", f"{OURS}:{{prefix}}-other/lib/libx.so"),
    ("lib*.so:$HOME:libc.so.6", f"{OURS}:lib*.so:$HOME:libc.so.6"),
]


@pytest.mark.parametrize(("before", "after"), PRELOADED)
def test_what_is_preloaded(run: Wrapper, prefix: pathlib.Path, before: t.Optional[str], after: str) -> None:
    # A shell that cannot load an entry says so and goes on; the wrapper is not what is tested by that.
    environment = {} if before is None else {"LD_PRELOAD": before.format(prefix=prefix)}
    done = run("sh", "-c", 'echo "$LD_PRELOAD"', **environment)
    assert (done.returncode, done.stdout) == (0, f"{after.format(prefix=prefix)}\n")


@pytest.mark.parametrize(
    ("version", "directory"), [("5.1.0", "5.1.0"), ("5.3.1", "5.3.1"), ("current", "current"), ("", "current")]
)
def test_another_release(run: Wrapper, prefix: pathlib.Path, version: str, directory: str) -> None:
    done = run("sh", "-c", 'echo "$LD_PRELOAD"', JEMALLOC_VERSION=version, LD_PRELOAD=OURS.format(prefix=prefix))
    assert done.stdout == f"{prefix}/{directory}/lib/libjemalloc.so\n"


@pytest.mark.parametrize("version", ["5.9.0", "$(id)", "a b", "*", "`id`"])
def test_a_release_that_is_not_installed(run: Wrapper, prefix: pathlib.Path, version: str) -> None:
    done = run("echo", "ran", JEMALLOC_VERSION=version)
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr == (
        f"jemalloc.sh: there is no {prefix}/{version}/lib/libjemalloc.so; install that release or unset "
        "JEMALLOC_VERSION\n"
    )


def test_a_store_that_is_gone(run: Wrapper, prefix: pathlib.Path) -> None:
    (prefix / "current").unlink()
    done = run("echo", "ran")
    assert (done.returncode, done.stdout) == (69, "")


def test_nothing_else_changes_for_the_command(run: Wrapper) -> None:
    done = run("env", MALLOC_CONF="narenas:2", HOME="/root")
    lines = [line for line in done.stdout.splitlines() if not line.startswith(("PWD=", "SHLVL=", "_=", "OLDPWD="))]
    assert sorted(lines)[0] == "HOME=/root"
    assert [line.split("=")[0] for line in sorted(lines)] == ["HOME", "LD_PRELOAD", "MALLOC_CONF", "PATH"]
