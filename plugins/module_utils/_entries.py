"""Check what an entry of services wants for its service."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import re
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, about

# systemd.exec(5): what the name of a variable is made of.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

#: Variables that other keys of an entry set.
OURS = ("LD_PRELOAD", "MALLOC_CONF")

Entry = t.Dict[str, t.Any]


def checked(entry: Entry) -> Entry:
    """Return an entry with its settings converted; JemallocError names the service and the setting that is wrong."""
    found = dict(entry)
    if "version" in found:
        found["version"] = catalogue.check_number(str(found["version"]))
    if found.get("scope", "system") not in ("system", "user"):
        raise _error(found, f"scope is {found['scope']!r}; it is system or user")
    if "malloc_conf" in found:
        from ansible_collections.preload.jemalloc.plugins.module_utils import _malloc_conf as malloc_conf

        with about(f"services: {found['name']}"):
            found["malloc_conf"] = malloc_conf.options_of(found["malloc_conf"])
    if "environment" in found:
        found["environment"] = _environment(found)
    for key in ("must_exist", "force"):
        if not isinstance(found.get(key, True), bool):
            raise _error(found, f"{key} is {found[key]!r}; it is true or false")
    return found


def _environment(entry: Entry) -> t.Dict[str, str]:
    """Return the variables of an entry as texts."""
    if not isinstance(entry["environment"], dict):
        raise _error(entry, "environment is to have names and values, as {MALLOC_ARENA_MAX: 2}")
    found = {}
    for name, value in entry["environment"].items():
        if not _VARIABLE.fullmatch(str(name)):
            raise _error(entry, f"environment: {name!r} is no name of a variable; it has letters, digits and _")
        if name in OURS:
            raise _error(entry, f"environment: {name} is set by other means, such as malloc_conf; leave it out")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if isinstance(value, (dict, list)) or not text.isprintable():
            raise _error(entry, f"environment: the value of {name} is to be one line of text")
        found[name] = text
    return found


def _error(entry: Entry, what: str) -> JemallocError:
    return JemallocError(f"services: {entry['name']}: {what}.")
