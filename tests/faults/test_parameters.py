# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever a parameter holds: never a traceback, never a change outside the prefix, one sentence or a store."""

from __future__ import annotations

import copy
import shutil
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lab import check_consistent, recorded

from ansible_collections.preload.jemalloc.plugins.module_utils import _build as build
from ansible_collections.preload.jemalloc.plugins.module_utils import _sandbox as sandbox
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc as module
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_bundle as bundle_module
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_preload as preload_module

NASTY = [
    "",
    " ",
    "\n",
    "a\nb",
    "\0",
    "a\0b",
    "%n%s%i",
    "{version}",
    "{{ lookup('pipe', 'id') }}",
    "$(touch harm)",
    "`touch harm`",
    "'\"\\",
    "../../harm",
    "/",
    "//",
    "/.",
    "/..",
    "/proc/self/mem",
    "/dev/null",
    "~",
    "~root/x",
    "é",
    "\u202e\u2028",
    "x" * 10_000,
    "/x" * 5_000,
    "http://",
    "https://[",
    "http://user:secret@127.0.0.1:1/x",
    "http://127.0.0.1:1/%zz x",
    "http://127.0.0.1:99999/",
    "file://",
    "file:///dev/zero/x",
    "sha256:",
    "sha256:" + "g" * 64,
    "sha256:" + "0" * 64,
    "5.3.1",
    "5.3.1\n",
    "5.3.1/../..",
    "\u0665.\u0663.\u0661",  # digits, but not ours
    "/dev/zero",
    "previous",
    "9.9.9",
    "0.0.0",
    "999999999999999999999.0.0",
]
TEXTS = st.sampled_from(NASTY) | st.text(max_size=40) | st.from_regex(r"[0-9]+\.[0-9]+\.[0-9]+[a-z]?")

#: Stands for the directory below which everything has to stay.
TOP = "TOP"
LISTS = st.lists(TEXTS, max_size=3)

#: Strategies for the values of a parameter by its type in the argument specification.
BY_TYPE: dict[str, st.SearchStrategy[t.Any]] = {
    "str": TEXTS,
    "path": TEXTS,
    "bool": st.booleans() | TEXTS,
    "int": st.integers() | TEXTS | st.floats(),
    "list": LISTS | TEXTS,
    "dict": st.dictionaries(TEXTS, TEXTS, max_size=2) | TEXTS,
    "raw": st.dictionaries(TEXTS, TEXTS | st.integers(), max_size=2) | LISTS | TEXTS | st.integers() | st.booleans(),
}


#: An entry of services with what it may have of its own, and not.
SERVICES = st.dictionaries(
    st.sampled_from(["name", "version", "malloc_conf", "environment", "scope", "must_exist", "force"]) | TEXTS,
    TEXTS | st.booleans() | st.integers() | st.dictionaries(TEXTS, TEXTS | st.integers(), max_size=2),
    max_size=4,
)


def values(specification: dict[str, t.Any]) -> st.SearchStrategy[t.Any]:
    """Return what a parameter may be given: what it wants, and all else."""
    if "choices" in specification:
        return st.sampled_from(specification["choices"]) | TEXTS
    if "options" in specification:
        nested = {name: values(each) for name, each in specification["options"].items()}
        return st.fixed_dictionaries({}, optional=nested) | BY_TYPE["dict"]
    if specification.get("elements") == "raw":
        return st.lists(TEXTS | SERVICES | st.integers() | st.none(), max_size=3) | TEXTS
    return BY_TYPE[specification["type"]]


def arguments(specification: dict[str, t.Any]) -> st.SearchStrategy[dict[str, t.Any]]:
    """Return some of a module's parameters, each with any value."""
    named = {name: values(each) for name, each in specification.items()}
    if "prefix" in named:  # a good one that is not below TOP would be taken, and this machine is not to be changed
        nasty = st.sampled_from([text for text in NASTY if text != "~root/x"])
        named["prefix"] = nasty | TEXTS.map(lambda text: f"{TOP}/{text}")
    return st.fixed_dictionaries({}, optional=named)


