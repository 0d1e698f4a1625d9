# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of every module says of its arguments what the module itself says."""

from __future__ import annotations

import importlib
import pathlib
import typing as t

import pytest
import yaml

from ansible_collections.preload.jemalloc.plugins.action import jemalloc_report
from ansible_collections.preload.jemalloc.plugins.doc_fragments import _library as library

NAMES = sorted(path.stem for path in pathlib.Path(__file__).parents[4].glob("plugins/modules/*.py"))
FRAGMENTS = {
    "preload.jemalloc._library": library.ModuleDocFragment.DOCUMENTATION,
    "preload.jemalloc._library.cache": library.ModuleDocFragment.CACHE,
}


def described(options: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """Return arguments as documented options describe them."""
    keys = ("type", "default", "choices", "required", "elements")
    found: t.Dict[str, t.Any] = {}
    for name, option in options.items():
        found[name] = {key: option[key] for key in keys if key in option}
        if "suboptions" in option:
            found[name]["options"] = described(option["suboptions"])
    return found


def declared(arguments: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """Return arguments without what is no matter of documentation, such as that a digest is no secret."""
    found: t.Dict[str, t.Any] = {}
    for name, argument in arguments.items():
        found[name] = {key: value for key, value in argument.items() if key != "no_log"}
        if "options" in argument:
            found[name]["options"] = declared(argument["options"])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_documented_as_they_are(name: str) -> None:
    module = importlib.import_module(f"ansible_collections.preload.jemalloc.plugins.modules.{name}")
    documentation = yaml.safe_load(module.DOCUMENTATION)
    options = dict(documentation["options"])
    for fragment in documentation["extends_documentation_fragment"]:
        options.update(yaml.safe_load(FRAGMENTS[fragment])["options"] if fragment in FRAGMENTS else {})
    arguments = jemalloc_report.ARGUMENTS if name == "jemalloc_report" else module.ARGUMENTS
    assert described(options) == declared(arguments)
