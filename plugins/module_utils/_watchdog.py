"""Puts our line into /etc/ld.so.preload and takes it back within seconds when new processes do not start with it."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing as t
from dataclasses import dataclass, replace

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes
from ansible_collections.preload.jemalloc.plugins.module_utils import _fence as fence
from ansible_collections.preload.jemalloc.plugins.module_utils import _preflight as preflight
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

#: Seconds that all trials may take together. With what is left of five the file is back as it was.
TIME_LIMIT = 4.0

# Seconds that the watchdog may take from its start until it replaces the file: the same clock runs for a stopped one.
_START_LIMIT = 30.0

# Seconds without a word from the watchdog after which it is ended. That is more than it can need.
_PATIENCE = 60.0

# Seconds that it may take to end once it is killed; only a disk that does not answer takes longer.
_END_LIMIT = 10.0

_INTERVAL = 0.02

#: Ends the reason where no process was tried.
AS_BEFORE = "all files are as before."

_KILLED = "the process that watched over it was killed"

_HANGS = "it does not end within"

# Bytes of what a trial prints that are read, and characters that are enough to see what is wrong with it.
_MOST_OUTPUT = 1 << 16
_MOST_WORDS = 200

# A user without rights, by whom a set-user-ID program is one: the kernel's overflow user, nobody everywhere.
_WITHOUT_RIGHTS: t.Dict[str, t.Any] = {"user": 65534, "group": 65534, "extra_groups": []}

_PYTHON = """
import ctypes, os, sys, threading
thread = threading.Thread(target=lambda: [bytearray(size) for size in range(1, 20000, 100)])
thread.start()
thread.join()
with open("/proc/self/maps") as maps:
    sys.exit(os.path.realpath(sys.argv[1]) not in maps.read() and len(sys.argv) > 2)
"""


@dataclass(frozen=True)
class Trial:
    """A new process of some kind: its command, whether an unprivileged user starts it, and what it may print.

    silent: nothing but what is usual, which it prints without the library too.
    """

    kind: str
    command: t.Tuple[str, ...]
    unprivileged: bool = False
    silent: bool = True
    usual: str = ""


def trials(library: str, systemd: bool) -> t.List[Trial]:
    """Return the kinds of processes that this host starts every day."""
    found = [
        Trial("a program", ("/bin/true",)),
        Trial("a shell", ("/bin/sh", "-c", "for word in a b; do /bin/true; done")),
        Trial("Python", (sys.executable, "-I", "-W", "ignore", "-c", _PYTHON, library)),
        Trial("a program of a user without rights", ("/bin/true",), unprivileged=True),
        Trial("a set-user-ID program", ("su", "--version"), unprivileged=True, silent=False),
        Trial("a login", ("su", "-l", "root", "-s", "/bin/sh", "-c", "true"), silent=False),
    ]
    if systemd:
        # systemd ends what hangs: it is no child of ours
        limits = (f"--property=RuntimeMaxSec={TIME_LIMIT:g}", "--property=KillSignal=SIGKILL")
        command = ("systemd-run", "--quiet", "--pipe", "--wait", "--collect", *limits, "/bin/true")
        found.append(Trial("a service", command))
    return [trial for trial in found if shutil.which(trial.command[0])]


def attempt(chosen: t.Sequence[Trial], limit: float = TIME_LIMIT) -> t.Dict[Trial, str]:
    """Start all trials at once; return those that fail, or do not end within the limit of seconds, with the reason."""
    reasons = {trial: _reason(trial, *outcome) for trial, outcome in _outcomes(chosen, limit).items()}
    return {trial: reason for trial, reason in reasons.items() if reason}


def usable(chosen: t.Sequence[Trial]) -> t.List[Trial]:
    """Return the trials that succeed as the host is now, each with what it prints anyway.

    One that fails already, as a service does where there is no D-Bus, says nothing about a library.
    """
    outcomes = _outcomes(chosen, TIME_LIMIT)
    return [replace(trial, usual=text) for trial, (status, text) in outcomes.items() if status == 0]


def _reason(trial: Trial, status: t.Optional[int], text: str) -> str:
    """Return why a trial failed by its outcome, empty when it did not; lines that it always prints do not count."""
    if status is None:
        return text
    words = " ".join(preflight.new_lines(text, trial.usual).split())[:_MOST_WORDS]
    if status or "ld.so" in words or (words and trial.silent):
        return f"exit status {status}" + (f": {words}" if words else "")
    return ""


def _outcomes(chosen: t.Sequence[Trial], limit: float) -> t.Dict[Trial, t.Tuple[t.Optional[int], str]]:
    """Start all trials at once; return how each ended: its exit status and output, or no status and the reason."""
    found: t.Dict[Trial, t.Tuple[t.Optional[int], str]] = {}
    running: t.Dict[Trial, t.Tuple[subprocess.Popen[bytes], t.IO[bytes]]] = {}
    deadline = time.monotonic() + limit
    for trial in chosen:
        # A file, not a pipe: whatever a trial leaves running, nobody waits for it.
        output: t.IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 # it is read when the trial has ended
        try:
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function # it outlives run_command's module
                trial.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,
                **(_WITHOUT_RIGHTS if trial.unprivileged and os.geteuid() == 0 else {}),
            )
        except OSError as error:
            found[trial] = None, f"it does not start ({error.strerror})"
        else:
            running[trial] = process, output
    while running and time.monotonic() < deadline:
        for trial, (process, output) in list(running.items()):
            status = process.poll()
            if status is not None:
                output.seek(0)
                found[trial] = status, output.read(_MOST_OUTPUT).decode("utf-8", "replace")
                del running[trial]
        time.sleep(_INTERVAL)
    for trial, (process, _output) in running.items():
        found[trial] = None, f"{_HANGS} {limit:g} s"
        _end(process)
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a trial and all that it has started, in whatever sessions: a login makes one of its own."""
    _kill([process.pid, *processes.descendants(process.pid)])
    process.wait()


