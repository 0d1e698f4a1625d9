"""The program that a timer runs on a host, without Ansible: gathers, and replaces the file that Prometheus reads."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import argparse
import sys
import time
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _info as info
from ansible_collections.preload.jemalloc.plugins.module_utils import _metrics as metrics
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _untrusted as untrusted
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

#: The service that runs this; it is no part of the host that it measures, and new at each run.
SERVICE = "preload-jemalloc-metrics.service"

#: Its name; the textfile collector reads whatever ends in .prom.
FILE = "jemalloc.prom"

_GATHERED = ("installations", "processes")


def collect(prefix: str, directory: str) -> None:
    """Replace the file with the metrics of this moment, in one step.

    Raises JemallocError for a prefix that cannot hold a store and a directory that another user leads elsewhere, and
    OSError.
    """
    begin = time.monotonic()
    result = info.gather(store.check_prefix(prefix), _GATHERED)
    result["units"] = [unit for unit in result["units"] if (unit["name"], unit["scope"]) != (SERVICE, "system")]
    text = metrics.render(result, time.monotonic() - begin)
    with untrusted.Directory(directory) as metrics_directory:
        metrics_directory.replace(FILE, text.encode("utf-8", "replace"))


def main(arguments: t.Optional[t.Sequence[str]] = None) -> int:
    """Run the program; return its exit status, 1 with a sentence when it failed and the file is as it was."""
    parser = argparse.ArgumentParser(prog="metrics.pyz", description=f"Writes {FILE} for Prometheus.")
    parser.add_argument("--prefix", required=True, help="directory that holds the installations")
    parser.add_argument("--directory", required=True, help="directory that the textfile collector reads")
    options = parser.parse_args(arguments)
    try:
        collect(options.prefix, options.directory)
    except JemallocError as error:
        reason = str(error)
    except OSError as error:
        reason = f"{error.filename or options.directory}: {error.strerror}; {FILE} is as it was."
    else:
        return 0
    sys.stderr.write(f"{reason}\n")
    return 1
