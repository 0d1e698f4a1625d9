"""Arguments that modules share: where a library comes from, how it is built, where it is kept, and who preloads it."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import typing as t

#: How a library is built unless something else is asked for; a receipt holds all of them.
OPTIONS: t.Dict[str, t.Any] = {"cxx": False, "prof": False, "lg_page": None}

#: Where the controller keeps what it has of sources and bundles.
CACHE: t.Dict[str, t.Dict[str, t.Any]] = {
    "cache": {"type": "path", "default": "~/.cache/preload.jemalloc"},
    "cache_size": {"type": "int", "default": 1024},
}

#: Whose builds a host takes from there.
TRUST: t.Dict[str, t.Dict[str, t.Any]] = {
    "build_host": {"type": "str"},
    "build_shared": {"type": "bool", "default": True},
}

#: Where a library comes from and how it is built; plugins/doc_fragments/_library.py describes all of them.
LIBRARY: t.Dict[str, t.Dict[str, t.Any]] = {
    **CACHE,
    **TRUST,
    "bundle": {"type": "str"},
    "bundle_checksum": {"type": "str", "no_log": False},
    "origins": {"type": "list", "elements": "str", "default": []},
    "checksum": {"type": "str"},
    "ca_path": {"type": "path"},
    "options": {
        "type": "dict",
        "default": {},
        "options": {
            "cxx": {"type": "bool", "default": False},
            "prof": {"type": "bool", "default": False},
            "lg_page": {"type": "int", "choices": [12, 13, 14, 16]},
        },
    },
    "cache_mirror": {"type": "str"},
    "cache_mirror_checksum": {"type": "str", "no_log": False},
    "pushed": {
        "type": "dict",
        "options": {
            "path": {"type": "path"},
            "kind": {"type": "str", "choices": ["source", "bundle"]},
            "sha256": {"type": "str"},
            "commit": {"type": "str"},
            "origin": {"type": "str"},
            "builder": {"type": "str"},
        },
    },
}

#: Those of them that only the controller reads.
CONTROLLER = ("cache", "cache_size", "cache_mirror", "cache_mirror_checksum", "build_host", "build_shared")

#: Who preloads it; plugins/modules/jemalloc_preload.py describes all of them.
SCOPES: t.Dict[str, t.Dict[str, t.Any]] = {
    "host": {"type": "bool"},
    "via": {"type": "str", "choices": ["environment", "ld_so_preload"], "default": "environment"},
    "malloc_conf": {"type": "raw"},
    "services": {"type": "list", "elements": "raw"},
    "exclude": {"type": "list", "elements": "str"},
    "purge": {"type": "bool", "default": True},
    "state": {"type": "str", "choices": ["present", "absent", "restored"], "default": "present"},
    "restore": {"type": "dict", "default": {}},
    "written": {"type": "dict", "default": {}},
    "prefix": {"type": "path", "default": "/opt/jemalloc"},
    "version": {"type": "str"},
    "releases": {"type": "list", "elements": "str", "default": []},
    "rebuilt": {"type": "str"},
    "texts": {
        "type": "dict",
        "options": {
            "service": {"type": "str"},
            "manager": {"type": "str"},
            "environment": {"type": "str"},
            "profile": {"type": "str"},
        },
    },
}
