"""Carrying out a plan for the scopes: preflight, all files or none, systemd, and the watchdog at last."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _applicability as applicability
from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _elf as elf
from ansible_collections.preload.jemalloc.plugins.module_utils import _labels as labels
from ansible_collections.preload.jemalloc.plugins.module_utils import _managers as managers
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _preload as preload
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils import _watchdog as watchdog
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.module_utils._preflight import preflight

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host


def judge(host: Host, units: t.Iterable[systemd.Unit], prefix: str) -> None:
    """Refuse services that cannot preload, and say what is to be known of the others."""
    # What the library is for is what this host is: its own Python says it as well, where nothing is installed yet.
    library = elf.read(os.path.realpath("/proc/self/exe"))
    refused: t.List[str] = []
    noted: t.List[str] = []
    for unit in units:
        verdict = applicability.judge(unit, library, prefix)
        noted += [f"{unit.name}: {what}" for what in verdict.noted]
        (noted if unit.wanted.force else refused).extend(f"{unit.name}: {why}" for why in verdict.refused)
    if refused:
        raise JemallocError(
            f"services: {'; '.join(refused)}; take it off the list, or set force: true for it to try all the same."
        )
    for words in noted:
        host.warn(f"{words}.")


def run_libraries(host: Host, scopes: preload.Scopes, prefix: str) -> None:
    """Run the libraries that are going to be preloaded, before anything refers to them."""
    for version in scopes.releases if scopes.host or scopes.units else []:
        name = "current" if version == scopes.current else version
        preflight(host, store.library(prefix, name), prefix, everybody=bool(scopes.host))


def probe(host: Host, scopes: preload.Scopes, changes: t.Sequence[changes_util.Change], prefix: str) -> None:
    """Ask the installed libraries about each MALLOC_CONF that is new, that of a service or of the whole host."""
    paths = {change.path for change in changes if change.after is not None}
    of_host = scopes.conf and paths & {places.manager_path(), places.login_path()}
    asked = [("malloc_conf", "", scopes.current, store.library(prefix), scopes.conf)] if of_host else []
    for unit in scopes.units:
        if unit.wanted.malloc_conf and places.drop_in_path(unit.name, unit.user) in paths:
            from ansible_collections.preload.jemalloc.plugins.module_utils import _malloc_conf as malloc_conf

            conf = malloc_conf.of_service(unit, scopes.release(unit), scopes.releases)
            library = store.library(prefix, unit.wanted.version or "current")
            asked.append((f"services: {unit.name}", "its malloc_conf, ", scopes.release(unit), library, conf))
    answers: t.Dict[t.Tuple[str, str], str] = {}
    for where, what, release, library, conf in asked:
        from ansible_collections.preload.jemalloc.plugins.module_utils import _probe as probe_util

        if (library, conf) not in answers:
            answers[library, conf] = probe_util.complaint(host.run, library, conf)
        if answers[library, conf]:
            raise JemallocError(
                f"{where}: jemalloc {release} on this host does not take {what}{conf}: {answers[library, conf]}; "
                "nothing was changed."
            )


def carry_out(host: Host, changes: t.Sequence[changes_util.Change], prefix: str, lock: changes_util.Lock) -> None:
    """Make all changes, or none: the last ones of which are those that only the watchdog makes."""
    plain = [change for change in changes if not preload.is_guarded(change)]
    try:
        with changes_util.applied(plain):
            labels.restore(host.run, [change.path for change in plain if change.after is not None])
            reason = reload_systemd(host, plain)
            if reason:
                raise JemallocError(f"{reason}; all files are as before.")
            for change in changes:
                if preload.is_guarded(change):
                    watch(change, prefix, lock)
                    labels.restore(host.run, [change.path])
    except (JemallocError, OSError):
        reload_systemd(host, plain)
        raise


def watch(change: changes_util.Change, prefix: str, lock: changes_util.Lock) -> None:
    """Make a change by the watchdog."""
    reason = watchdog.activate(change, store.library(prefix), systemd.is_running(), lock)
    if reason.endswith(watchdog.AS_BEFORE):
        raise JemallocError(reason)
    if reason:
        raise JemallocError(
            f"{change.path}: new processes do not start with the library ({reason}); all files are as before."
        )


def reload_systemd(host: Host, changes: t.Optional[t.Sequence[changes_util.Change]], users: bool = True) -> str:
    """Let systemd read its files again when one of them changed, None: in any case; return why it could not.

    Users' own systemd read those of users, unless no file can be one of theirs. One that does not answer is left alone.
    """
    paths = [change.path for change in changes or () if "/systemd/" in change.path]
    if not systemd.is_running() or (changes is not None and not paths):
        return ""
    status, output = host.run(["systemctl", "daemon-reload"])
    if status:
        return f"systemctl daemon-reload ended with {status}: {output.strip()}"
    if users and (changes is None or any(places.is_user_drop_in(path) for path in paths)):
        run = managers.asking_once(host.run, host.warn)
        for uid in managers.user_managers():
            run([*managers.command(uid), "daemon-reload"], None, None)
    return ""
