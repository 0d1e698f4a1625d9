# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units that cannot preload as they are configured: refused with the reason and the remedy before anything changes."""

from __future__ import annotations

import pytest

from tests.units.lab import Units

SLEEP = "ExecStart=/bin/sleep infinity"
LIBRARY = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"

#: The lines of a service, and what is said of it.
REFUSED = {
    "sandboxed": (f"{SLEEP}\nNoExecPaths=/\nExecPaths=/usr /lib /lib64 /bin", "add ExecPaths=/opt/jemalloc"),
    "bound": (
        f"{SLEEP}\nBindPaths=/srv/opt:/opt",
        "/srv/opt is bound over /opt there; add BindReadOnlyPaths=",
    ),
    "unset": (f"{SLEEP}\nUnsetEnvironment=LD_PRELOAD", "UnsetEnvironment=LD_PRELOAD takes the library away from it"),
    "own": (f"ExecStart=/usr/bin/env LD_PRELOAD={LIBRARY} /bin/sleep infinity", f"sets LD_PRELOAD={LIBRARY} itself"),
    "late": (SLEEP, "late.service.d/zzz-local.conf comes after our drop-in and changes Environment="),
    "lasting": (f"{SLEEP}\n[Unit]\nRefuseManualStop=yes", "it runs, and RefuseManualStop=yes lets nobody restart it"),
}


@pytest.fixture
def refused(units: Units) -> Units:
    """The services, which run."""
    units.host.shell("mkdir -p /srv/opt")
    units.write("late.service.d/zzz-local.conf", "[Service]\nEnvironment=\n", start=False)
    for name, (lines, _reason) in REFUSED.items():
        units.write(f"{name}.service", f"[Service]\n{lines}\n")
    return units


def test_what_cannot_preload_is_refused_before(refused: Units) -> None:
    before = refused.pids(*REFUSED)
    for check in (True, False):
        done = refused.enable(*REFUSED, check=check)
        assert (done.failed, done.changed) == (True, 0), done.output
        for name, (_lines, reason) in REFUSED.items():
            assert f"{name}.service: " in done.text
            assert reason in done.text, done.output
    assert refused.pids(*REFUSED) == before
    assert refused.state(*REFUSED) == dict.fromkeys(REFUSED, "active")


def test_with_the_remedy_it_is_verified(refused: Units) -> None:
    refused.write("sandboxed.service.d/own.conf", "[Service]\nExecPaths=/opt/jemalloc\n", start=False)
    refused.write("bound.service.d/own.conf", "[Service]\nBindReadOnlyPaths=/opt/jemalloc\n", start=False)
    done = refused.enable("sandboxed", "bound")
    assert not done.failed, done.output
    assert refused.state("sandboxed", "bound") == {"sandboxed": "active 9.9.9", "bound": "active 9.9.9"}
