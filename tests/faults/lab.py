# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of faults share: stores in every situation, the runs that change them, and how one is looked at."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store

RUNNER = Path(__file__).with_name("run_module.py")


@dataclass(frozen=True)
class Operation:
    """A run of the module jemalloc: the installations before it, the newest one current, and its arguments."""

    name: str
    before: tuple[str, ...]
    version: str | None
    arguments: dict[str, t.Any] = field(default_factory=dict)


OPERATIONS = [
    Operation("install", (), "9.9.9"),
    Operation("upgrade", ("9.9.7", "9.9.8"), "9.9.9"),
    Operation("replace", ("9.9.8", "9.9.9"), "9.9.9", {"options": {"prof": True}}),
    Operation("rollback", ("9.9.8", "9.9.9"), "previous"),
    Operation("prune", ("9.9.6", "9.9.7", "9.9.8", "9.9.9"), "9.9.9", {"keep": 0}),
    Operation("remove", ("9.9.8", "9.9.9"), None, {"state": "absent"}),
]


def sentence(output: str, result: dict[str, t.Any]) -> str:
    """Return the message of a run that failed as it should: by one sentence, not by a traceback."""
    assert result.get("failed"), output
    assert "Traceback" not in output
    message: str = result["msg"]
    assert message.endswith("."), message
    assert "\n" not in message
    return message


@dataclass(frozen=True)
class Answer:
    """What a run of a module answered; result is empty when it was killed."""

    status: int
    output: str
    result: dict[str, t.Any]

    def sentence(self) -> str:
        """Return the message of a run that failed as it should."""
        return sentence(self.output, self.result)


class Lab:
    """Stores to be harmed, each a copy of one that was made once."""

    def __init__(self, top: Path, tarball: t.Callable[[str], tuple[str, str]]) -> None:
        self._top = top
        self._tarball = tarball
        self.temporary = top / "tmp"
        self.temporary.mkdir()

    def store(self, operation: Operation, prefix: Path) -> None:
        """Make the store that an operation starts from, with all that the prefix had before gone."""
        shutil.rmtree(prefix, ignore_errors=True)
        if not operation.before:
            return
        # made at the very place, as an installation's wrapper holds the prefix
        kept = self._top / f"{operation.name}-{prefix.parent.name}"
        if not kept.exists():
            for version in operation.before:
                assert self.run(prefix, version).status == 0
            shutil.copytree(prefix, kept, symlinks=True)
        else:
            shutil.copytree(kept, prefix, symlinks=True)

    def arguments(self, prefix: Path, version: str | None, more: dict[str, t.Any]) -> dict[str, t.Any]:
        """Return the arguments of a run."""
        arguments = {"prefix": str(prefix), "build_packages": False, **more}
        if version:
            arguments["version"] = version
        if version and version[0].isdigit():
            path, checksum = self._tarball(version)
            arguments.update(origins=[path], checksum=checksum)
        return arguments

    def start(
        self, prefix: Path, version: str | None, more: dict[str, t.Any] | None = None, wrapper: t.Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        """Start a run, by another command if one is given."""
        arguments = json.dumps(self.arguments(prefix, version, more or {}))
        return subprocess.Popen(
            [*wrapper, sys.executable, str(RUNNER), "jemalloc", arguments],
            env={**os.environ, "TMPDIR": str(self.temporary), "PYTHONHASHSEED": "0", "HOME": str(self.temporary)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )

    @staticmethod
    def end(process: subprocess.Popen[str]) -> Answer:
        """Wait for a run."""
        output, _errors = process.communicate()
        lines = [line for line in output.splitlines() if line.startswith("{")]
        return Answer(process.returncode, output, json.loads(lines[-1]) if lines else {})

    def measured(self, operation: Operation, prefix: Path) -> tuple[Answer, float]:
        """Run an operation to its end on the store that it starts from; return its answer, and the seconds it took."""
        self.store(operation, prefix)
        began = time.monotonic()
        whole = self.run(prefix, operation.version, operation.arguments)
        duration = time.monotonic() - began
        assert (whole.status, whole.result["changed"]) == (0, True)
        return whole, duration

    def run(self, prefix: Path, version: str | None, more: dict[str, t.Any] | None = None) -> Answer:
        """Run the module to its end."""
        return self.end(self.start(prefix, version, more))


def again(lab: Lab, operation: Operation, prefix: Path, whole: Answer) -> Answer:
    """Run an operation once more after one that was cut short; whole is the answer of one that was not."""
    version = operation.version
    if version == "previous" and store.read_link(str(prefix), "current") == whole.result["current"]:
        version = whole.result["current"]  # it went back already; to go to previous again would be forward
    answer = lab.run(prefix, version, operation.arguments)
    assert answer.status == 0, answer.output
    return answer


def check_consistent(prefix: Path) -> None:
    """See that whoever uses the store at this moment finds only what is complete."""
    found = store.read(str(prefix))
    assert {name: each.damage for name, each in found.installations.items() if each.damage} == {}
    assert found.foreign == ()
    for link in ("current", "previous"):
        if os.path.lexists(prefix / link):
            assert os.readlink(prefix / link) in found.installations
    if os.path.lexists(prefix / "current"):
        assert (prefix / "current" / "lib" / "libjemalloc.so").resolve().is_file()


def names(prefix: Path) -> list[str]:
    """Return the names of all that stands in a prefix."""
    return sorted(str(path.relative_to(prefix)) for path in prefix.rglob("*"))


# What sys.addaudithook reports of changes to the file system, with the positions of the paths that change.
_WRITES = {
    "open": (0,),
    "os.mkdir": (0,),
    "os.rename": (0, 1),
    "os.symlink": (1,),
    "os.link": (0, 1),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.truncate": (0,),
    "os.utime": (0,),
}
_recorders: list[set[str]] = []


def _audit(event: str, arguments: tuple[t.Any, ...]) -> None:
    """Record which paths this process changes, for those who ask."""
    if not _recorders or event not in _WRITES:
        return
    if event == "open" and not (arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return
    base = os.getcwd()
    if event in ("os.remove", "os.rmdir") and arguments[1] != -1:  # as shutil.rmtree does: below an open directory
        base = os.readlink(f"/proc/self/fd/{arguments[1]}")
    for position in _WRITES[event]:
        if isinstance(arguments[position], (str, bytes)):
            _recorders[-1].add(os.path.normpath(os.path.join(base, os.fsdecode(arguments[position]))))


sys.addaudithook(_audit)  # it cannot be removed again, so there is one for all tests


@contextlib.contextmanager
def recorded() -> t.Iterator[set[str]]:
    """Record the paths that this process changes while the block runs."""
    _recorders.append(set())
    try:
        yield _recorders[-1]
    finally:
        _recorders.pop()
