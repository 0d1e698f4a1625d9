"""The sandbox of a build: a user, a systemd scope and directories of its own; and how what a build left is ended."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import functools
import grp
import hashlib
import itertools
import os
import pwd
import re
import signal
import sys
import time
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _cgroups as cgroups
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run

#: Users and groups, by number, that builds run as. Nobody else gets them: systemd leaves them unused, next to its range
#: for dynamic users (systemd.io/UIDS-GIDS), and Debian reserves them (Debian Policy 9.2.2). A container that maps the
#: usual 65536 numbers maps them.
USERS = range(65520, 65534)

#: Held by the run whose build has this user.
LOCK = "/run/preload-jemalloc-build-{}.lock"

#: Numbers that newuidmap and newgidmap let users take, subuid(5) and subgid(5).
SUBORDINATE = ("/etc/subuid", "/etc/subgid")
_SUBORDINATE_RANGE = re.compile(r"^[^:\n]*:([0-9]{1,10}):([0-9]{1,10})$", re.MULTILINE)

# A process in /proc/PID/status: what state it is in, its user (real, effective, saved, of files), its group likewise.
_STATE = re.compile(r"^State:\s+(\S)", re.MULTILINE)
_UIDS = re.compile(r"^Uid:\s+(.+)$", re.MULTILINE)
_GIDS = re.compile(r"^Gid:\s+(.+)$", re.MULTILINE)

# The program that becomes a user; a target has no other tool for that in common.
_BECOME = (
    "import os, sys; user = int(sys.argv[1]); os.setgroups([]); os.setgid(user); os.setuid(user); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)

# How often processes that a build left are killed, with 0.05 s between; usually once is enough.
_ENDINGS = 200


@contextlib.contextmanager
def sandboxed(run: Run, staging: str, work: str) -> t.Iterator[Run]:
    """Give a directory in a staging area to a build; yield what runs a command in the sandbox.

    For root each command runs as a user that is reserved for this build, in a scope of its own where systemd is the
    init. The commands run as the caller where no such user can be had: in a prefix that is closed to others, or in a
    container that maps none. What they left running is killed in the end.
    """
    if os.geteuid() != 0:
        yield run
        return
    with _reserved() as user:
        scoped = _in_scopes(run, staging)
        become = [] if user is None else _admitted(scoped, staging, work, user)
        try:
            yield lambda arguments, directory, data: scoped([*become, *arguments], directory, data)
        finally:
            end(staging, USERS)  # a shell of root may be there to look at the build


@contextlib.contextmanager
def _reserved() -> t.Iterator[t.Optional[int]]:
    """Reserve one of the users while the block runs; None where all are taken or nothing can be written to /run."""
    with contextlib.ExitStack() as stack:
        user = None
        with contextlib.suppress(OSError):
            user = next((each for each in USERS if _reserve(each, stack)), None)
        yield user


def _reserve(user: int, stack: contextlib.ExitStack) -> bool:
    """Lock a user until the stack is closed; return whether it was free."""
    path = LOCK.format(user)
    descriptor = files.lock(path)
    if descriptor is None:
        return False
    stack.callback(os.close, descriptor)
    stack.callback(files.remove_file, path)
    return not is_taken(user)


def is_taken(user: int, proc: str = "/proc") -> bool:
    """Whether an account, a group, a process or another user's subordinate range has a number."""
    for lookup in (pwd.getpwuid, grp.getgrgid):
        with contextlib.suppress(KeyError):
            lookup(user)
            return True
    for text in filter(None, map(files.read_text, SUBORDINATE)):
        for start, count in _SUBORDINATE_RANGE.findall(text):
            if int(start) <= user < int(start) + int(count):
                return True
    statuses = (_read(pid, "status", proc) for pid in _pids(proc))
    return any(user in (*_numbers(_UIDS, status), *_numbers(_GIDS, status)) for status in statuses)


def _admitted(run: Run, staging: str, work: str, user: int) -> t.List[str]:
    """Give a directory to a user, and let its group pass through the directories that lead to it.

    Return the words in front of a command that run it as that user, none where that is not possible.
    """
    command = [sys.executable, "-I", "-c", _BECOME, str(user)]
    try:
        for parent, _directories, names in os.walk(work):
            for path in [parent, *(os.path.join(parent, name) for name in names)]:
                os.lchown(path, user, user)
        for path in (staging, os.path.dirname(work)):
            os.chown(path, -1, user)
            os.chmod(path, 0o710)
    except OSError:  # EINVAL: the container does not map it
        return []
    status, _output = run([*command, "/usr/bin/env", "test", "-w", work], "/", None)
    return [] if status else command


