"""How systemctl asks the host's systemd, and those of users, which may never answer."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import re
import stat
import typing as t

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run

#: Seconds that a user's systemd has for an answer.
USER_TIMEOUT = 5

# What a user's systemd is asked with unless more time is granted; its user may stop what asks it, but not past a kill.
_BOUND = ("timeout", "--kill-after=1", f"{USER_TIMEOUT}s")
_OF_USER = re.compile(r"timeout --kill-after=1 \S+ setpriv --reuid=([0-9]+) ")

#: How timeout(1) ends when its command did not, by itself or only by a kill.
TIMED_OUT = (124, 137)


def user_managers(root: str = "/") -> t.List[int]:
    """Return the users (by number) whose own systemd runs: its socket belongs to the user whose directory it is in."""
    found = []
    for path in glob.glob(os.path.join(root, "run/user/*/systemd/private")):
        name = path.split("/")[-3]
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            if name.isdigit() and stat.S_ISSOCK(status.st_mode) and status.st_uid == int(name):
                found.append(int(name))
    return sorted(found)


def command(uid: t.Optional[int], timeout: t.Optional[int] = None) -> t.List[str]:
    """Return systemctl for the host's systemd, or for a user's by a way that every version knows; timeout in seconds.

    A user's systemd always has one: it is a process of that user, who may stop it or answer in its place.
    """
    if uid is None:
        return ["systemctl"] if timeout is None else ["timeout", str(timeout), "systemctl"]
    try:
        gid = pwd.getpwuid(uid).pw_gid
    except KeyError:
        gid = uid
    return [
        *(_BOUND if timeout is None else (*_BOUND[:-1], str(timeout))),
        "setpriv",
        f"--reuid={uid}",
        f"--regid={gid}",
        "--clear-groups",
        "env",
        f"XDG_RUNTIME_DIR=/run/user/{uid}",
        "systemctl",
        "--user",
    ]


def asking_once(run: Run, warn: t.Callable[[str], None]) -> Run:
    """Return what runs commands, but asks a user's systemd that did not answer in time no second time; warn says so."""
    silent: t.Set[str] = set()

    def ask(
        arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
    ) -> t.Tuple[int, str]:
        match = _OF_USER.match(" ".join(arguments))
        user = match.group(1) if match else ""
        if user in silent:
            return TIMED_OUT[0], ""
        status, output = run(arguments, directory, data)
        if user and status in TIMED_OUT and tuple(arguments[: len(_BOUND)]) == _BOUND:
            silent.add(user)
            warn(
                f"The systemd of user {user} does not answer within {USER_TIMEOUT} s, so it is left alone, and its "
                f"services run as they did. End it with 'systemctl stop user@{user}.service', and run this again."
            )
        return status, output

    return ask


def refusal(run: Run, verb: str, unit: str, uid: t.Optional[int], timeout: int) -> t.Optional[str]:
    """Let systemd start or restart a unit; return why it did not, nothing where it did; None: not in this time."""
    status, output = run([*command(uid, timeout), verb, "--", unit], None, None)
    if status in TIMED_OUT:
        return None
    return (output.strip().splitlines() or [str(status)])[0] if status else ""


def answers(run: Run, uid: int) -> bool:
    """Whether the systemd of a user answers in time."""
    return run([*command(uid), "show", "--property=Version"], None, None)[0] not in TIMED_OUT
