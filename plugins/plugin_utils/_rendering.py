"""Renders the role's Jinja2 templates on the controller, for what only a host can fill in."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import typing as t

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from ansible_collections.preload.jemalloc.plugins.module_utils import _contents as contents

_TEMPLATES = os.path.join(os.path.dirname(__file__), "..", "..", "roles", "jemalloc", "templates")


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(_TEMPLATES),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    autoescape=select_autoescape(),  # for HTML; these are none
)

# Compiled before Ansible forks for each host, so once for a fleet.
_COMPILED = {
    "service": _ENVIRONMENT.get_template("service.conf.j2"),
    "manager": _ENVIRONMENT.get_template("system.conf.j2"),
    "environment": _ENVIRONMENT.get_template("environment.j2"),
    "profile": _ENVIRONMENT.get_template("profile.sh.j2"),
}


def render(prefix: str) -> t.Dict[str, str]:
    """Return the texts with placeholders for what only the host knows."""
    names = {"enabled": contents.ENABLED, "ld_preload": contents.LD_PRELOAD, "settings": contents.SETTINGS}
    variables = {"prefix": prefix, **names}
    return {key: template.render(variables) for key, template in _COMPILED.items()}


def with_texts(arguments: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """Return the arguments of jemalloc_preload with the rendered templates."""
    return {**arguments, "texts": render(str(arguments.get("prefix") or "/opt/jemalloc").rstrip("/"))}
