# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables: no expression of role and playbooks reads one itself, and each that is read has a specification."""

from __future__ import annotations

import re
import typing as t

import pytest
import yaml

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _variables as variables
from tests import checkout
from tests.checks.test_structure import nodes, read
from tests.variables import PAGE, page

NAMES = [name for name in checkout.names() if re.match(r"(playbooks|roles)/.*\.ya?ml$|site\.yml$", name)]

#: Keywords whose value is an expression without braces.
CONDITIONS = {"when", "changed_when", "failed_when", "until", "that", "loop"}

#: Keywords that count before the first task of a play, each with what makes it right for a text too.
BEFORE_TASKS = {
    "hosts": r"\{\{ jemalloc_hosts \| default\(.*, true\) \}\}",  # a pattern is a text or a list
    "serial": r"\{\{ jemalloc_serial \| default\(.*, true\) \| preload\.jemalloc\.variable\('jemalloc_serial'\) \}\}",
}

_VARIABLE = re.compile(r"(?<![\w.'\"])jemalloc_\w+")
_EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)


def expressions(found: t.Any) -> t.Iterator[tuple[str, str]]:
    """Yield the expressions in what a YAML file holds, each with its keyword."""
    for mapping in [each for each in nodes(found) if isinstance(each, dict)]:
        for key, value in mapping.items():
            values = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]
            if key in CONDITIONS:
                yield from ((key, each) for each in values)
            yield from ((key, part) for each in values for part in _EXPRESSION.findall(each))


def raw(found: t.Any) -> list[str]:
    """Return the expressions that read a variable itself."""
    return [
        f"{key}: {text}"
        for key, text in expressions(found)
        if _VARIABLE.search(text) and not re.fullmatch(BEFORE_TASKS.get(key, "(?!)"), text)
    ]


def test_no_expression_reads_a_variable_itself() -> None:
    assert len(NAMES) > 15
    found = {name: sorted(set(raw(yaml.safe_load(read(name))))) for name in NAMES}
    assert {name: texts for name, texts in found.items() if texts} == {}


@pytest.mark.parametrize(
    "text",
    [
        "{when: jemalloc_restart}",
        "{when: [a, not jemalloc_restart | bool]}",
        "{ansible.builtin.debug: {msg: '{{ jemalloc_timeout }}'}}",
        "{vars: {x: '{% if jemalloc_enabled %}1{% endif %}'}}",
        "{hosts: '{{ jemalloc_hosts | default(all) }}'}",
        "{serial: '{{ jemalloc_serial | default([1], true) }}'}",
        "{delegate_to: '{{ jemalloc_hosts | default(1, true) }}'}",
    ],
)
def test_an_expression_that_does_is_found(text: str) -> None:
    assert len(set(raw(yaml.safe_load(text)))) == 1


def test_no_template_of_the_role_reads_a_variable() -> None:
    templates = [name for name in checkout.names() if name.startswith("roles/") and name.endswith(".j2")]
    assert templates
    assert [name for name in templates if any(_VARIABLE.search(part) for part in _EXPRESSION.findall(read(name)))] == []


def converted_names(name: str) -> set[str]:
    """Return the variables that a file reads of those that are converted."""
    return set(re.findall(r"(?:__jemalloc_given|\.variables)\.(\w+)", read(name)))


def test_what_is_read_has_a_specification() -> None:
    role = {name for path in NAMES if path.startswith("roles/") for name in converted_names(path)}
    known = {name[len(variables.PREFIX) :] for name in variables.ROLE}
    assert role - known == {"report_database"}  # of the entry point measure
    for path in [each for each in NAMES if each.startswith("playbooks/")]:
        playbook = path.split("/")[1].split(".")[0]
        own = {name[len(variables.PREFIX) :] for name in variables.specifications(playbook)}
        assert converted_names(path) - own == set(), path


def test_the_page_of_variables_is_made_of_the_specifications() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.variables"
