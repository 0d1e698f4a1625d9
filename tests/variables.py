# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the page docs/variables.md from the specifications: python -m tests.variables."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _variables as variables
from tests.checkout import ROOT

PAGE = ROOT / "docs" / "variables.md"

#: Playbooks that call the role, which have all of its variables.
ROLE = "role, site, rollout, rollback"

BEGINNING = """# Variables

<!-- Written from the specifications by python -m tests.variables; changes made here are lost. -->

A scope whose variable is defined is made exactly that; one whose variable is not defined stays as the host has it. The
scopes are `jemalloc_enabled`, `jemalloc_exclude`, `jemalloc_services`, `jemalloc_containers` and `jemalloc_metrics`.
`[]` and `false` are values: they disable the scope.

Each value is converted once, as its type says, wherever it comes from. `-e jemalloc_restart=false`, an inventory in
INI, YAML, a template and a survey of AWX mean the same. A list may be a text with commas or lines, or JSON; a mapping
may be JSON. An empty text and `null` count as not defined.

A variable whose name begins with `jemalloc_` and that is not in this table is an error before anything changes, with
the nearest name. Results that a play registers are left alone.

"""

OLD = """
## Names from before

These names still work in their playbook, with a deprecation warning:

"""


def markup(text: str) -> str:
    """Return a description of Ansible's documentation in Markdown."""
    text = re.sub(r"M\(([^)]*)\)", r"`\1`", text)
    text = re.sub(r"O\([\w.]*#module:([^)]*)\)", r"`\1`", text)
    return re.sub(r"[COVE]\(((?:[^()]|\([^)]*\))*)\)", r"`\1`", text).replace("|", "\\|")


def meaning(option: t.Mapping[str, t.Any]) -> str:
    """Return what an option is for, in the first paragraph of its description."""
    found = option["description"]
    return markup(found if isinstance(found, str) else found[0])


def value(option: t.Mapping[str, t.Any]) -> str:
    """Return the default of an option."""
    if "default" not in option:
        return "required" if option.get("required") else ""
    default = option["default"]
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def readers() -> dict[str, set[str]]:
    """Return the playbooks that do not call the role and read a variable of it, by the variable."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        for name in re.findall(r"__jemalloc_given\.(\w+)", path.read_text(encoding="utf-8")):
            found.setdefault(f"{variables.PREFIX}{name}", set()).add(path.stem)
    return found


def row(name: str, option: t.Mapping[str, t.Any], read: t.Collection[str]) -> str:
    """Return the line of a variable."""
    used = ", ".join([ROLE, *sorted(read)]) if name in variables.ROLE else ", ".join(option["playbooks"])
    kind = option["type"] + (f" of {option['elements']}" if option.get("elements", "raw") != "raw" else "")
    return f"| `{name}` | {kind} | {value(option)} | {used} | {meaning(option)} |\n"


def page() -> str:
    """Return the whole page."""
    read = readers()
    rows = [row(name, variables.KNOWN[name], read.get(name, ())) for name in sorted(variables.KNOWN)]
    old = [(alias, name) for name, each in variables.PLAYBOOKS.items() for alias in each.get("aliases", ())]
    table = "| variable | type | default | read by | meaning |\n|---|---|---|---|---|\n"
    aliases = "".join(f"| `{alias}` | `{name}` |\n" for alias, name in old)
    return f"{BEGINNING}{table}{''.join(rows)}{OLD}| name from before | variable |\n|---|---|\n{aliases}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
