# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wrapper, run by the shells that there are, with a real library."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
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


def calling(shell: str, prefix: pathlib.Path, name: str) -> Wrapper:
    """Return what runs a wrapper in an environment that holds nothing else."""
    path = prefix / name
    path.write_text(wrapper.texts(str(prefix))[f"bin/{name}"])

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


@pytest.fixture
def run(shell: str, prefix: pathlib.Path) -> Wrapper:
    """Run jemalloc.sh."""
    return calling(shell, prefix, "jemalloc.sh")


@pytest.fixture
def without(shell: str, prefix: pathlib.Path) -> Wrapper:
    """Run no-jemalloc.sh."""
    return calling(shell, prefix, "no-jemalloc.sh")


def test_the_text_names_the_prefix_only() -> None:
    for name, text in wrapper.texts("/opt/jemalloc").items():
        assert "@PREFIX@" not in text
        assert text.encode("ascii").startswith(f"#!/bin/sh\n# {name[4:]} COMMAND ".encode())


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


#: Says all that a process has from the one that started it.
REPORT = """
import json, os, signal, sys
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
print(json.dumps({
    "arguments": sys.argv[1:], "directory": os.getcwd(), "umask": status["Umask"], "parent": os.getppid(),
    "group": os.getpgrp() == os.getpid(), "session": os.getsid(0) == os.getpid(),
    "signals": [status[name] for name in ("SigBlk", "SigIgn", "SigCgt")], "input": sys.stdin.read(),
    "descriptors": {int(each): os.readlink("/proc/self/fd/" + each) for each in os.listdir("/proc/self/fd")
                    if os.path.exists("/proc/self/fd/" + each)},
    "environment": dict(os.environ),
}))
"""


#: What would lead a careless shell script astray: what the shell heeds, and the names of the wrapper's own variables.
HOSTILE = {
    "IFS": "/a",
    "ENV": "/nonexistent",
    "BASH_ENV": "/nonexistent",
    "library": "x",
    "entry": "y",
    "others": "z",
}


def be_special() -> None:
    """Have signals ignored and blocked, and another umask, which all are handed on by an exec."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    os.umask(0o027)


def test_all_else_is_as_with_a_plain_exec(prefix: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = prefix / "jemalloc.sh"
    path.write_text(wrapper.texts(str(prefix))["bin/jemalloc.sh"])
    path.chmod(0o755)
    library = OURS.format(prefix=prefix)
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "LD_PRELOAD": library, "PWD": str(tmp_path), **HOSTILE}

    reports = []
    with open(os.devnull, "rb") as extra:
        for front in (["/bin/sh", "-c", 'exec "$@"', "sh"], [str(path)]):
            done = subprocess.run(
                [*front, sys.executable, "-I", "-c", REPORT, "a b", ""],
                env=environment,
                input="what it reads\n",
                cwd=str(tmp_path),
                pass_fds=[extra.fileno()],
                start_new_session=True,
                preexec_fn=be_special,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                check=True,
            )
            reports.append(json.loads(done.stdout))
    plain, wrapped = reports
    for report in reports:  # the pipes are new ones each time
        report["descriptors"] = {key: value.split(":")[0] for key, value in report["descriptors"].items()}
        report["environment"].pop("_", None)  # bash, where it is sh, says by it what it executes
    assert wrapped == plain
    assert plain["input"] == "what it reads\n"


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


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, ""), (OURS, ""), (f"{OURS}:/a.so:{OLD} /b.so", "/a.so:/b.so"), ("/a.so", "/a.so"), ("", "")],
)
def test_what_is_left_without(without: Wrapper, prefix: pathlib.Path, before: t.Optional[str], after: str) -> None:
    environment = {} if before is None else {"LD_PRELOAD": before.format(prefix=prefix)}
    done = without("sh", "-c", 'echo "$LD_PRELOAD"; exit 7', **environment)
    assert (done.returncode, done.stdout) == (7, f"{after}\n")
    if not after:
        assert without("sh", "-c", 'echo "${LD_PRELOAD-unset}"', **environment).stdout == "unset\n"


def test_without_a_command_too(without: Wrapper) -> None:
    done = without()
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr == "no-jemalloc.sh: no command was given; usage: no-jemalloc.sh COMMAND [ARGUMENT...]\n"
