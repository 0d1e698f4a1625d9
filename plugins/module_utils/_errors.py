"""The one exception that every part raises for what an operator has to mend, and sentences for errors of the system."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os


class JemallocError(Exception):
    """What was wrong, where, and what to do, in one sentence; a module hands it to fail_json()."""


def of_system(error: OSError, place: str, so_far: str = "") -> str:
    """Return the sentence for an error of the system: its path, or else the place, what was wrong, and what to do.

    so_far says how the host is left, where the user's rights are not to blame.
    """
    lacks_rights = isinstance(error, PermissionError) and os.geteuid() != 0
    rest = "run this as root (become: true)" if lacks_rights else so_far
    return f"{error.filename2 or error.filename or place}: {error.strerror}{f'; {rest}' if rest else ''}."
