"""Undo what a run wrote, under the lock and as far as it still stands; what another run wrote since stays."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import hashlib
import os
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _contents as contents
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._restarts import Service

#: The fingerprint of a file that is not there.
ABSENT = "absent"

#: How often a service is restarted when other runs change its drop-in each time.
_RESTARTS = 3


def is_link(path: str, root: str = "/") -> bool:
    """Whether a managed file is a link: those of the wrappers on the PATH are."""
    return places.is_command(path, root) and os.path.basename(path) in places.WRAPPERS


def text_at(path: str, root: str = "/") -> t.Optional[str]:
    """Return the text of a managed file, the target of a link; None where there is none."""
    return changes_util.standing(changes_util.Change(path, None, None, is_link(path, root)))


def managed(path: str, text: t.Optional[str], root: str = "/") -> t.Optional[str]:
    """Return the managed part of a file's text, None where there is none: others' lines never stand in a result."""
    if path == places.login_path(root):
        return contents.part(text)
    if path == places.list_path(root):
        return contents.line(text)
    if path == places.without_path(root):  # a copy of others' lines
        return None if text is None else ""
    return text


def diff(changes: t.Iterable[changes_util.Change]) -> t.List[t.Dict[str, str]]:
    """Return the managed part of changes as a diff shows it."""
    return [
        {
            "before_header": change.path,
            "after_header": change.path,
            "before": managed(change.path, change.before) or "",
            "after": managed(change.path, change.after) or "",
        }
        for change in changes
    ]


def fingerprint(path: str, text: t.Optional[str], root: str = "/") -> str:
    """Return the SHA-256 of the managed part of a file, or ABSENT."""
    text = managed(path, text, root)
    return ABSENT if text is None else hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def changed_files(written: t.Mapping[str, str]) -> t.List[str]:
    """Return the files that are not as a run left them; written has their fingerprints."""
    return [path for path, expected in written.items() if fingerprint(path, text_at(path)) != expected]


def superseded(service: Service, prefix: str) -> str:
    """Return what another run changed for a service since this run wrote its drop-in, empty where that stands.

    A service without a fingerprint comes from an older play, which does not know.
    """
    if service.written is None:
        return ""
    if changed_files({service.drop_in: service.written}):
        return f"{service.drop_in} was changed since by another run, or by hand"
    follows = f"{prefix}/current/" in (files.read_text(service.drop_in) or "")
    if follows and service.version not in (None, processes.ANY):
        link = f"{prefix}/current"
        current = os.readlink(link) if os.path.islink(link) else "nothing"
        if current != service.version:
            return f"{link} was switched to {current} since by another run"
    return ""


def roll_back(
    service: Service, prefix: str, release: t.Optional[str], gone: t.Collection[str]
) -> t.Tuple[str, t.Optional[str]]:
    """Give a service its drop-in from before; return why not, and the release that it is to run with.

    That is the drop-in from before this run, or the one of now with the release from before, or none. gone has the
    drop-ins that this run rolled back already, with another instance of the same template.
    """
    path = service.drop_in
    with changes_util.locked():
        why = "" if path in gone else superseded(service, prefix)
        text = files.read_text(path)
        if why or text is None:
            return why, release
        pinned = text.replace(f"{prefix}/current/", f"{prefix}/{release}/") if release else None
        if service.before is not None and service.before != text:
            pinned = service.before
            release = release or (service.version if f"{prefix}/" in pinned else None)
        changes_util.apply([changes_util.Change(path, text, pinned)])
    return "", release


def follow(restart: t.Callable[[], str], service: Service) -> str:
    """Restart a service by the drop-in that stands, whichever run wrote it; return how that went."""
    why = ""
    for _attempt in range(_RESTARTS):
        text = files.read_text(service.drop_in)
        why = restart()
        if files.read_text(service.drop_in) == text:
            break
    return f"left as it is; {why}" if why else "left as it is, and restarted with that"
