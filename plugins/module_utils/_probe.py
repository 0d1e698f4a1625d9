"""Does the installed library take this MALLOC_CONF? It is asked on the host, before a service gets it."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _preflight as preflight
from ansible_collections.preload.jemalloc.plugins.module_utils._host import with_errors

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run

# Begins every line by which jemalloc complains.
_COMPLAINT = "<jemalloc>: "

# What prints or writes files is asked for with another value: that its own is right the check of it has said.
_QUIET = {
    "confirm_conf": "false",
    "lg_prof_interval": "-1",
    "prof_final": "false",
    "prof_gdump": "false",
    "prof_leak": "false",
    "prof_leak_error": "false",
    "prof_log": "false",
    "stats_interval": "-1",
    "stats_print": "false",
}


def quiet(conf: str) -> str:
    """Return a MALLOC_CONF that is read like the given one, but prints and writes nothing of what that asks for."""
    pairs = [item.split(":", 1) for item in conf.split(",") if item]
    found = [f"{name}:{_QUIET.get(name, value)}" for name, value in pairs]
    # With prof alone 3.6 leaves a profile behind.
    return ",".join([*found, "prof_final:false"] if "prof" in dict(pairs) else found)


def complaint(run: Run, library: str, conf: str) -> str:
    """Return what the library says of a MALLOC_CONF when a program starts with both; nothing when all is right."""
    variables = [f"LD_PRELOAD={library}", f"MALLOC_CONF={quiet(conf)}"]
    command = ["timeout", "-k", "5", str(preflight.TIME_LIMIT), "env", *variables, "/bin/true"]
    status, output = run(with_errors(command), "/", None)
    said = dict.fromkeys(line for line in output.splitlines() if line.startswith(_COMPLAINT))
    if said:
        return preflight.words("\n".join(said))
    return preflight.failure(status, output) if status else ""
