# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each change that a run makes to the file system fails once: one sentence, and the store as it was before."""

from __future__ import annotations

import itertools
import os
import re
import signal
import typing as t
from pathlib import Path

import pytest
from lab import OPERATIONS, Answer, Lab, Operation, check_consistent, names

from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store

#: Without --full one call in so many is made to fail, another one for each operation, each by one of the errors.
PART = 3

TRIES = 5

ERRORS = ("ENOSPC", "EIO", "EROFS", "EACCES")

# Each under all its names, as the architectures have different ones; ? lets strace pass over those that there are not.
CALLS = (
    "write,?sendfile,?copy_file_range,fsync,?open,openat,?mkdir,mkdirat,?symlink,symlinkat,?rename,?renameat,renameat2"
)

# Only a faster way to write: without them Python writes, and that may succeed.
SPARED = ("sendfile", "copy_file_range")


# A run looks at all processes, so how many calls it makes would depend on what else runs: it gets to see only its own.
# The shell is the first process, which would survive what kills the others.
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "/bin/sh", "-c", '"$@"; exit $?', "sh")
ALONE = NAMESPACE if os.geteuid() == 0 else ()


class Call(t.NamedTuple):
    """The number-th time that a run makes a system call; position counts only those that change something."""

    name: str
    number: int
    position: int


def traced(lab: Lab, prefix: Path, operation: Operation, log: Path, *options: str) -> Answer:
    """Run an operation under strace, which sees the module itself and not the programs that it starts."""
    wrapper = (*ALONE, "strace", "-qq", "-y", "-s", "4096", "-o", str(log), "-e", f"trace={CALLS}", *options)
    return lab.end(lab.start(prefix, operation.version, operation.arguments, wrapper))


def changes(log: Path, prefix: Path) -> list[Call]:
    """Return the calls of a trace that changed something below the prefix."""
    counts: dict[str, t.Iterator[int]] = {}
    found: list[Call] = []
    for line in log.read_text(errors="replace").splitlines():
        name, _parenthesis, rest = line.partition("(")
        number = next(counts.setdefault(name, itertools.count(1)))
        if is_change(name, rest, prefix) and " = -1 " not in rest:
            found.append(Call(name, number, sum(each.name == name for each in found)))
    return found


def is_change(name: str, rest: str, prefix: Path) -> bool:
    """Whether a call changes something below the prefix."""
    if name in ("write", "fsync"):
        return bool(re.match(rf"\d+<{re.escape(str(prefix))}", rest))
    if name.startswith("open") and not re.search(r"O_WRONLY|O_RDWR|O_CREAT", rest):
        return False
    return str(prefix) in rest


def picture(prefix: Path) -> dict[str, t.Any]:
    """Return all that counts in a store: names, contents, targets; without the lock, which is only a name."""
    return {
        name: (prefix / name).readlink() if (prefix / name).is_symlink() else (prefix / name).read_bytes()
        for name in names(prefix)
        if name != ".lock" and ((prefix / name).is_symlink() or (prefix / name).is_file())
    }


def failing(lab: Lab, prefix: Path, operation: Operation, log: Path, call: Call, error: str) -> tuple[Answer, str]:
    """Run an operation with one call failing; return its answer and that call as strace wrote it down.

    Which number a call has can differ by what a run reads meanwhile, such as the users; then it is counted anew.
    """
    number = call.number
    for _attempt in range(TRIES):
        lab.store(operation, prefix)
        answer = traced(lab, prefix, operation, log, "-e", f"inject={call.name}:error={error}:when={number}")
        injected = [line for line in log.read_text(errors="replace").splitlines() if "(INJECTED)" in line]
        if len(injected) == 1 and is_change(*injected[0].partition("(")[::2], prefix=prefix):
            return answer, injected[0]
        lab.store(operation, prefix)
        traced(lab, prefix, operation, log)
        number = [each.number for each in changes(log, prefix) if each.name == call.name][call.position]
    pytest.fail(f"{call} hit no change in {TRIES} runs: {injected}")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_system_calls(lab: Lab, tmp_path: Path, pytestconfig: pytest.Config, operation: Operation) -> None:
    prefix, log = tmp_path / "opt" / "jemalloc", tmp_path / "log"
    prefix.parent.mkdir()
    lab.store(operation, prefix)
    before = picture(prefix)
    whole = traced(lab, prefix, operation, log)
    assert (whole.status, whole.result["changed"]) == (0, True)
    calls = changes(log, prefix)
    assert calls
    full = pytestconfig.getoption("full")
    start = OPERATIONS.index(operation)
    for position, call in enumerate(calls if full else calls[start % PART :: PART]):
        for error in ERRORS if full else [ERRORS[position % len(ERRORS)]]:
            answer, injected = failing(lab, prefix, operation, log, call, error)
            check_consistent(prefix)
            if call.name in SPARED and not answer.status:
                continue
            answer.sentence()
            assert picture(prefix) == before, injected
        if full or position % 4 == 0:
            lab.store(operation, prefix)
            answer = traced(lab, prefix, operation, log, "-e", f"inject={call.name}:signal=KILL:when={call.number}")
            assert answer.status in (-signal.SIGKILL, 128 + signal.SIGKILL)  # the second one as a shell says it
            check_consistent(prefix)
            if operation.version != "previous" or store.read_link(str(prefix), "current") != whole.result["current"]:
                again = lab.run(prefix, operation.version, operation.arguments)
                assert again.result["current"] == whole.result["current"], again.output
            check_consistent(prefix)
