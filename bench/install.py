# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an installation costs: from source beside the same build by hand, from a bundle, when it is there already; and
what each command costs that jemalloc.sh starts.

Run it by `make bench`, or as python -m bench.install [--version 5.3.0] [--origin FILE] [--runs 5]. Without an origin
the source comes from the distribution's archive. All ways take turns, so that a slow moment of the machine hits each.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archive
from ansible_collections.preload.jemalloc.plugins.module_utils import _build as build
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from tests import sources

RUNNER = Path(__file__).parents[1] / "tests" / "faults" / "run_module.py"

#: What issue and design promise: the largest ratio to the build by hand, and the most seconds of module time.
TARGETS = {"from source / by hand": 1.05, "from a bundle": 2.0, "already there": 0.3, "jemalloc.sh / env": 1.0}

#: Commands that are started in each run by jemalloc.sh, and as many by env.
COMMANDS = 400


def module(name: str, **arguments: t.Any) -> tuple[float, dict[str, t.Any]]:
    """Run a module as a process of its own, as Ansible does on a host; return its seconds and its result."""
    began = time.monotonic()
    command = [sys.executable, str(RUNNER), name, json.dumps(arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    seconds = time.monotonic() - began
    result = json.loads(done.stdout.strip().splitlines()[-1])
    if result.get("failed"):
        raise SystemExit(result["msg"])
    return seconds, result


def by_hand(tarball: str, arguments: t.Sequence[str], work: Path) -> float:
    """Return the seconds that ./configure && make build_lib_shared take with the same arguments."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    top = archive.unpack(tarball, str(work), "src")
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "GIT_DIR": "/nonexistent"}
    began = time.monotonic()
    for step in (["./configure", *arguments], ["make", f"-j{len(os.sched_getaffinity(0))}", "build_lib_shared"]):
        subprocess.run(step, cwd=top, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def start(command: list[str], times: int, environment: dict[str, str]) -> float:
    """Return the seconds that it takes to start a command and wait for its end, so many times."""
    began = time.monotonic()
    for _time in range(times):
        os.waitpid(os.posix_spawn(command[0], command, {"PATH": "/usr/bin:/bin", **environment}), 0)
    return time.monotonic() - began


def by_wrapper(store: Path, **environment: str) -> float:
    """Return how many times as long as by env it takes by jemalloc.sh to run true with jemalloc; by turns.

    Where a language is set, as it is for services and logins, env loads it, which a shell does not.
    """
    library = f"LD_PRELOAD={store}/current/lib/libjemalloc.so"
    ways = ([f"{store}/current/bin/jemalloc.sh", "/bin/true"], ["/usr/bin/env", library, "/bin/true"])
    spent = [0.0, 0.0]
    for _turn in range(COMMANDS // 10):
        for way, command in enumerate(ways):
            spent[way] += start(command, 10, environment)
    return spent[0] / spent[1]


def measure(version: str, origin: str | None, runs: int, work: Path) -> dict[str, list[float]]:
    """Return the seconds of each way, run by run."""
    tarball = str(sources.fetch(version, work / f"jemalloc-{version}.tar", [origin] if origin else []))
    checksum = f"sha256:{files.sha256(tarball)}"
    wanted = {"version": version, "origins": [tarball], "checksum": checksum, "build_packages": False}
    arguments = build.configure_arguments(
        catalogue.find_release(version, None), os.uname().machine, build.Options(), str(work / "store" / version)
    )
    seconds: dict[str, list[float]] = {"by hand": [], "from source": [], "from a bundle": [], "already there": []}
    seconds.update({"jemalloc.sh / env": [], "same without LANG": []})
    for _run in range(runs):
        for name in ("store", "other"):
            shutil.rmtree(work / name, ignore_errors=True)
        seconds["by hand"].append(by_hand(tarball, arguments, work / "hand"))
        seconds["from source"].append(module("jemalloc", prefix=str(work / "store"), **wanted)[0])
        packed = module("jemalloc_bundle", prefix=str(work / "store"), dist=str(work))[1]
        bundle = work / "bundle.tar.gz"
        bundle.write_bytes(base64.b64decode(packed["content"]))
        given = {
            "version": version,
            "bundle": str(bundle),
            "bundle_checksum": f"sha256:{packed['sha256']}",
            "method": "bundle",
        }
        seconds["from a bundle"].append(module("jemalloc", prefix=str(work / "other"), **given)[0])
        spent, result = module("jemalloc", prefix=str(work / "store"), **wanted)
        if result["changed"]:
            raise SystemExit("The second run changed something.")
        seconds["already there"].append(spent)
        seconds["jemalloc.sh / env"].append(by_wrapper(work / "store", LANG="C.UTF-8"))
        seconds["same without LANG"].append(by_wrapper(work / "store"))
    return seconds


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", default="5.3.0")
    parser.add_argument("--origin", help="a local source, instead of the distribution's archive")
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as work:
        os.chmod(work, 0o755)  # the build runs as a user without rights
        seconds = measure(given.version, given.origin, given.runs, Path(work))
    print(f"jemalloc {given.version}, {given.runs} runs, {len(os.sched_getaffinity(0))} processors, seconds")
    print(f"{'':24}{'min':>8}{'median':>8}{'max':>8}{'target':>8}")
    ratios = [ours / hand for ours, hand in zip(seconds["from source"], seconds["by hand"])]
    for name, figures in {**seconds, "from source / by hand": ratios}.items():
        row = "".join(f"{figure:8.2f}" for figure in (min(figures), statistics.median(figures), max(figures)))
        print(f"{name:24}{row}{TARGETS.get(name, ''):>8}")


if __name__ == "__main__":
    main()