def _kill(pids: t.Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class Mandate:
    """What the watchdog needs to replace the file: the lock of its run, and time that is left (by _fence.now())."""

    lock: changes.Lock
    until: float

    def check(self) -> None:
        """Raise when the file must not be replaced any more."""
        if fence.now() > self.until:
            raise JemallocError(f"The watchdog was not ready within {_START_LIMIT:g} s, so {AS_BEFORE}")
        if not self.lock.is_held():
            raise JemallocError(f"Somebody removed {changes.LOCK}, so {AS_BEFORE}")


def activate(change: changes.Change, library: str, systemd: bool, lock: changes.Lock) -> str:
    """Replace /etc/ld.so.preload, and keep it so only if new processes start; return why not, empty when they do.

    A process of its own does both: it runs already, so that no library harms it, and it goes on when this one is
    killed or its connection is cut. A trial that fails without the new file is no reason against it. When this returns
    that process has ended, so that it cannot write later.
    """
    chosen = [_proving(trial) for trial in usable(trials(library, systemd))]
    mandate = Mandate(lock, fence.now() + _START_LIMIT)
    reader, writer = os.pipe()
    going, go = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover # a process of its own, which tests see from outside
        try:
            _detach(lock.descriptor, writer, going)
            # Other runs have to know it before it does anything: the module tells them, or was killed before.
            if os.read(going, 1):
                _report(writer, watch(change, chosen, os.path.realpath(library), mandate))
        finally:  # nothing of the module is to happen in this process too
            os._exit(0)
    os.close(writer)
    os.close(going)
    said, verdict = False, ""
    try:
        lock.name_watchdog(child, fence.start_of(child), mandate.until + _PATIENCE)
        with contextlib.suppress(BrokenPipeError):
            os.write(go, b"\n")
        said, verdict = _listen(reader)
    finally:
        os.close(go)
        _end_child(child, change.path, [] if said else processes.descendants(child))
    if not said:  # nobody watches any more, so nothing is left in place that was not seen to work
        changes.take_back(change)
        if changes.standing(change) == change.after:  # it was killed when all was done
            changes.apply([replace(change, before=change.after, after=change.before)])
    return verdict


def _end_child(child: int, path: str, started: t.Sequence[int]) -> None:
    """End the watchdog and the trials that it has started, and wait for its end."""
    _kill([child, *started])
    deadline = time.monotonic() + _END_LIMIT
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            raise JemallocError(f"{path}: process {child}, which replaces it, does not end; look at it and its disk.")
        time.sleep(_INTERVAL)


def _proving(trial: Trial) -> Trial:
    """Return a trial that also fails when the library is not mapped."""
    return replace(trial, command=(*trial.command, "mapped")) if trial.kind == "Python" else trial


def _detach(*needed: int) -> None:  # pragma: no cover # see activate
    """Leave the session and the process group of the module: what ends these must not end the watchdog.

    Of the module's descriptors it keeps those that are needed. As long as it has the lock no other run begins.
    """
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listed this directory
            if int(name) > 2 and int(name) not in needed:
                os.close(int(name))


def _report(writer: int, verdict: str) -> None:  # pragma: no cover # see activate
    """Say in one line how it went."""
    os.write(writer, f"{' '.join(verdict.split())}\n".encode("utf-8", "surrogateescape"))


def watch(change: changes.Change, chosen: t.Sequence[Trial], library: str, mandate: Mandate) -> str:
    """Write, try, and take back what fails; return why, empty when all is well. Nothing is executed but the trials."""
    earlier = processes.mapping(library)
    failed: t.Dict[Trial, str] = {}
    try:
        with changes.applied([change], mandate.check):
            failed = attempt(chosen)
            if failed:
                raise JemallocError("; ".join(f"{trial.kind}: {reason}" for trial, reason in failed.items()))
    except BaseException as error:  # pylint: disable=broad-exception-caught # whatever it is, it is to be said
        # One that was stopped during the trials does not know whether they hang.
        in_time = fence.now() <= mandate.until + TIME_LIMIT
        if in_time and any(reason.startswith(_HANGS) for reason in failed.values()):
            # Whatever else the host has started meanwhile hangs as well, and the host would wait for it.
            _kill(sorted(set(processes.mapping(library)) - set(earlier)))
        return str(error) or type(error).__name__
    return ""


def _listen(reader: int) -> t.Tuple[bool, str]:
    """Return whether the watchdog says how it went, and what it says; else what became of it."""
    said = b""
    with os.fdopen(reader, "rb", buffering=0) as stream:
        while select.select([stream], [], [], _PATIENCE)[0]:
            part = stream.read(4096)
            said += part
            if said.endswith(b"\n"):
                return True, said.decode("utf-8", "replace").strip()
            if not part:
                return False, _KILLED
    return False, f"{_KILLED}, as it did not answer for {_PATIENCE:g} s"
