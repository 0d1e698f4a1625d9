# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What jemalloc_info costs, beside a `cat` of all maps in the same run: for thousands of processes that are made up in
memory, for 300 real ones, and for real ones with a thousand mappings each.

Run it by `make bench-info`, or as python -m bench.info [--processes 5000] [--mappings 1000] [--real 300] [--runs 5].
The ways take turns, so that a slow moment of the machine hits each. Each look is a process of its own, as on a host;
its seconds are those of gathering, its memory is all that it has.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import resource
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

#: Seconds, MiB and the ratio to cat that are promised.
TARGETS = {"made up": (3.0, 100, 3.0), "real": (0.3, 100, 3.0), "real, large": (None, 100, 3.0)}

PREFIX = "/opt/jemalloc"

#: Libraries that the made-up processes map beside the C library; the last one is what differs.
KINDS = (
    f"{PREFIX}/5.3.1/lib/libjemalloc.so.2",
    "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
    "/usr/lib/x86_64-linux-gnu/libtcmalloc.so.4",
    "/usr/lib/x86_64-linux-gnu/libyaml-0.so.2",
    "/usr/lib/x86_64-linux-gnu/libyaml-0.so.2",
)
NAMES = ("ssl", "crypto", "ruby-3.1", "z", "m", "pq", "ffi", "gmp", "readline", "xml2")

SMALL = {
    "stat": "{pid} (puma: cluster w) S 1 {pid} {pid} 0 -1 4194560 9 0 0 0 5 5 0 0 20 0 12 0 1000 99999999 50000 1844\n",
    "status": "Name:\tpuma\n"
    + "Field:\t0000000000000000\n" * 40
    + "VmRSS:\t  200000 kB\nVmSwap:\t       0 kB\nThreads:\t12\n",
    "cgroup": "0::/system.slice/puma{unit}.service\n",
    "environ": "PATH=/usr/bin\0LANG=C\0" + "SECRET_KEY_BASE=0123456789\0" * 20,
    "smaps_rollup": "7f00-7fff ---p 00000000 00:00 0 [rollup]\nRss: 200000 kB\nPss: 100000 kB\n",
}


def maps(number: int, mappings: int) -> str:
    """Return the maps of a process: a third libraries, the rest anonymous memory, with 16 arenas of glibc."""
    lines, address = [], 0x7F0000000000 + number * 0x100000000
    for arena in range(16):
        start = address + (arena << 26)
        lines.append(f"{start:x}-{start + 0x400000:x} rw-p 00000000 00:00 0 \n")
        lines.append(f"{start + 0x400000:x}-{start + (1 << 26):x} ---p 00000000 00:00 0 \n")
    address += 32 << 26
    while len(lines) < mappings - 2:
        start = address + len(lines) * 0x21000
        path = f"/usr/lib/x86_64-linux-gnu/lib{NAMES[len(lines) % 10]}.so.{len(lines) % 7}"
        library = f"{start:x}-{start + 0x1000:x} r--p 00001000 08:01 {len(lines) + 1000}{'':20}{path}\n"
        lines.append(library if len(lines) % 3 == 0 else f"{start:x}-{start + 0x20000:x} rw-p 00000000 00:00 0 \n")
    for path in (KINDS[number % len(KINDS)], "/usr/lib/x86_64-linux-gnu/libc.so.6"):
        start = address + len(lines) * 0x21000
        lines.append(f"{start:x}-{start + 0x1000:x} r-xp 00001000 08:01 99{'':20}{path}\n")
    return "".join(lines)


