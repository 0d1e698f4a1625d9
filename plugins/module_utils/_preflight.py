"""Is this library fit to be preloaded on this host? It is run before anything refers to it."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import re
import stat
import sys
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _elf as elf
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._catalogue import version_number
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.module_utils._host import with_errors

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run
    from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host

#: Seconds that one program may take with the library preloaded; each takes well under one where all is right.
TIME_LIMIT = 10

# How timeout(1) ends when it ended the program, and when it had to kill it and itself with it.
_LATE = {124: "it took too long", -9: "it took too long and had to be killed"}

# Characters of what a program prints that are enough to see what is wrong.
_MOST_WORDS = 300

# A user without rights: the kernel's overflow user, nobody everywhere.
_NOBODY = 65534

# What servers do with an allocator: threads that allocate, a fork that goes on allocating, an exec, a late dlopen; and
# an exec by a user without rights, where everybody is going to have the library.
# In the end the library must be mapped where it was asked for: the loader only prints a line when it ignores an entry.
_EXERCISE = """
import ctypes, os, subprocess, sys, threading
sys.excepthook = lambda kind, error, trace: print(error)
def churn():
    for size in range(1, 2000, 5):
        bytearray(size * 16)
threads = [threading.Thread(target=churn) for _ in range(4)]
for thread in threads: thread.start()
child = os.fork()
if child == 0:
    churn()
    os._exit(0)
if os.waitpid(child, 0)[1] != 0:
    sys.exit("a forked child crashed")
for thread in threads: thread.join()
subprocess.run(["/bin/sh", "-c", "exit 0"], check=True)
user = int(sys.argv[3])
if user >= 0:
    subprocess.run(["/bin/true"], check=True, user=user, group=user, extra_groups=[])
ctypes.CDLL("libm.so.6") if sys.argv[2] == "glibc" else None
with open("/proc/self/maps") as maps:
    if sys.argv[4] and os.path.realpath(sys.argv[1]) not in maps.read():
        sys.exit("the library is not mapped")
