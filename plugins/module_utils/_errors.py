"""Messages: the one exception for what an operator has to mend, errors of the system, and URLs without passwords."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import errno
import os
import re
import typing as t

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

# The user name and password of a URL: up to the last @ before its path, or a password that holds a slash itself.
_CREDENTIALS = re.compile(r"(?<=://)(?:[^\s/?#]*@|[^\s/?#:@]*:(?![0-9]*(?:[/?#\s]|\Z))[^\s@]*@)")

# The arguments of modules that can be URLs, which are shown with the result.
_URLS = ("origins", "bundle", "latest_url", "cache_mirror")

# What only this host can mend: its disks, its memory, and the rights of this process.
_OF_HOST = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM),
    *(errno.ENOMEM, errno.EMFILE, errno.ENFILE),
)


class JemallocError(Exception):
    """What was wrong, where, and what to do, in one sentence; a module hands it to fail_json()."""

    def __str__(self) -> str:
        return shown(super().__str__())


@contextlib.contextmanager
def about(what: str) -> t.Iterator[None]:
    """Let the errors of the block begin with what they are about."""
    try:
        yield
    except JemallocError as error:
        raise JemallocError(f"{what}: {error}") from error


def shown(text: str) -> str:
    """Return a text whose URLs hold no user name and no password."""
    return _CREDENTIALS.sub("", text)


def hide_credentials(module: AnsibleModule) -> None:
    """Keep the user names and passwords of URLs in a module's arguments out of whatever Ansible shows of these."""
    named = (module.params.get(name) for name in _URLS)
    urls = [each for value in named for each in (value if isinstance(value, list) else [value or ""])]
    module.no_log_values.update(
        found.rstrip("@") for url in urls for found in _CREDENTIALS.findall(url) if found != "@"
    )


def is_of_host(error: OSError) -> bool:
    """Whether an error comes from this host's own disk, memory or rights, so that no other download source helps."""
    return error.errno in _OF_HOST


def of_system(error: OSError, place: str, so_far: str = "") -> str:
    """Return the sentence for an error of the system: its path, or else the place, what was wrong, and what to do.

    so_far says how the host is left, where the user's rights are not to blame.
    """
    lacks_rights = isinstance(error, PermissionError) and os.geteuid() != 0
    remedies = ["make room there"] if error.errno in (errno.ENOSPC, errno.EDQUOT) else []
    rest = "run this as root (become: true)" if lacks_rights else "; ".join([so_far, *remedies] if so_far else remedies)
    return f"{error.filename2 or error.filename or place}: {error.strerror}{f'; {rest}' if rest else ''}."