def make_up(proc: Path, processes: int, mappings: int) -> None:
    """Make a tree as /proc has it."""
    texts = [maps(number, mappings) for number in range(50)]
    auxv = struct.pack("6Q", 16, 1, 23, 0, 0, 0)
    for number in range(processes):
        directory = proc / str(number + 1)
        directory.mkdir()
        (directory / "maps").write_text(texts[number % len(texts)])
        (directory / "exe").symlink_to(sys.executable)
        (directory / "auxv").write_bytes(auxv)
        for name, text in SMALL.items():
            (directory / name).write_text(text.format(pid=number + 1, unit=number // 10))


class Cost(t.NamedTuple):
    """What a look costs: seconds, of them those of the processor, and the bytes of memory of the whole process."""

    seconds: float
    processor: float
    memory: int = 0
    seen: int = 0


def look(proc: str) -> None:
    """Look, and print what that costs; in a process of its own."""
    from ansible_collections.preload.jemalloc.plugins.module_utils import _info as info
    from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_info as module

    began, used = time.perf_counter(), time.process_time()
    result = info.gather(PREFIX, module.ARGUMENTS["gather"]["default"], proc=proc)
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(json.dumps([seconds, processor, memory, sum(unit["processes"] for unit in result["units"])]))


def looked(proc: str) -> Cost:
    """Return what a look costs."""
    command = [sys.executable, "-m", "bench.info", "--look", proc]
    return Cost(*json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))


def cat(proc: str) -> Cost:
    """Return what a cat of all maps costs, those of threads of the kernel and of what ended too."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(["/bin/sh", "-c", f"cat {proc}/[0-9]*/maps > /dev/null 2> /dev/null"], check=False)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def measure(name: str, proc: str, runs: int) -> bool:
    """Measure by turns and print a line; return whether the targets were met."""
    turns = [(looked(proc), cat(proc)) for _run in range(runs)]
    seconds = [ours.seconds for ours, _other in turns]
    ratio = statistics.median(ours.seconds / other.seconds for ours, other in turns)
    processor = [statistics.median(costs) for costs in zip(*[[each.processor for each in turn] for turn in turns])]
    memory = max(ours.memory for ours, _other in turns) >> 20
    most, mebibytes, most_ratio = TARGETS[name]
    figures = [min(seconds), statistics.median(seconds), max(seconds)]
    figures += [statistics.median(other.seconds for _ours, other in turns), ratio, *processor]
    row = "".join(f"{figure:9.2f}" for figure in figures)
    print(f"{name:12}{turns[0][0].seen:10}{row}{memory:8}   {most or '-'} s, {most_ratio:g}, {mebibytes} MiB")
    return (most is None or statistics.median(seconds) <= most) and ratio <= most_ratio and memory <= mebibytes


def start_ordinary(count: int) -> list[subprocess.Popen[bytes]]:
    """Start real processes, of programs that every host has."""
    commands = [["sleep", "1000"], ["tail", "-f", "/dev/null"], ["sh", "-c", "read x"], ["bash", "-c", "read x"]]
    commands += (["perl", "-e", "<STDIN>"], [sys.executable, "-c", "input()"])
    return [
        subprocess.Popen(
            commands[number % len(commands)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number in range(count)
    ]


def start_large(count: int, mappings: int) -> list[int]:
    """Start real processes that have so many mappings, every second one of a file."""
    with open(sys.executable, "rb") as program:
        for number in range(mappings):
            libc_like = program.fileno() if number % 2 else -1
            kept.append(mmap.mmap(libc_like, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ, offset=0))
    pids = []
    for _number in range(count):
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        pids.append(pid)
    return pids


kept: list[mmap.mmap] = []


@contextlib.contextmanager
def only(pids: t.Sequence[int]) -> t.Iterator[str]:
    """Yield a /proc that leads to these processes alone, whatever else runs on the machine."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as proc:
        for name in ("self", "meminfo", *map(str, pids)):
            os.symlink(f"/proc/{name}", f"{proc}/{name}")
        yield proc


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--look", help="only look at this /proc, in this process")
    parser.add_argument("--processes", type=int, default=5000)
    parser.add_argument("--mappings", type=int, default=1000)
    parser.add_argument("--real", type=int, default=300)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    if given.look:
        look(given.look)
        return
    print(f"{given.runs} runs, {len(os.sched_getaffinity(0))} processors, seconds")
    titles = ("min", "median", "max", "cat", "ratio", "cpu", "cat's")
    print(f"{'':12}{'processes':>10}{''.join(f'{title:>9}' for title in titles)}{'MiB':>8}   at most")
    met = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as proc:
        make_up(Path(proc), given.processes, given.mappings)
        met.append(measure("made up", proc, given.runs))
    ordinary = start_ordinary(given.real)
    time.sleep(1)
    with only([process.pid for process in ordinary]) as proc:
        met.append(measure("real", proc, given.runs))
    for process in ordinary:
        process.kill()
        process.wait()
    large = start_large(given.real, given.mappings)
    with only(large) as proc:
        met.append(measure("real, large", proc, given.runs))
    for pid in large:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    raise SystemExit(0 if all(met) else "A target was missed.")


if __name__ == "__main__":
    main()