def refused_by_ansible(specification: dict[str, t.Any], given: dict[str, t.Any]) -> bool:
    """Whether arguments do not even have the right types; then Ansible answers, in its own words."""
    try:
        # A copy, as Ansible fills defaults into the specification itself.
        return bool(ArgumentSpecValidator(copy.deepcopy(specification)).validate(given).error_messages)
    except OverflowError:  # Ansible's own, for an integer that is given as infinity
        return True


Call = t.Callable[..., dict[str, t.Any]]

SETTINGS = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], derandomize=True
)


@pytest.fixture
def confined(
    tmp_path: Path,
    root: Path,
    alone: None,
    monkeypatch: pytest.MonkeyPatch,
    call: Call,
) -> t.Callable[..., None]:
    """Call a module as often as one likes, below one directory, and see what it answers and where it writes."""
    monkeypatch.setattr(build, "PACKAGE_MANAGERS", {})
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "opt" / "jemalloc"
    monkeypatch.setenv("HOME", str(store.parent / "home"))

    def run(which: t.Any, **given: t.Any) -> None:
        shutil.rmtree(store.parent, ignore_errors=True)
        store.parent.mkdir()
        if "prefix" in which.ARGUMENTS:
            given["prefix"] = given.get("prefix", str(store)).replace(TOP, str(store.parent))
        if refused_by_ansible(which.ARGUMENTS, given):
            return
        with recorded() as written:
            result = call(which, **given)
        logs = (f"{tmp_path}/.preload-jemalloc", f"{tmp_path}/preload-jemalloc")
        allowed = (str(store.parent), str(root), sandbox.LOCK.partition("{")[0], *logs)
        assert {path for path in written if not path.startswith(allowed) and path != "/dev/null"} == set()
        if result.get("failed"):
            assert "Traceback" not in result["msg"]
            assert "\n" not in result["msg"]
            assert "secret" not in result["msg"] or "secret" not in f"{given.get('origins')}{given.get('bundle')}"
            assert result["msg"].strip()
        if store.exists():
            check_consistent(store)

    return run


def size(config: pytest.Config, part: int) -> int:
    """Return how many examples to try."""
    return part * 20 if config.getoption("full") else part


def test_jemalloc(
    confined: t.Callable[..., None], pytestconfig: pytest.Config, tarball: t.Callable[[str], tuple[str, str]]
) -> None:
    path, checksum = tarball("9.9.9")
    base = {"version": "9.9.9", "checksum": checksum, "origins": [path], "build_packages": False}

    @settings(SETTINGS, max_examples=size(pytestconfig, 300))
    @given(arguments(module.ARGUMENTS))
    @example({"version": "9.9.9\n"})
    def alone(given: dict[str, t.Any]) -> None:
        confined(module, **given)

    @settings(SETTINGS, max_examples=size(pytestconfig, 150))
    @given(st.sampled_from(sorted(module.ARGUMENTS)).flatmap(lambda name: arguments({name: module.ARGUMENTS[name]})))
    def among_good_ones(given: dict[str, t.Any]) -> None:
        confined(module, **{**base, **given})

    alone()
    among_good_ones()


def test_jemalloc_bundle(confined: t.Callable[..., None], pytestconfig: pytest.Config) -> None:
    @settings(SETTINGS, max_examples=size(pytestconfig, 150))
    @given(arguments(bundle_module.ARGUMENTS))
    def alone(given: dict[str, t.Any]) -> None:
        confined(bundle_module, **given)

    alone()


def test_jemalloc_preload(confined: t.Callable[..., None], pytestconfig: pytest.Config) -> None:
    @settings(SETTINGS, max_examples=size(pytestconfig, 150))
    @given(arguments(preload_module.ARGUMENTS))
    def alone(given: dict[str, t.Any]) -> None:
        confined(preload_module, **given)

    alone()
