# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout in batches: what is well stays, a batch that is not well goes back as a whole, and the rest is spared."""

from __future__ import annotations

import typing as t

import pytest

from tests.fleet.lab import Fleet, mapped

#: A service that ends where it sees a release which the host does not like, or takes its host off the network once.
APP = """#!/bin/sh
rm /etc/lost 2>/dev/null && { systemctl --no-block stop ssh ssh.socket; pkill -KILL sshd; }
dislikes=$(cat /etc/dislikes 2>/dev/null) || dislikes=nothing
! grep -q "/$dislikes/" /proc/self/maps || { echo "I do not like $dislikes" >&2; exit 3; }
exec sleep infinity
"""

UNIT = "[Service]\nExecStart=/usr/local/bin/app\n"


@pytest.fixture
def app(clean: Fleet, tarball: t.Callable[[str], tuple[str, str]]) -> t.Iterator[Fleet]:
    """The fleet with a service on each host, and the sources of two releases."""
    for host in clean.hosts:
        for version in ("9.9.8", "9.9.9"):
            clean.run("podman", "cp", tarball(version)[0], f"{host}:/root/")
        clean.shell(
            host, f"printf '%s' '{APP}' > /usr/local/bin/app; chmod 755 /usr/local/bin/app; rm -f /etc/dislikes"
        )
        clean.shell(host, f"printf '%s' '{UNIT}' > /etc/systemd/system/app.service; systemctl daemon-reload")
        clean.shell(host, "systemctl restart app")
    yield clean
    for host in clean.hosts:
        clean.shell(
            host, "systemctl stop app; rm /etc/systemd/system/app.service /usr/local/bin/app /etc/dislikes", False
        )


def roll_out(fleet: Fleet, checksum: str, version: str, *arguments: str, check: bool = True) -> str:
    """Roll a release out to one host, and then to all others at once."""
    wanted = {"jemalloc_version": version, "jemalloc_checksum": checksum, "jemalloc_origins": ["/root"]}
    return fleet.play(
        "rollout",
        *arguments,
        check=check,
        **wanted,
        jemalloc_services=["app"],
        jemalloc_serial=[1, "100%"],
        jemalloc_timeout=15,
    )


def state(fleet: Fleet) -> dict[str, tuple[str, set[str]]]:
    """Return the current release of each host, and what its service maps."""
    current = {host: fleet.shell(host, "readlink /opt/jemalloc/current || true").strip() for host in fleet.hosts}
    return {host: (current[host], mapped(fleet, host, "app")) for host in fleet.hosts}


def runs(version: str) -> tuple[str, set[str]]:
    """Return what a host on which all runs with a release has."""
    return version, {f"/opt/jemalloc/{version}/lib/libjemalloc.so.2"}


def test_a_rollout(app: Fleet, tarball: t.Callable[[str], tuple[str, str]]) -> None:
    first, last = app.hosts[0], app.hosts[-1]
    old, new = tarball("9.9.8")[1], tarball("9.9.9")[1]

    app.shell(first, "echo 9.9.8 > /etc/dislikes")
    printed = roll_out(app, old, "9.9.8", check=False)
    assert "I do not like 9.9.8" in printed
    assert f"{first}: app.service: " not in printed, printed  # told by the task that failed, and not again
    assert f"The batch was rolled back because of {first}, see above." in printed
    assert state(app) == {host: (("9.9.8" if host == first else ""), set()) for host in app.hosts}
    assert (
        app.shell(first, "systemctl is-active app; ls /etc/systemd/system/app.service.d || true").split()[0] == "active"
    )

    app.shell(first, "rm /etc/dislikes")
    roll_out(app, old, "9.9.8")
    assert state(app) == dict.fromkeys(app.hosts, runs("9.9.8"))

    app.shell(last, "echo 9.9.9 > /etc/dislikes")
    printed = roll_out(app, new, "9.9.9", check=False)
    assert f"The batch was rolled back because of {last}, see above." in printed, printed
    assert state(app) == {host: runs("9.9.9" if host == first else "9.9.8") for host in app.hosts}

    app.shell(last, "rm /etc/dislikes; touch /etc/lost")
    printed = roll_out(app, new, "9.9.9", check=False)
    assert "unreachable=1" in printed
    assert f"The batch was rolled back because of {last}, see above." in printed, printed
    others = {host: runs("9.9.9" if host == first else "9.9.8") for host in app.hosts if host != last}
    assert {host: each for host, each in state(app).items() if host != last} == others
    app.shell(last, "systemctl start ssh")
    roll_out(app, new, "9.9.9")
    assert state(app) == dict.fromkeys(app.hosts, runs("9.9.9"))

    app.play("rollback", jemalloc_services=["app"])
    assert state(app) == dict.fromkeys(app.hosts, runs("9.9.8"))
