# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How soon a service that cannot run with the library runs again without it, after it failed or its time was over.

Run it by `make bench-rollback`. The services are real ones in a container: one ends when it sees the library, one hangs
and heeds no signal, one is started over and over by systemd.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from hosts import PREFIX, Answer, Host

#: Seconds that a service has to come up, and most seconds that the way back may take after them.
TIMEOUT, TARGET = 10, 30

PICKY = r"""
cat > /usr/local/bin/picky <<'SCRIPT'
#!/bin/sh
if grep -q libjemalloc /proc/self/maps; then
  [ "$1" = hangs ] || exit 3
  trap '' TERM
  while :; do sleep 1; done
fi
[ -z "$NOTIFY_SOCKET" ] || systemd-notify --ready
exec sleep infinity
SCRIPT
chmod 755 /usr/local/bin/picky
for kind in ends hangs; do
  printf "[Service]\nType=notify\nNotifyAccess=all\nExecStart=/usr/local/bin/picky $kind\n" \
    > /etc/systemd/system/$kind.service
done
cat > /etc/systemd/system/loops.service <<'UNIT'
[Unit]
StartLimitIntervalSec=0
[Service]
Restart=always
RestartSec=100ms
ExecStart=/usr/local/bin/picky
UNIT
systemctl daemon-reload
systemctl start ends hangs loops
"""


def main() -> None:
    """Measure and print a table."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        library = next(Path("/usr/lib").glob("*/libjemalloc.so.2"))
        host = Host(Path(name))
        try:
            host.ask("install", prefix=PREFIX, version="5.3.0", library=host.give(library))
            host.ask("shell", script=PICKY)
            print(f"{'service':10}{'seconds after its time':>24}{'target':>8}")
            for service in ("ends", "hangs", "loops"):
                wanted = host.run({"services": [service]}).result["restarts"]
                arguments = {"services": wanted, "timeout": TIMEOUT, "prefix": PREFIX}
                answer = Answer(**host.ask("run", module="jemalloc_service", arguments=arguments))
                if "it runs again without the library as before" not in answer.result["msg"]:
                    raise SystemExit(answer.result["msg"])
                print(f"{service:10}{max(0.0, answer.seconds - TIMEOUT):24.1f}{TARGET:8}")
        finally:
            host.close()


if __name__ == "__main__":
    main()
