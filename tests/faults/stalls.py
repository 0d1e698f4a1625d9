# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a container that may be harmed: stops a process of a run at a moment, lets it go on late, and tells the end.

Its argument is a stall as JSON; its output says how the runs ended, and what changed after the last one had.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import typing as t

import driver

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile as profile
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile_session as session
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils import _watchdog as watchdog

NOTE = "/tmp/stalled"
LIST = "/etc/ld.so.preload"
BY_HAND = "# by hand\n"
SHORT = 0.5

Module = t.Tuple[str, t.Dict[str, t.Any]]


class Run:
    """A process that does something, and what it printed."""

    def __init__(self, work: t.Callable[[], int]) -> None:
        self._output: t.IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 # it is read in the end
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(self._output.fileno(), 1)
            os.dup2(self._output.fileno(), 2)
            os._exit(work())

    def end(self) -> dict[str, t.Any]:
        """Wait for its end; return its exit status and its message."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._output.seek(0)
        said = self._output.read().decode("utf-8", "replace")
        lines = [line for line in said.splitlines() if line.startswith("{")]
        return {"status": status, "msg": json.loads(lines[-1]).get("msg", "") if lines else said}


class Stopper:
    """Stops a module, or its watchdog, before the change to the file system of this number."""

    def __init__(self, who: str, number: int) -> None:
        self._who, self._number = who, number
        self._module, self._count = os.getpid(), 0

    def __call__(self, event: str, arguments: tuple[t.Any, ...]) -> None:
        """Hear of what a process does."""
        if event not in driver.CHANGES or (self._who == "module") != (os.getpid() == self._module):
            return
        if event == "open" and not (arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
        path = arguments[driver.CHANGES[event]]
        if isinstance(path, (str, bytes)) and os.fsdecode(path).startswith("/etc"):
            self._count += 1
            if self._count == self._number:
                stop()


def stop() -> None:
    """Stop this process, of which a note tells."""
    with open(f"{NOTE}.new", "w", encoding="ascii") as stream:
        stream.write(str(os.getpid()))
    os.rename(f"{NOTE}.new", NOTE)
    os.kill(os.getpid(), signal.SIGSTOP)


def stopped() -> int:
    """Return the process that was stopped, 0 while there is none."""
    with contextlib.suppress(OSError):
        with open(NOTE, encoding="ascii") as stream:
            pid = int(stream.read())
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
            return pid if stream.read().rpartition(")")[2].split()[0] == "T" else 0
    return 0


def wait_for_stop(run: Run) -> int:
    """Wait until a process is stopped, or the run ended without."""
    while not stopped():
        if os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return 0
        time.sleep(0.01)
    return stopped()


def go_on(pid: int) -> None:
    """Let a process go on that was stopped, if it is still there."""
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def module_run(module: Module, who: str = "", number: int = 0) -> Run:
    """Start a module, which is stopped, or whose watchdog is."""

    def work() -> int:
        if who:
            sys.addaudithook(Stopper(who, number))
        return driver._call(*module)

    return Run(work)


def listen_when_stopped() -> None:
    """Let a module be patient until its watchdog is stopped or ends, and no longer."""
    listen = watchdog._listen

    def short(reader: int) -> tuple[bool, str]:
        while not stopped() and not select.select([reader], [], [], 0.01)[0]:
            pass
        return listen(reader)

    watchdog._listen = short


def given_up(first: Module, _second: Module, number: int) -> list[dict[str, t.Any]]:
    """The watchdog is stopped until its module gave up."""
    watchdog._PATIENCE = SHORT
    listen_when_stopped()
    run = module_run(first, "watchdog", number)
    wait_for_stop(run)
    return [run.end()]


def late(first: Module, _second: Module, number: int) -> list[dict[str, t.Any]]:
    """The watchdog is stopped for longer than it may take, but goes on while its module still waits."""
    watchdog._START_LIMIT = 3.0
    run = module_run(first, "watchdog", number)
    pid = wait_for_stop(run)
    time.sleep(watchdog._START_LIMIT if pid else 0)
    go_on(pid)
    return [run.end()]


def orphaned(first: Module, second: Module, number: int) -> list[dict[str, t.Any]]:
    """The watchdog is stopped, and then its module is killed; another run comes."""
    watchdog._PATIENCE = 1.0  # with the limit for the start it is when another run ends the watchdog
    watchdog._START_LIMIT = 5.0
    listen_when_stopped()
    run = module_run(first, "watchdog", number)
    if wait_for_stop(run):
        os.kill(run.pid, signal.SIGKILL)
    return [run.end(), module_run(second).end()]


def module(first: Module, second: Module, number: int) -> list[dict[str, t.Any]]:
    """The module is stopped for longer than another run waits."""
    run = module_run(first, "module", number)
    pid = wait_for_stop(run)
    t.cast(t.Any, changes.locked).__wrapped__.__defaults__ = (SHORT, False)
    other = module_run(second).end()
    go_on(pid)
    return [run.end(), other]


def edited(first: Module, _second: Module, number: int) -> list[dict[str, t.Any]]:
    """The module is stopped, and somebody changes the file in the meantime."""
    run = module_run(first, "module", number)
    pid = wait_for_stop(run)
    with open(LIST, "w", encoding="ascii") as stream:
        stream.write(BY_HAND)
    go_on(pid)
    return [run.end()]


def call(
    arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
) -> tuple[int, str]:
    """Run a command as a module does."""
    done = subprocess.run(
        list(arguments), capture_output=True, encoding="utf-8", check=False, cwd=directory, input=data
    )
    return done.returncode, done.stdout + done.stderr


APP = "app.service"
PLAN = profile.Plan(
    restarts.Service(APP, "9.9.9"),
    restarts.Service(APP, None),
    "prof:true",
    "[Service]\nEnvironment=PROFILED=yes\n",
    f"/var/cache/{profile.NAME}",
    "jeprof",
    f"/run/systemd/system/{APP}.d/{profile.DROP_IN}",
    "/opt/jemalloc",
)


def profile_run(moment: int, patience: int = 600, timeout: float = 60) -> Run:
    """Start a run that profiles, without a look at the service, and is stopped at a moment.

    After patience seconds its guard takes it for one that hangs; timeout has the seconds that it waits for the lock.
    """
    session._PATIENCE = patience

    def work() -> int:
        with session.locked(call, timeout):
            session.clear(call)
            with session.guarded(call, PLAN, 0, 0):
                steps: list[t.Callable[[], object]] = [
                    lambda: files.make_directories(os.path.dirname(PLAN.drop_in)),
                    lambda: files.write_file(PLAN.drop_in, PLAN.text.encode("ascii")),
                    lambda: call(["systemctl", "daemon-reload"]),
                    lambda: restarts.restart(call, PLAN.service, 60),
                ]
                for number, step in enumerate(steps):
                    if number == moment:
                        stop()
                    step()
                if moment >= len(steps):
                    stop()
                call(["systemctl", "stop", session._GUARD])
                session._remove(PLAN.drop_in)
                call(["systemctl", "daemon-reload"])
                restarts.restart(call, PLAN.before, 60)
        return 0

    return Run(work)


def guard_pids() -> list[int]:
    """Return the processes of the guard."""
    status, said = call(["systemctl", "show", "--property=MainPID", "--value", session._GUARD])
    pid = int(said) if status == 0 and said.strip() else 0
    return [pid, *processes.descendants(pid)] if pid else []


def stop_guard() -> list[int]:
    """Stop the guard; return its processes."""
    pids = guard_pids()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    return pids


def guard_of_a_run_that_hangs(_first: Module, _second: Module, number: int) -> list[dict[str, t.Any]]:
    """The run is stopped for longer than its guard waits."""
    run = profile_run(number % 5, patience=8)
    wait_for_stop(run)
    return [run.end()]


def guard_that_is_stopped(_first: Module, _second: Module, number: int) -> list[dict[str, t.Any]]:
    """The guard is stopped, then its run is killed, and another one profiles when the guard goes on."""
    run = profile_run(number % 5)
    wait_for_stop(run)
    pids = stop_guard()
    os.kill(run.pid, signal.SIGKILL)
    first = run.end()
    os.unlink(NOTE)
    other = profile_run(4)
    wait_for_stop(other)
    before = driver.picture(), main_pid()
    for pid in pids:
        go_on(pid)
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        time.sleep(0.01)
    unchanged = before == (driver.picture(), main_pid())
    os.kill(other.pid, signal.SIGCONT)
    return [first, {**other.end(), "unchanged": unchanged}]


def guard_that_is_stopped_at_work(_first: Module, _second: Module, number: int) -> list[dict[str, t.Any]]:
    """The run is killed, and its guard is stopped while it works; another run comes."""
    run = profile_run(2 + number % 3)
    wait_for_stop(run)
    os.kill(run.pid, signal.SIGKILL)
    first = run.end()
    while os.path.exists(PLAN.drop_in):
        time.sleep(0.001)
    pids = stop_guard()
    os.unlink(NOTE)
    other = profile_run(4, timeout=1)
    go_on(wait_for_stop(other))
    said = other.end()
    for pid in pids:
        go_on(pid)
    return [first, said]


def main_pid() -> str:
    """Return the main process of the service."""
    return call(["systemctl", "show", "--property=MainPID", "--value", APP])[1]


KINDS = (given_up, late, orphaned, module, edited)
GUARDS = (guard_of_a_run_that_hangs, guard_that_is_stopped, guard_that_is_stopped_at_work)


def main() -> None:
    """Do what the argument asks for."""
    kind, first, second, number = json.loads(sys.argv[1])
    with contextlib.suppress(FileNotFoundError):
        os.unlink(NOTE)
    runs = {each.__name__: each for each in (*KINDS, *GUARDS)}[kind](first, second, number)
    while kind.startswith("guard") and guard_pids():  # until the guard has done what it has to
        time.sleep(0.01)
    before = driver.picture()
    reached = os.path.exists(NOTE)
    go_on(stopped())
    driver.Driver().settle()
    while guard_pids():
        time.sleep(0.01)
    now = driver.picture()
    late_changes = {path for path in {*before, *now} if before.get(path) != now.get(path)}
    print(json.dumps({"runs": runs, "reached": reached, "late": sorted(late_changes)}))


if __name__ == "__main__":
    main()
