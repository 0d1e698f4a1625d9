# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarting one service never harms another: what systemd restarts, or stops, along with it."""

from __future__ import annotations

from tests.units.lab import Units

SLEEP = "[Service]\nExecStart=/bin/sleep infinity\n"
WEB = f"[Unit]\nRequires=db.service\nAfter=db.service\n{SLEEP}Restart=always\n"
REFUSES = """[Service]
Type=forking
PIDFile=/run/db.pid
ExecStart=/bin/sh -c "case $$LD_PRELOAD in *jemalloc*) exit 1;; esac; sleep infinity & echo $$! > /run/db.pid"
"""


def test_what_is_restarted_along_is_said_before(units: Units) -> None:
    units.write("db.service", SLEEP)
    units.write("web.service", WEB)
    units.write("log.service", f"[Unit]\nPartOf=web.service\n{SLEEP}")
    forecast = units.host.site("-e", "jemalloc_services=db", "--check")
    assert "would restart db; systemd would restart with it log, web; pending: none" in forecast.text
    done = units.enable("db")
    assert not done.failed, done.output
    assert "restarted and verified db (1 process); systemd restarted with it log, web; pending: none" in done.text
    assert units.state("db", "web", "log") == {"db": "active 9.9.9", "web": "active", "log": "active"}


def test_what_a_failure_stops_is_started_again(units: Units) -> None:
    units.write("db.service", REFUSES, start=False)
    units.write("db.socket", "[Socket]\nListenStream=/run/db.sock\n")
    units.write("web.service", WEB)
    units.write("other.service", f"[Unit]\nRequires=db.service\nAfter=db.service\n{SLEEP}")
    done = units.enable("other", "db", jemalloc_timeout=6)
    assert done.failed
    assert "db.service: it did not start" in done.text, done.output
    assert "it runs again without the library as before" in done.text, done.output
    for name in ("other", "web"):
        assert f"{name}.service, which systemd stopped with db.service, was started again" in done.text, done.output
    assert units.state("db", "web", "other", "db.socket") == {
        "db": "active",
        "web": "active",
        "other": "active 9.9.9",
        "db.socket": "active",
    }
