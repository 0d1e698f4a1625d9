# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The house: small files and functions, imports that run one way, and a reason beside whatever is switched off."""

from __future__ import annotations

import ast
import re
import typing as t
from pathlib import Path

import pytest
import yaml

from tests import checkout

ROOT = checkout.ROOT
NAMES = checkout.names()
PYTHON = [name for name in NAMES if name.endswith(".py")]
PLUGINS = [name for name in PYTHON if name.startswith("plugins/")]
OUR_YAML = [name for name in NAMES if re.match(r"(playbooks|roles|molecule)/.*\.ya?ml$|site\.yml$", name)]

FILE_LINES, FUNCTION_LINES = 400, 40
COLLECTION = "ansible_collections.preload.jemalloc."

#: The documentation of a module, which is no code.
DOCUMENTATION = {"DOCUMENTATION", "EXAMPLES", "RETURN"}

#: What a kind of plugin may import of ours: arrows run one way, down to module_utils.
ARROWS: dict[str, set[str]] = {
    "doc_fragments": set(),
    "module_utils": {"module_utils"},
    "modules": {"module_utils"},
    "plugin_utils": {"module_utils", "plugin_utils"},
    "action": {"module_utils", "plugin_utils", "action"},
    "filter": {"module_utils", "plugin_utils"},
}

#: What switches a finding off in one place, and how it looks with a reason.
SWITCHED_OFF = {
    "# noqa": r"# noqa: [A-Z0-9, ]+ # \w",
    "# type: ignore": r"# type: ignore\[[a-z, -]+\]  ?# \w",
    "# pylint: disable": r"# pylint: disable=[a-z, -]+ # \w",
    "# pragma: no cover": r"# pragma: no cover # \w",
    "# shellcheck disable": r"# shellcheck disable=[A-Z0-9,]+ # \w",
}

#: What role and playbooks are not to have: own facts, failures that are passed over, commands in place of modules.
NOT_IN_ROLE = {"set_fact", "ignore_errors", "command", "shell", "raw", "script"}

Function = t.Union[ast.FunctionDef, ast.AsyncFunctionDef]


def read(name: str) -> str:
    """Return the text of a file."""
    return (ROOT / name).read_text(encoding="utf-8")


