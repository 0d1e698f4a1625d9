"""A profile from its beginning to its end: switched on, watched, and switched off again whatever happens meanwhile."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import os
import signal
import time
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _fence as fence
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _labels as labels
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile as profile
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile_dumps as dumps_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run

#: Held by the run that makes a profile; the kernel gives it back when that is killed, for which the guard waits.
LOCK = f"/run/{profile.NAME}.lock"

#: Seconds to wait for another run, or for the guard of one that was killed, which restarts its service.
LOCK_TIMEOUT = 120

#: Seconds between two looks at the service and its dumps.
INTERVAL = 0.5

# What is asked at each look at the service.
_PROPERTIES = ("ActiveState", "MainPID", "NRestarts")

# Seconds that the guard waits for a run which hangs, beyond all that such a run may take.
_PATIENCE = 60

_GUARD = f"{profile.NAME}-guard.service"

# What systemctl ends with where there is no such unit.
_NOT_LOADED = 5

# What takes a profile back when its run was killed, or hangs. Its arguments: the lock, the seconds to wait for it, the
# drop-in, its directory, the service, where the dumps may be (two), and the run by its number and its start.
# A run that hangs is killed first: stopped, it would go on later. Then only the run's own profile is taken back: the
# lock has to be the one of that path, and still name that run. systemd would expand names in braces.
_TAKE_BACK = """
umask 077
exec 9<>"$1"
if ! flock --timeout "$2" 9; then
  [ "$(sed 's/.*) //' "/proc/$8/stat" | cut -d ' ' -f 20)" = "$9" ] && kill -KILL "$8"
  flock 9
fi
[ "$1" -ef /proc/self/fd/9 ] && [ "$(cat "$1")" = "$8 $9" ] || exit 0
[ -e "$3" ] && profiled=yes
rm -f -- "$3" "$4"/.*.preload-jemalloc
[ ! -d "$4" ] || rmdir -- "$4"
if [ -n "$profiled" ]; then
  systemctl daemon-reload
  systemctl restart -- "$5"
  rm -rf -- "$6" "$7"
fi
: > "$1"
"""

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Outcome(t.NamedTuple):
    """How it went: since when (in epoch seconds) and how long it ran with profiling, and why no longer if so."""

    began: float
    seconds: float
    early: str


class Stop:
    """Remembers that somebody wants this process to end: it does so when the service is what it was."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, number: int, _frame: object) -> None:
        self.number = number

    def check(self) -> None:
        """Raise when the end is wanted."""
        if self.number:
            raise JemallocError(f"signal {self.number} ended this run")


@contextlib.contextmanager
def stoppable() -> t.Iterator[Stop]:
    """Let signals that end a process wait until the block has cleared up."""
    stop = Stop()
    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def locked(run: Run, timeout: float = LOCK_TIMEOUT) -> t.Iterator[None]:
    """Be the only run that makes a profile on this host while the block runs; timeout is in seconds.

    The file of the lock stays, as a guard that was stopped may hold it. It names the run that is at work or was killed.
    """
    descriptor = files.wait_for_lock(LOCK, timeout)
    if descriptor is None and not _is_alive((files.read_text(LOCK) or "").split()):
        _end_guard(run)  # which has the lock for a run that was killed, and takes too long
        descriptor = files.wait_for_lock(LOCK, timeout)
    if descriptor is None:
        raise JemallocError(f"Another run has been making a profile on this host for {timeout:g} s; wait for it.")
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, " ".join(_this_run()).encode("ascii"))
        yield
    finally:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _this_run() -> t.Tuple[str, str]:
    """Return the number and the start of this process, which the lock and the guard have."""
    return str(os.getpid()), fence.start_of(os.getpid())


def _is_alive(named: t.Sequence[str]) -> bool:
    """Whether the run that the lock names is still there."""
    return len(named) == 2 and named[0].isdigit() and fence.start_of(int(named[0])) == named[1]


def _end_guard(run: Run) -> None:
    """End the guard of an earlier run, also one that was stopped."""
    status, output = run(["systemctl", "stop", "--", _GUARD], None, None)
    if status not in (0, _NOT_LOADED):
        raise JemallocError(f"{_GUARD} of an earlier run does not end: {output.strip()}. Nothing was changed.")
    run(["systemctl", "reset-failed", "--", _GUARD], None, None)


def clear(run: Run, root: str = "/") -> t.List[str]:
    """Take back what a run left that was killed together with its guard; return the services that were restarted."""
    _end_guard(run)
    paths = profile.present_drop_ins(root)
    units = [os.path.basename(os.path.dirname(path))[: -len(".d")] for path in paths]
    for path in paths:
        _remove(path)
    if paths:
        run(["systemctl", "daemon-reload"], None, None)
    for unit in units:
        run(["systemctl", "restart", "--", unit], None, None)
    remove_dumps(profile.present_directories(root))
    return units


def remove_dumps(directories: t.Iterable[str]) -> t.List[str]:
    """Remove directories of dumps, and links to them; return those that could not be."""
    left = []
    for path in directories:
        try:
            files.remove_tree(path)
        except OSError:  # somebody writes there still; the next run removes it
            left.append(path)
    return left