def _in_scopes(run: Run, staging: str) -> Run:
    """Return what runs each command in a scope of systemd, whose name tells whose build it is; run itself without."""
    if not systemd.is_running():
        return run
    numbers = itertools.count()

    def scoped(
        arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
    ) -> t.Tuple[int, str]:
        # each has a name of its own: that of the one before may not be free yet
        unit = f"{_scope(staging)}{os.getpid()}-{next(numbers)}.scope"
        command = [
            "systemd-run",
            "--scope",
            "--quiet",
            "--collect",
            f"--unit={unit}",
            "--description=Build of jemalloc",
        ]
        return run([*command, "--", *arguments], directory, data)

    status, _output = scoped(["/usr/bin/env", "true"], "/")
    return run if status else scoped


def _scope(staging: str) -> str:
    """Return what the names of the scopes of builds in a staging area begin with."""
    return f"preload-jemalloc-build-{hashlib.sha256(os.fsencode(os.path.realpath(staging))).hexdigest()[:12]}-"


def end(staging: str, users: t.Iterable[int] = (0, *USERS)) -> None:
    """Kill what builds in a staging area left running as these users; they would go on writing into it.

    Raises JemallocError when they do not end.
    """
    owners = set(users) if os.geteuid() == 0 else {os.geteuid()}
    for _attempt in range(_ENDINGS):
        left = leftovers(staging, owners)
        if not left:
            return
        for pid in left:
            kill(pid, functools.partial(leftovers, staging, owners, pids=[pid]))
        time.sleep(0.05)
    raise JemallocError(f"Processes that work in {staging} do not end: {', '.join(map(str, left))}; end them.")


def leftovers(
    staging: str, users: t.Container[int], proc: str = "/proc", pids: t.Optional[t.Iterable[int]] = None
) -> t.List[int]:
    """Return the processes of these users that are in a scope of a staging area's builds, or work in a directory there.

    The user is the real one: a set-user-ID program runs for the one who started it. Everybody else's are left out,
    whatever directory they are in and whatever they mounted for themselves.
    """
    directory, scope = os.path.realpath(staging), _scope(staging)
    own = cgroups.containers(_read("self", "cgroup", proc))
    found = []
    for pid in _pids(proc) if pids is None else pids:
        status = _read(pid, "status", proc)
        if _STATE.findall(status)[:1] == ["Z"] or not any(uid in users for uid in _numbers(_UIDS, status)[:1]):
            continue
        place = cgroups.place_of(_read(pid, "cgroup", proc), own)
        if (place.scope == "system" and place.unit.startswith(scope)) or _works_in(directory, str(pid), proc):
            found.append(pid)
    return found


def _works_in(directory: str, name: str, proc: str) -> bool:
    """Whether a process works in a directory below this one, deleted or not, and that of this host."""
    cwd = os.path.join(proc, name, "cwd")
    with contextlib.suppress(OSError):  # it ended meanwhile
        return (
            os.readlink(cwd).startswith(f"{directory}/")
            and os.stat(cwd).st_dev == os.stat(directory).st_dev
            and processes.has_our_root(name, proc)
        )
    return False


def kill(pid: int, still: t.Callable[[], object]) -> None:
    """Kill a process that still is the one that was found: its number may be somebody else's by now."""
    descriptor = None
    with contextlib.ExitStack() as stack, contextlib.suppress(ProcessLookupError):
        with contextlib.suppress(AttributeError, OSError):  # no such call before Linux 5.3, or in this Python
            descriptor = os.pidfd_open(pid)
            stack.callback(os.close, descriptor)
        if not still():
            return
        if descriptor is None:
            os.kill(pid, signal.SIGKILL)
        else:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)


def _pids(proc: str) -> t.List[int]:
    return [int(name) for name in os.listdir(proc) if name.isdigit()]


def _read(pid: t.Union[int, str], name: str, proc: str) -> str:
    """Return a file of a process, empty for one that ended meanwhile."""
    try:
        with open(os.path.join(proc, str(pid), name), encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _numbers(pattern: t.Pattern[str], status: str) -> t.List[int]:
    """Return the numbers of a line in /proc/PID/status."""
    return [int(number) for line in pattern.findall(status)[:1] for number in line.split()]
