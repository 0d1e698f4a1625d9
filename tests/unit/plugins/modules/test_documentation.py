# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of every module says what the module itself says, and its examples show each option."""

from __future__ import annotations

import copy
import importlib
import pathlib
import typing as t

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.preload.jemalloc.plugins.action import (
    jemalloc_cache,
    jemalloc_report,
    jemalloc_status,
    jemalloc_variables,
)
from ansible_collections.preload.jemalloc.plugins.doc_fragments import _library as library

#: The modules whose actions do all of their work.
ACTIONS = {
    "jemalloc_cache": jemalloc_cache,
    "jemalloc_report": jemalloc_report,
    "jemalloc_status": jemalloc_status,
    "jemalloc_variables": jemalloc_variables,
}
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


def module_of(name: str) -> t.Any:
    """Return a module."""
    return importlib.import_module(f"ansible_collections.preload.jemalloc.plugins.modules.{name}")


def options_of(name: str) -> t.Dict[str, t.Any]:
    """Return the options that a module documents itself, and those of the fragments that it extends."""
    documentation = yaml.safe_load(module_of(name).DOCUMENTATION)
    options = dict(documentation["options"])
    for fragment in documentation["extends_documentation_fragment"]:
        options.update(yaml.safe_load(FRAGMENTS[fragment])["options"] if fragment in FRAGMENTS else {})
    return options


def arguments_of(name: str) -> t.Dict[str, t.Any]:
    """Return the arguments of a module, or of the action that does all of its work; validation fills in defaults."""
    return copy.deepcopy((ACTIONS.get(name) or module_of(name)).ARGUMENTS)


def examples_of(name: str) -> t.List[t.Dict[str, t.Any]]:
    """Return the arguments of a module in each of its examples; other tasks may stand beside it there."""
    key = f"preload.jemalloc.{name}"
    return [task[key] or {} for task in yaml.safe_load(module_of(name).EXAMPLES) if key in task]


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_documented_as_they_are(name: str) -> None:
    assert described(options_of(name)) == declared(arguments_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_option_that_is_to_be_set_has_an_example(name: str) -> None:
    settable = {key for key, option in options_of(name).items() if "it is not to be set" not in str(option)}
    assert settable - {key for given in examples_of(name) for key in given} == set()


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_what_the_module_takes(name: str) -> None:
    for given in examples_of(name):
        templates = {key for key, value in given.items() if "{{" in str(value)}
        arguments = {key: value for key, value in arguments_of(name).items() if key not in templates}
        plain = {key: value for key, value in given.items() if key not in templates}
        assert templates <= set(arguments_of(name))
        assert ArgumentSpecValidator(arguments).validate(plain).error_messages == []