@contextlib.contextmanager
def guarded(run: Run, plan: profile.Plan, duration: int, timeout: int) -> t.Iterator[None]:
    """Have a process beside this one that takes the profile back should this one be killed, or hang.

    JemallocError: there is none, and nothing was changed.
    """
    seconds = duration + 4 * timeout + _PATIENCE
    places = (plan.drop_in, os.path.dirname(plan.drop_in), plan.service.name, *plan.directories)
    arguments = (LOCK, str(seconds), *places, *_this_run())
    # SIGKILL ends a guard that was stopped too
    command = ["systemd-run", "--quiet", "--collect", f"--unit={_GUARD}", "--property=KillSignal=SIGKILL"]
    command += ["/bin/sh", "-c", _TAKE_BACK, "sh", *arguments]
    status, output = run(command, None, None)
    if status:
        raise JemallocError(f"Nothing was changed, as no guard for the way back could be started: {output.strip()}.")
    try:
        yield
    finally:
        if not os.path.lexists(plan.drop_in):  # what could not be removed it may be able to
            run(["systemctl", "stop", "--", _GUARD], None, None)


def record(run: Run, plan: profile.Plan, duration: int, limit: int, timeout: int) -> Outcome:
    """Let a service run with profiling; limit is in bytes. It runs as before when this returns or raises an error."""
    with stoppable() as stop:
        try:
            _switch_on(run, plan, timeout)
            stop.check()
            began, now = time.time(), time.monotonic()
            early = _watch(run, plan, stop, duration, limit)
            outcome = Outcome(began, round(time.monotonic() - now, 1), early)
        except BaseException as error:
            back = switch_off(run, plan, timeout)
            said = f"unit: {plan.service}: {error}; {back or 'it runs again as before'}."
            raise JemallocError(said) from error
        back = switch_off(run, plan, timeout)
        if back:
            raise JemallocError(f"unit: {plan.service} was profiled, but then {back}.")
        return outcome


def _switch_on(run: Run, plan: profile.Plan, timeout: int) -> None:
    """Restart a service with profiling, and prove it."""
    files.make_directories(os.path.dirname(plan.drop_in))
    files.write_file(plan.drop_in, plan.text.encode("utf-8", "surrogateescape"))
    labels.restore(run, [plan.drop_in])
    run(["systemctl", "daemon-reload"], None, None)
    reason = restarts.restart(run, plan.service, timeout)
    reason = reason or restarts.prove(run, [plan.service], plan.prefix, timeout, plan.proc).get(plan.service, "")
    reason = reason or _unproved(run, plan)
    if reason:
        last_words = restarts.journal(run, plan.service)
        raise JemallocError(f"{reason}{f'; its journal ends with: {last_words}' if last_words else ''}")


def _unproved(run: Run, plan: profile.Plan) -> str:
    """Return why the main process does not profile, or not into the directory that is looked into."""
    process = os.path.join(plan.proc, systemd.shown(run, plan.service.name, _PROPERTIES).get("MainPID", "0"))
    with contextlib.suppress(OSError):
        with open(os.path.join(process, "environ"), encoding="utf-8", errors="surrogateescape") as stream:
            found = [item for item in stream.read().split("\0") if item.startswith("MALLOC_CONF=")]
        # a program may write over it, and then nothing is there
        if found and found[-1] != f"MALLOC_CONF={plan.conf.replace('%%', '%')}":
            return "another setting of MALLOC_CONF wins over that of the profile"
    try:
        seen = os.stat(f"{process}/root{plan.directory}")
        if os.path.samestat(seen, os.stat(plan.directory)):
            return ""
    except OSError as error:
        return f"its processes cannot write to {plan.directory} ({error.strerror})"
    return f"its processes see another {plan.directory} than the host"


def _watch(run: Run, plan: profile.Plan, stop: Stop, duration: int, limit: int) -> str:
    """Let the time pass, and keep the dumps below the limit; return why it ended early, empty when it did not."""
    deadline = time.monotonic() + duration
    with dumps_util.Directory(plan.real_directory()) as directory:
        while True:
            stop.check()
            again = _ended(systemd.shown(run, plan.service.name, _PROPERTIES))
            if again:
                return again
            gone, fits = dumps_util.surplus(directory.scan(), limit)
            directory.remove(gone)
            if not fits:
                return f"what has to stay of its dumps took more than {limit >> 20} MiB (size_limit)"
            left = deadline - time.monotonic()
            if left <= 0:
                return ""
            time.sleep(min(INTERVAL, left))


def _ended(state: t.Mapping[str, str]) -> str:
    """Return how a service ended by itself, empty when it runs."""
    if state.get("NRestarts", "0") != "0":
        return f"it ended meanwhile, systemd started it {state['NRestarts']} times again"
    active = state.get("ActiveState", "")
    # one that is deactivating is looked at again, as the state that it ends in says more
    runs = active in ("active", "reloading", "deactivating")
    return "" if runs else f"it ended meanwhile, it is {active or 'not known'}"


def switch_off(run: Run, plan: profile.Plan, timeout: int) -> str:
    """Restart a service without profiling, and prove that; return why it does not run as before, empty when it does."""
    _remove(plan.drop_in)
    run(["systemctl", "daemon-reload"], None, None)
    restarts.end_start(run, plan.before)
    run(["systemctl", "reset-failed", "--", plan.before.name], None, None)
    why = restarts.restart(run, plan.before, timeout)
    why = why or restarts.prove(run, [plan.before], plan.prefix, timeout, plan.proc).get(plan.before, "")
    return f"it does not run as before ({why})" if why else ""


def _remove(path: str) -> None:
    """Remove a drop-in, what a killed run prepared of it, and its directory where it was all in there."""
    files.temporary_name(path)
    files.remove_file(path)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(path))
