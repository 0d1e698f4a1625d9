# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each change that jemalloc_preload makes to a host's files fails once: one sentence, and every file as before."""

from __future__ import annotations

import json
import os
import re
import typing as t

import pytest
from hosts import LAB, LIST, OPERATIONS, Answer, Host, Operation, rendered

#: Without --full one call in so many is made to fail, another one for each operation, each by one of the errors.
PART = 12

ERRORS = ("ENOSPC", "EIO", "EROFS", "EACCES")

# Each under all its names, as the architectures have different ones; ? lets strace pass over those that there are not.
CALLS = (
    "write,fsync,fchmod,fchown,?open,openat,?mkdir,mkdirat,?symlink,symlinkat,?link,linkat,?rename,?renameat,renameat2,"
    "?chmod,fchmodat"
)

LOCK = "/run/preload-jemalloc.lock"

RUNNER = f"{LAB}/ansible_collections/preload/jemalloc/tests/faults/run_module.py"


LD_SO_PRELOAD = "/etc/ld.so.preload"

#: The operations of which some calls fail without --full too.
PARTLY = ("enable-list", "change-services", "disable-environment")


class Call(t.NamedTuple):
    """The number-th time that a process makes a system call that has to do with one of these paths."""

    name: str
    paths: tuple[str, ...]
    number: int


def names(path: str) -> tuple[str, ...]:
    """Return the names under which a file is prepared and kept, alone or together with its directory."""
    directory, name = os.path.split(path)
    above, last = os.path.split(directory)
    kinds = ("", ".kept")
    places = [f"{above}/.{last}{kind}.preload-jemalloc" for kind in kinds]
    return (
        *(f"{directory}/.{name}{kind}.preload-jemalloc" for kind in kinds),
        *(each for place in places for each in (place, f"{place}/{name}")),
    )


@pytest.fixture
def strace(host: Host) -> list[str]:
    """How strace is called in the container."""
    return host.give_strace()


def traced(
    host: Host, strace: list[str], operation: Operation, paths: t.Iterable[str], *options: str
) -> tuple[Answer, list[tuple[int, str]]]:
    """Run an operation under strace, which sees the module, the watchdog and what they start.

    Return its answer, and the calls that have to do with the paths, each with its process.
    """
    where = [word for path in paths for word in ("-P", path)]
    command = [*strace, "-f", "-qq", "-y", "-s", "9999", "-o", "/tmp/log", "-e", f"trace={CALLS}", *where, *options]
    command += ["python3", RUNNER, "jemalloc_preload", json.dumps(rendered(operation.arguments))]
    status, output = host.ask("execute", command=command)
    host.ask("settle")
    lines = [line for line in output.splitlines() if line.startswith("{")]
    log = host.ask("shell", script="cat /tmp/log")
    calls = [(int(pid), call) for pid, call in re.findall(r"^(\d+) +(\w+\(.*)$", log, re.MULTILINE)]
    return Answer(False, status, 0, 0.0, output, json.loads(lines[-1]) if lines else {}), calls


def all_calls(host: Host, strace: list[str], operation: Operation) -> list[Call]:
    """Return the calls that an operation makes to change each of its files, and to make their names durable."""
    files = host.run(operation.arguments).result["files"]
    host.ask("restore", name="before")
    directories = sorted({os.path.dirname(path) for path in files})
    groups = [(LOCK,), *map(names, files)]
    every = [*directories, *(path for group in groups for path in group)]
    _answer, calls = traced(host, strace, operation, every)
    counts: dict[Call, int] = {}
    found = []
    for pid, line in calls:
        name = line.partition("(")[0]
        group = next((group for group in groups if any(re.search(rf'["<]{re.escape(p)}[">]', line) for p in group)), ())
        synced = re.match(r"fsync\(\d+<(.*?)>", line)
        if not group and synced and pid == calls[0][0]:  # a process counts for itself, and the module comes first
            group = (synced.group(1),)
        if group:
            counts[Call(name, group, 0)] = number = counts.get(Call(name, group, 0), 0) + 1
            if not name.startswith("open") or re.search(r"O_WRONLY|O_RDWR|O_CREAT", line):
                found.append(Call(name, group, number))
    return found


def chosen(operation: Operation, full: bool) -> t.Callable[[list[Call]], list[tuple[Call, str]]]:
    """Return what chooses the faults: each call with an error."""
    start = OPERATIONS.index(operation)

    def choose(calls: list[Call]) -> list[tuple[Call, str]]:
        if full:
            return [(call, error) for call in calls for error in ERRORS]
        some = calls[start % PART :: PART]
        return [(call, ERRORS[(start + position) % len(ERRORS)]) for position, call in enumerate(some)]

    return choose


@pytest.mark.parametrize(
    "operation",
    [pytest.param(each, id=each.name, marks=() if each.name in PARTLY else pytest.mark.full) for each in OPERATIONS],
)
def test_system_calls(host: Host, strace: list[str], pytestconfig: pytest.Config, operation: Operation) -> None:
    host.begin(operation)
    calls = all_calls(host, strace, operation)
    assert {"openat", "write", "fsync"} <= {call.name for call in calls}
    for call, error in chosen(operation, pytestconfig.getoption("full"))(calls):
        host.ask("restore", name="before")
        inject = f"inject={call.name}:error={error}:when={call.number}"
        answer, seen = traced(host, strace, operation, call.paths, "-e", inject)
        assert sum("(INJECTED)" in line for _pid, line in seen) == 1, (call, error, seen)
        said = answer.sentence().replace("; make room there.", ".")  # of a disk that is full
        assert said.endswith("all files are as before."), (call, error)
        host.check_unchanged("before")
    host.check_processes()


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.arguments == LIST])
def test_the_watchdog_is_killed(
    host: Host, strace: list[str], pytestconfig: pytest.Config, operation: Operation
) -> None:
    host.begin(operation)
    calls = [call for call in all_calls(host, strace, operation) if names(LD_SO_PRELOAD) == call.paths]
    assert calls[0].name == "openat"
    for call in calls if pytestconfig.getoption("full") else calls[-1:]:
        host.ask("restore", name="before")
        # The module brings the file back by a rename as well, of what was kept: that is to work.
        paths = call.paths[:1] if call.name == "rename" else call.paths
        answer, _seen = traced(host, strace, operation, paths, "-e", f"inject={call.name}:signal=KILL")
        assert "the process that watched over it was killed" in answer.sentence(), call
        host.check_unchanged("before")
        host.check_processes()
