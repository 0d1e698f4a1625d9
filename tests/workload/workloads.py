# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two programs with and without jemalloc: one whose objects of mixed lifetimes fragment the malloc of glibc, one that
takes its memory once. What they take is read from /proc, and told as measurements of a unit before and after enabling.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import tempfile
import typing as t
from pathlib import Path

from ansible_collections.preload.jemalloc.plugins.plugin_utils._measurements import Point

SOURCE = Path(__file__).with_name("workload.c")

KINDS = ("mixed", "steady")

#: With as many arenas as jemalloc takes by itself the figure would be that of the machine's cores.
MALLOC_CONF = "narenas:2,dirty_decay_ms:1000"

#: What a part of the work stands for; the clock of these programs is their work.
SECONDS = 1200

START = 1_790_000_000


def library() -> str:
    """Return the path of a genuine jemalloc, that of the distribution's package."""
    found = sorted(Path("/usr/lib").glob("*/libjemalloc.so.2"))
    if not found:
        raise SystemExit("There is no jemalloc to measure; on Debian: apt-get install libjemalloc2")
    return str(found[0])


def build(directory: Path) -> Path:
    """Compile the programs and return the path."""
    path = directory / "workload"
    subprocess.run(["gcc", "-O1", "-pthread", "-o", str(path), str(SOURCE)], check=True)
    return path


def measure(program: Path, kind: str, preload: str = "") -> list[int]:
    """Return the resident memory of a program in bytes after each part of its work."""
    more = {"LD_PRELOAD": preload, "MALLOC_CONF": MALLOC_CONF} if preload else {}
    environment = {"PATH": os.defpath, **more}
    sizes: list[int] = []
    with subprocess.Popen(
        [str(program), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="ascii", env=environment
    ) as process:
        for _part in t.cast(t.IO[str], process.stdout):
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            if preload and not sizes:
                assert preload in Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
            sizes.append(int(t.cast(re.Match[str], re.search(r"VmRSS:\s+([0-9]+) kB", status))[1]) * 1024)
            t.cast(t.IO[str], process.stdin).write("\n")
            t.cast(t.IO[str], process.stdin).flush()
    assert process.returncode == 0, f"{program} {kind} ended with {process.returncode}"
    return sizes


@functools.lru_cache(maxsize=None)
def sides(kind: str) -> tuple[list[int], list[int]]:
    """Return what a program takes without jemalloc and with it, measured once for all tests."""
    with tempfile.TemporaryDirectory() as directory:
        program = build(Path(directory))
        return measure(program, kind), measure(program, kind, library())


def points(before: t.Sequence[int], after: t.Sequence[int]) -> list[Point]:
    """Return the measurements of a unit that ran without jemalloc first, and then with it."""
    found = []
    for side, (sizes, label) in enumerate(((before, "glibc"), (after, "jemalloc 5.3.0"))):
        for part, size in enumerate(sizes, start=1):
            time = START + (side * (len(before) + 1) + part) * SECONDS
            found.append(Point(time, part * SECONDS, 1, 24, size, None, 0, label))
    return found
