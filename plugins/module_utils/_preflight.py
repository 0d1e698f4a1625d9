"""Is this library fit to be preloaded on this host? It is run before anything refers to it."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import stat
import sys
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _elf as elf
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._catalogue import version_number
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run

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
# It ends by saying whether the library is really mapped: the loader only prints a line when it ignores an entry.
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
    print("mapped" if os.path.realpath(sys.argv[1]) in maps.read() else "not mapped")
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


def preflight(run: Run, library: str, prefix: str = "", everybody: bool = False) -> None:
    """Look at the library, then run this host's true, shell and Python with it preloaded, each within the time limit.

    With a prefix the library has to be in that store; without one it is still being staged. everybody: programs of all
    users and all services are going to preload it, so that one of each is run too.
    """
    reason = unfit(library, prefix)
    if reason:
        raise JemallocError(f"The library {library} is not fit for this host: {reason}; nothing refers to it.")
    user = _NOBODY if everybody and os.geteuid() == 0 else -1
    programs: t.List[t.List[str]] = [
        ["/bin/true"],
        ["/bin/sh", "-c", "for word in a b c; do /bin/true; done"],
        [sys.executable, "-I", "-W", "ignore", "-c", _EXERCISE, library, platform.libc(), str(user)],
    ]
    if everybody and systemd.is_running():
        limits = (f"--property=RuntimeMaxSec={TIME_LIMIT}", "--property=KillSignal=SIGKILL")
        options = ("--quiet", "--pipe", "--wait", "--collect", *limits, f"--setenv=LD_PRELOAD={library}")
        programs.append(["systemd-run", *options, "/bin/true"])
    for program in programs:
        command = ["timeout", "-k", "5", str(TIME_LIMIT), "env", f"LD_PRELOAD={library}", *program]
        status, output = run(command, "/", None)
        # Whatever it prints, every program that somebody reads from would print it too.
        if status or output != ("mapped\n" if program[0] == sys.executable else ""):
            raise JemallocError(
                f"The library {library} is not fit for this host, {program[0]} fails with it preloaded "
                f"({failure(status, output)}); nothing refers to it."
            )


def failure(status: int, output: str) -> str:
    """Return how a program failed, by its exit status and what it printed, as part of a sentence."""
    return _LATE.get(status, f"exit status {status}: {words(output)}")


def words(output: str) -> str:
    """Return what a program printed, as part of a sentence."""
    return " ".join(output.split())[:_MOST_WORDS] or ("blanks" if output else "no word")
