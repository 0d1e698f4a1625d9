"""Is this library fit to be preloaded on this host? It is run before anything refers to it."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import sys
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

#: Seconds that one program may take with the library preloaded; each takes well under one where all is right.
TIME_LIMIT = 30

# What servers do with an allocator: threads that allocate, a fork that goes on allocating, an exec, a late dlopen.
# It ends by saying whether the library is really mapped: the loader only prints a line when it ignores an entry.
_EXERCISE = """
import ctypes, os, subprocess, sys, threading
def churn():
    for size in range(1, 2000):
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
ctypes.CDLL("libm.so.6") if sys.argv[2] == "glibc" else None
with open("/proc/self/maps") as maps:
    print("mapped" if os.path.realpath(sys.argv[1]) in maps.read() else "not mapped")
"""


def preflight(run: Run, library: str) -> None:
    """Run this host's true, shell and Python with the library preloaded, each within the time limit."""
    programs: t.List[t.List[str]] = [
        ["/bin/true"],
        ["/bin/sh", "-c", "for word in a b c; do /bin/true; done"],
        [sys.executable, "-I", "-W", "ignore", "-c", _EXERCISE, library, platform.libc()],
    ]
    for program in programs:
        command = ["timeout", "-k", "5", str(TIME_LIMIT), "env", f"LD_PRELOAD={library}", *program]
        status, output = run(command, "/", None)
        if status or (program is programs[-1] and output.strip() != "mapped") or "ld.so" in output:
            reason = "it took too long" if status == 124 else f"exit status {status}: {output.strip() or 'no word'}"
            raise JemallocError(
                f"The library {library} is not fit for this host, {program[0]} fails with it preloaded ({reason}); "
                "nothing refers to it."
            )
