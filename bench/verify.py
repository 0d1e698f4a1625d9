# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long it takes to verify many services on a host with many processes, beside their restarts.

Run it by `make bench-verify`. The services are real ones in a container: each is a sleep. ARGS are how many other
processes there are, then how many services: ARGS='10000 1 20 100 500'.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from crowd import busy_host, handle, start_others, start_services
from hosts import ABSENT, PREFIX, Answer, Host

#: Other processes, then services, unless the command line says something else.
DEFAULT = (10_000, 1, 20, 100, 500)


def checked(answer: Answer) -> Answer:
    """Return an answer that is no failure."""
    if answer.status:
        raise SystemExit(answer.output)
    return answer


def measure(host: Host, count: int) -> list[float]:
    """Return the seconds of each step for so many services."""
    names = start_services(host, count)
    steps = [checked(host.run({"services": names}))]
    steps.append(checked(handle(host, steps[0].result["restarts"])))
    steps.append(checked(handle(host, steps[0].result["services"], state="proved")))
    steps.append(checked(host.run({"services": names})))
    steps.append(checked(host.run(ABSENT)))
    steps.append(checked(handle(host, steps[-1].result["restarts"])))
    return [step.seconds for step in steps]


def main() -> None:
    """Measure and print a table."""
    others, *counts = [int(word) for word in sys.argv[1:]] or DEFAULT
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        library = next(Path("/usr/lib").glob("*/libjemalloc.so.2"))
        with busy_host(Path(name)) as host:
            host.ask("install", prefix=PREFIX, version="5.3.0", library=host.give(library))
            start_others(host, others)
            print(f"seconds, with {others} other processes")
            print("services  enable  restart  verify  second run  absent  restart")
            for count in counts:
                enable, restart, verify, again, absent, back = measure(host, count)
                row = f"{count:8}{enable:8.1f}{restart:9.1f}{verify:8.1f}{again:12.1f}{absent:8.1f}{back:9.1f}"
                print(row, flush=True)


if __name__ == "__main__":
    main()