"""


def unfit(library: str, prefix: str = "") -> str:
    """Return why a library cannot be preloaded on this host, as far as its file tells without running it."""
    path = os.path.realpath(library)
    if prefix and not path.startswith(f"{os.path.realpath(prefix)}/"):
        return f"it leads out of {prefix}, to {path}"
    if not os.path.isfile(path):
        return "it is not a regular file"
    with open(path, "rb") as stream:
        data = stream.read()
    host = elf.read(os.path.realpath(sys.executable))
    try:
        found = elf.parse(data)
    except JemallocError as error:
        return str(error)
    if (found.bits, found.order, found.machine) != (host.bits, host.order, host.machine):
        return f"it is for another machine ({found.bits} bits, e_machine {found.machine})"
    if not found.dynamic:
        return "it is no shared library"
    here = platform.here()
    if (platform.linked_libc(found.needed) == "musl") != (here.libc == "musl"):
        return f"it is for another C library than {here.libc}"
    lowest = platform.lowest_glibc(data)
    if here.libc_version and lowest and version_number(lowest) > version_number(here.libc_version):
        return f"it needs glibc {lowest}, this host has {here.libc_version}"
    # Where a link is on the way, what holds the link counts too.
    reasons = (insecure(os.path.realpath(each)) for each in (path, *_directories(library)))
    return next(filter(None, reasons), "")


def _directories(path: str) -> t.List[str]:
    """Return the directories that lead to a file, as they are named."""
    found = [os.path.dirname(os.path.abspath(path))]
    while found[-1] != "/":
        found.append(os.path.dirname(found[-1]))
    return found


def insecure(path: str) -> str:
    """Return who else could change a file or a directory that leads to it; nothing when nobody but its owner can."""
    while True:
        status = os.stat(path)
        if status.st_uid not in (0, os.geteuid()):
            return f"{path} belongs to user {status.st_uid}, not to root"
        # In a directory with the sticky bit others can add names, but not replace this one.
        if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
            return f"{path} can be written by others than root (mode {stat.S_IMODE(status.st_mode):04o})"
        if path == "/":
            return ""
        path = os.path.dirname(path)


def preflight(host: Host, library: str, prefix: str = "", everybody: bool = False) -> None:
    """Inspect the library, then run this host's true, shell and Python with it preloaded, each within the time limit.

    With a prefix the library has to be in that store; without one it is still being staged. everybody: programs of all
    users and all services are going to preload it, so that one of each is run too. What a program does without the
    library as well does not count against it: the host warns of that.
    """
    reason = unfit(library, prefix)
    if reason:
        raise JemallocError(f"The library {library} is not fit for this host: {reason}; nothing refers to it.")
    usual: t.Dict[str, t.List[str]] = {}
    for program, same in zip(_programs(library, library, everybody), _programs(library, "", everybody)):
        found = _outcome(host.run, library, program)
        if found == (0, ""):
            continue
        without = _outcome(host.run, "", same)
        reason = new_failure(found, without)
        if reason:
            raise JemallocError(
                f"The library {library} is not fit for this host, {program[0]} fails with it preloaded "
                f"({reason}); nothing refers to it."
            )
        lines = "\n".join(dict.fromkeys(without[1].splitlines()))
        usual.setdefault(failure(without[0], lines) if without[0] else words(lines), []).append(program[0])
    for reason, programs in usual.items():
        host.warn(
            "What fails or prints without jemalloc too does not count against it: "
            f"{', '.join(programs)} ({reason}).{_causes()}"
        )


def _programs(library: str, preload: str, everybody: bool) -> t.List[t.List[str]]:
    """Return what to run for a library, with it preloaded or, where preload is empty, without."""
    user = _NOBODY if everybody and os.geteuid() == 0 else -1
    exercise = [sys.executable, "-I", "-W", "ignore", "-c", _EXERCISE, library, platform.libc(), str(user), preload]
    found = [["/bin/true"], ["/bin/sh", "-c", "for word in a b c; do /bin/true; done"], exercise]
    if everybody and systemd.is_running():
        limits = (f"--property=RuntimeMaxSec={TIME_LIMIT}", "--property=KillSignal=SIGKILL")
        options = ("--quiet", "--pipe", "--wait", "--collect", *limits, f"--setenv=LD_PRELOAD={preload}")
        found.append(["systemd-run", *options, "/bin/true"])
    return found


def _outcome(run: Run, preload: str, program: t.Sequence[str]) -> t.Tuple[int, str]:
    """Run a program; return its exit status and all that it printed, which whoever reads from it would get as well."""
    command = ["timeout", "-k", "5", str(TIME_LIMIT), "env", f"LD_PRELOAD={preload}", *program]
    return run(with_errors(command), "/", None)


def _causes() -> str:
    """Name the entries that make every program of this host complain, as sentences; empty where none is known."""
    from ansible_collections.preload.jemalloc.plugins.module_utils import _scopes as scopes
    from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store

    stale: t.Dict[str, str] = {}
    for scope in scopes.scopes(scopes.Reader(), "/nowhere"):
        entries = scope.preloads if scope.kind in ("host", "login", "ld_so_preload") else ()
        stale.update({each: scope.path for each in entries if "/" in each and not os.path.exists(each)})
    ours = store.library("")
    return "".join(
        f" {path} preloads {entry}, which "
        + (
            "is missing until this run has installed it."
            if entry.endswith(ours)
            else "does not exist; remove it there."
        )
        for entry, path in stale.items()
    )


def new_failure(found: t.Tuple[int, str], without: t.Tuple[int, str]) -> str:
    """Return how a program fails with the library and not without it, by its exit status and output both times."""
    new = new_lines(found[1], without[1])
    return failure(found[0], new) if not without[0] and (found[0] or new) else ""


def new_lines(output: str, usual: str) -> str:
    """Return the lines of an output that are not usual; numbers in them may differ, as those of processes and times."""

    def without_numbers(line: str) -> str:
        return re.sub(r"[0-9]+", "0", line)

    known = set(map(without_numbers, usual.splitlines()))
    return "".join(f"{line}\n" for line in output.splitlines() if without_numbers(line) not in known)


def failure(status: int, output: str) -> str:
    """Return how a program failed, by its exit status and what it printed, as part of a sentence."""
    return _LATE.get(status, f"exit status {status}: {words(output)}")


def words(output: str) -> str:
    """Return what a program printed, as part of a sentence."""
    return " ".join(output.split())[:_MOST_WORDS] or ("blanks" if output else "no word")
