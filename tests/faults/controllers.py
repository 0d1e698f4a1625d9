# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a container that may be harmed: several controllers at once, each of which calls modules as the role does.

Its argument is a list of plays as JSON, and its output how each ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RUNNER = Path(__file__).with_name("run_module.py")

Result = t.Dict[str, t.Any]


class FailedError(Exception):
    """A module failed, which ends a play."""


class Play:
    """One play of the role: its wish, and the seconds that its controller is busy with other hosts before each task."""

    def __init__(self, wish: Result) -> None:
        self._wish = wish
        self._pauses = iter(wish["pauses"])

    def run(self) -> str:
        """Run the play; return the message of the module that failed, empty when none did."""
        try:
            if self._wish["version"]:
                self._present()
            else:
                self._absent()
        except FailedError as failed:
            return str(failed)
        return ""

    def _present(self) -> None:
        version = self._call("jemalloc", version=self._wish["version"])["version"]
        scopes = {"services": self._wish["services"], "texts": self._wish["texts"]}
        self._restart(self._call("jemalloc_preload", version=version, **scopes))

    def _absent(self) -> None:
        self._restart(self._call("jemalloc_preload", state="absent"))
        self._call("jemalloc", state="absent")

    def _restart(self, preloaded: Result) -> None:
        if preloaded["restarts"]:
            arguments = {"services": preloaded["restarts"], "written": preloaded["written"], "timeout": 20}
            self._call("jemalloc_service", **arguments)

    def _call(self, module: str, **arguments: t.Any) -> Result:
        time.sleep(next(self._pauses))
        command = [sys.executable, str(RUNNER), module, json.dumps(arguments)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        result: Result = json.loads(lines[-1]) if lines else {"failed": True, "msg": done.stdout + done.stderr}
        if result.get("failed"):
            raise FailedError(f"{module}: {result['msg']}")
        return result


if __name__ == "__main__":
    plays = [Play(wish) for wish in json.loads(sys.argv[1])]
    with ThreadPoolExecutor(len(plays)) as pool:
        print(json.dumps(list(pool.map(Play.run, plays))))
