# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories of the controller that nobody but their owner can write to."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import pwd
import shlex
import stat

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError


def make(directory: str) -> None:
    """Make a directory, and its missing parents, for its owner alone, regardless of the umask.

    An existing one stays as it is.
    """
    parent = os.path.dirname(directory)
    if not os.path.lexists(parent):
        make(parent)
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        return
    os.chmod(directory, 0o700)


def check(directory: str, option: str) -> None:
    """Refuse a directory that another user owns or can write to; root owns the read-only ones that users share."""
    status = os.stat(directory)
    user, quoted = os.geteuid(), shlex.quote(directory)
    if status.st_uid not in (0, user):
        raise JemallocError(
            f"{option}: {directory} belongs to the user {_name(status.st_uid)}, who could change what runs as root on "
            f"your hosts; if you trust its content, run chown -R {_name(user)} {quoted}, or name another directory."
        )
    if stat.S_IMODE(status.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        raise JemallocError(
            f"{option}: {directory} can be written by its group or by others, who could change what runs as root on "
            f"your hosts; if you trust its content, run chmod -R go-w {quoted}, or name another directory."
        )


def _name(uid: int) -> str:
    """Return the name of a user, or its number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