def length(node: ast.stmt) -> int:
    """Return the lines of a statement."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def is_documentation(node: ast.stmt) -> bool:
    """Whether a statement is part of what ansible-doc shows."""
    return isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id in DOCUMENTATION for target in node.targets
    )


def code_lines(name: str) -> int:
    """Return how long a file is without documentation."""
    text = read(name)
    documentation = [node for node in ast.parse(text).body if is_documentation(node)] if name in PYTHON else []
    return len(text.splitlines()) - sum(map(length, documentation))


def function_lines(function: Function) -> int:
    """Return how long a function is without its docstring."""
    first = function.body[0]
    docstring = length(first) if ast.get_docstring(function, clean=False) is not None else 0
    return length(function) - docstring


def imports(name: str) -> set[str]:
    """Return the plugins that a plugin imports, as in module_utils/_store, those for types only left out."""
    found: set[str] = set()
    for node in ast.walk(without_types(ast.parse(read(name)))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{COLLECTION}plugins."):
            where = str(node.module)[len(f"{COLLECTION}plugins.") :].replace(".", "/")
            found |= {where} if "/" in where else {f"{where}/{alias.name}" for alias in node.names}
    return found


def without_types(tree: ast.Module) -> ast.Module:
    """Return a module without what only a type checker reads."""
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    ]
    return tree


GRAPH = {name[len("plugins/") : -len(".py")]: imports(name) for name in PLUGINS}


def test_files_are_short() -> None:
    suffixes = (".py", ".js", ".c", ".j2", ".yml")
    code = [name for name in NAMES if name.endswith(suffixes) and ".min." not in name]
    assert {name: lines for name in code if (lines := code_lines(name)) > FILE_LINES and "changelogs" not in name} == {}


def test_functions_are_short() -> None:
    functions = [
        (f"{name}:{node.lineno} {node.name}", function_lines(node))
        for name in PYTHON
        for node in ast.walk(ast.parse(read(name)))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    assert {where: lines for where, lines in functions if lines > FUNCTION_LINES} == {}


def test_no_plugin_imports_itself_by_others() -> None:
    left = {name: imported & set(GRAPH) for name, imported in GRAPH.items()}
    while ends := {name for name, imported in left.items() if not imported}:
        left = {name: imported - ends for name, imported in left.items() if name not in ends}
    assert left == {}


@pytest.mark.parametrize("kind", ARROWS)
def test_imports_run_one_way(kind: str) -> None:
    ours = {name: imported for name, imported in GRAPH.items() if name.startswith(f"{kind}/")}
    assert ours
    kinds = {name: {each.partition("/")[0] for each in imported} for name, imported in ours.items()}
    assert {name: wrong for name, found in kinds.items() if (wrong := found - ARROWS[kind])} == {}


def test_every_kind_of_plugin_has_its_rule() -> None:
    assert {name.partition("/")[0] for name in GRAPH} == set(ARROWS)


def test_module_utils_get_by_without_ansible_module() -> None:
    utils = [name for name in PLUGINS if name.startswith("plugins/module_utils/")]
    assert [name for name in utils if "ansible.module_utils.basic" in imported_modules(name)] == []


def imported_modules(name: str) -> t.Iterator[str]:
    """Return the names of all modules that a file imports at run time."""
    for node in ast.walk(without_types(ast.parse(read(name)))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def nodes(found: t.Any) -> t.Iterator[t.Any]:
    """Return every mapping, list and scalar in what a YAML file holds."""
    yield found
    if isinstance(found, (dict, list)):
        for value in found.values() if isinstance(found, dict) else found:
            yield from nodes(value)


def test_playbooks_and_role_stay_in_their_rooms() -> None:
    names = [name for name in OUR_YAML if name.startswith(("playbooks/", "roles/"))]
    assert names
    found = {name: [each for each in nodes(yaml.safe_load(read(name))) if isinstance(each, str)] for name in names}
    assert {name: paths for name in names if (paths := [each for each in found[name] if "../" in each])} == {}


def test_role_hides_no_failure_and_leaves_work_to_modules() -> None:
    names = [name for name in OUR_YAML if name.startswith(("playbooks/", "roles/"))]
    mappings = {name: [each for each in nodes(yaml.safe_load(read(name))) if isinstance(each, dict)] for name in names}
    used = {name: {key.rpartition(".")[2] for each in mappings[name] for key in each} for name in names}
    assert {name: found for name in names if (found := used[name] & NOT_IN_ROLE)} == {}


def test_linters_skip_nothing() -> None:
    settings = yaml.safe_load(read(".ansible-lint"))
    assert settings["profile"] == "production"
    assert {"skip_list", "warn_list", "skip_action_validation", "mock_modules", "mock_roles"} & set(settings) == set()
    assert [name for name in NAMES if name.startswith("tests/sanity/") or ".ansible-lint-ignore" in name] == []
    assert [name for name in NAMES if name.endswith((".yml", ".yaml")) and "noqa" in read(name)] == []


@pytest.mark.parametrize("mark", SWITCHED_OFF)
def test_what_is_switched_off_has_a_reason(mark: str) -> None:
    found = [
        f"{name}:{number} {line.strip()}"
        for name in NAMES
        if name != str(Path(__file__).relative_to(ROOT)) and not name.endswith((".png", ".json"))
        for number, line in enumerate(read(name).splitlines(), 1)
        if mark in line and not re.search(SWITCHED_OFF[mark], line)
    ]
    assert found == []


def test_test_files_have_names_of_their_own() -> None:
    names = [Path(name).name for name in PYTHON if Path(name).name.startswith("test_")]
    assert {name for name in names if names.count(name) > 1} == set()  # pytest imports them without their directories


def test_tests_that_are_left_out_have_a_reason() -> None:
    names = {"pytest.skip", "pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail", "pytest.xfail"}
    names.add("pytest.importorskip")
    found = [
        f"{name}:{node.lineno}"
        for name in PYTHON
        for node in ast.walk(ast.parse(read(name)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names and not has_reason(node)
    ]
    assert found == []


def has_reason(call: ast.Call) -> bool:
    """Whether a call that leaves a test out says why."""
    keywords = [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
    first = call.args[:1] if ast.unparse(call.func) in ("pytest.skip", "pytest.xfail") else []
    return any(isinstance(value, (ast.Constant, ast.JoinedStr)) for value in [*keywords, *first])
