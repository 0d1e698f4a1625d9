# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A busy host: a container with many services and many other processes."""

from __future__ import annotations

import contextlib
import typing as t
from pathlib import Path

from hosts import PREFIX, Answer, Host

# Each start of a service leaves a line behind.
_SERVICES = """
mkdir -p /run/starts
cat > /run/busy.service <<'END'
[Service]
Type=exec
ExecStartPre=/bin/sh -c "echo >> /run/starts/%n"
ExecStart=/bin/sleep infinity
END
for number in $(seq {count}); do cp /run/busy.service /etc/systemd/system/busy-$number.service; done
systemctl daemon-reload
systemctl start $(seq --format=busy-%g {count})
"""

_OTHERS = """
cat > /run/crowd.py <<'END'
import os, pathlib, signal
for _ in range({count}):
    if os.fork() == 0:
        signal.pause()
pathlib.Path("/run/crowd").touch()
signal.pause()
END
systemd-run --quiet --unit=crowd --property=TasksMax=infinity python3 /run/crowd.py
until [ -e /run/crowd ]; do sleep 0.1; done
"""


@contextlib.contextmanager
def busy_host(files: Path) -> t.Iterator[Host]:
    """Have a container that may have any number of processes."""
    host = Host(files, "busy", ["--pids-limit=-1"])
    try:
        yield host
        # so many take longer to end than podman waits
        host.ask("shell", script="systemctl kill --signal=KILL crowd && systemctl stop crowd || true")
    finally:
        host.close()


def start_services(host: Host, count: int) -> list[str]:
    """Start so many services, those that run already left alone; return their names as they are sorted."""
    host.ask("shell", script=_SERVICES.format(count=count))
    return sorted(f"busy-{number}.service" for number in range(1, count + 1))


def start_others(host: Host, count: int) -> None:
    """Start so many processes that are none of these services."""
    host.ask("shell", script=_OTHERS.format(count=count))


def handle(host: Host, services: t.Sequence[t.Mapping[str, t.Any]], **how: t.Any) -> Answer:
    """Run jemalloc_service, by its defaults and how."""
    arguments = {"services": services, "prefix": PREFIX, **how}
    return Answer(**host.ask("run", module="jemalloc_service", arguments=arguments))
