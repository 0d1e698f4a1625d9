# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units on a real systemd, and what runs of them."""

from __future__ import annotations

import json
import re
import typing as t

from tests.operators.lab import Operator, Played

# Prints where the processes of a unit map code of ours.
_MAPS = """
for each in $(grep -lE '/%s(.service)?$' /proc/[0-9]*/cgroup); do
  grep -h 'r-xp .*/opt/jemalloc/' ${each%%/cgroup}/maps || true
done
"""


class Units:
    """Units that are written on a host; they and what was enabled of them go afterwards."""

    def __init__(self, host: Operator) -> None:
        self.host = host
        self._written: list[str] = []

    def write(self, name: str, text: str, start: bool = True) -> None:
        """Write a unit, or a drop-in such as app.service.d/own.conf, and start it."""
        path = f"/etc/systemd/system/{name}"
        self.host.shell(f"mkdir -p $(dirname {path}); cat > {path} << 'END'\n{text}\nEND\nsystemctl daemon-reload")
        self._written.append(path)
        if start:
            self.host.shell(f"systemctl start {name}")

    def enable(self, *services: t.Any, check: bool = False, **variables: t.Any) -> Played:
        """Play the role for services."""
        more = ["--check"] if check else []
        return self.host.site("-e", json.dumps({"jemalloc_services": services, **variables}), *more)

    def pids(self, *names: str) -> dict[str, str]:
        """Return the main process of each service."""
        show = "systemctl show --property=MainPID --value"
        return {name: self.host.shell(f"{show} {name}").strip() for name in names}

    def state(self, *names: str) -> dict[str, str]:
        """Return what systemd says of units, and for active ones the release that their processes run with."""
        found = {}
        for name in names:
            active = self.host.shell(f"systemctl show --property=ActiveState --value {name}").strip()
            mapped = re.findall(r"/opt/jemalloc/([^/]+)/", self.host.shell(_MAPS % name))
            found[name] = " ".join([active, *sorted(set(mapped))])
        return found

    def remove(self) -> None:
        """Take everything off jemalloc, and remove the units."""
        assert not self.host.play("site", "-e", "jemalloc_services=[]", "-e", "jemalloc_latest=false").failed
        names = " ".join(re.sub(r".*/system/([^/]*?)(\.d/.*)?$", r"\1", path) for path in self._written)
        self.host.shell(
            f"systemctl stop {names}; rm -f {' '.join(self._written)}; systemctl daemon-reload", check=False
        )
        self.host.shell("systemctl reset-failed")
