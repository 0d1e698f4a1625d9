# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every variable times every source: the same value, or one sentence before anything changes."""

from __future__ import annotations

import base64
import json
import re
import typing as t
from pathlib import Path

import pytest
import yaml

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _variables as variables
from tests.conftest import Run

#: A value of each type, and of each variable that does not take that.
BY_TYPE: dict[str, t.Any] = {"bool": False, "int": 90, "str": "some text", "path": "/srv/some", "raw": "web"}
VALUES: dict[str, t.Any] = {
    "jemalloc_services": ["nginx", {"name": "shop", "must_exist": False, "malloc_conf": {"narenas": 2}}],
    "jemalloc_containers": [{"compose": "/srv/compose.yaml", "service": "web", "version": "5.1.0"}],
    "jemalloc_options": {"prof": False, "lg_page": 16},
    "jemalloc_malloc_conf": {"narenas": 3},
    "jemalloc_image_malloc_conf": {"narenas": 2, "background_thread": True},
    "jemalloc_image_labels": {"maker": "a team"},
    "jemalloc_version": "5.1.0",
    "jemalloc_profile_version": "5.1.0",
    "jemalloc_bundle_versions": ["5.3.0", "5.3.1"],
    "jemalloc_serial": ["1", "10%", "100%"],
    "jemalloc_exclude": ["php8.2-fpm", "chromium"],
    "jemalloc_origins": ["https://a.example.com/x.tar.bz2", "/srv/jemalloc"],
}

PLAYBOOKS = ("", "rollout", "bundle", "cache", "image", "profile", "report")

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - preload.jemalloc.jemalloc_variables: {playbook: "{{ item or omit }}"}
      loop: ["", rollout, bundle, cache, image, profile, report]
      register: read
    - ansible.builtin.debug:
        msg: "VALUES {{ read.results | map(attribute='variables') | to_json | b64encode }} END"
"""


def value(name: str) -> t.Any:
    """Return what a variable is set to, as its specification has it."""
    specification = variables.KNOWN[name]
    choices = specification.get("choices")
    return VALUES.get(name, choices[-1] if choices else BY_TYPE.get(specification["type"]))


GIVEN = {name: value(name) for name in sorted(variables.KNOWN)}


def text(given: t.Any) -> str:
    """Return a value as it is typed."""
    if isinstance(given, list) and all(isinstance(each, str) for each in given):
        return ",".join(given)
    return json.dumps(given, separators=(",", ":")) if isinstance(given, (list, dict, bool)) else str(given)


def quoted(name: str, given: str) -> str:
    """Return an argument as Ansible's key=value wants it."""
    return f"{name}='{given}'"


class Source(t.NamedTuple):
    """Where values come from: arguments, variables of a group in INI, and those in YAML."""

    arguments: tuple[str, ...] = ()
    ini: t.Mapping[str, str] = {}
    group: t.Mapping[str, t.Any] = {}


def sources(given: t.Mapping[str, t.Any]) -> dict[str, Source]:
    """Return all sources of values."""
    texts = {name: text(each) for name, each in given.items()}
    lines = {
        name: "\n".join(each)
        if isinstance(each, list) and "," in texts[name] and "{" not in texts[name]
        else texts[name]
        for name, each in given.items()
    }
    return {
        "-e key=value": Source(tuple(word for name, each in texts.items() for word in ("-e", quoted(name, each)))),
        "-e JSON": Source(("-e", json.dumps(given))),
        "a survey": Source(("-e", json.dumps(lines))),
        "INI": Source(ini=texts),
        "YAML": Source(group=given),
        "a template": Source(group={**{name: f"{{{{ values.{name} }}}}" for name in given}, "values": given}),
        "a template with text": Source(
            group={**{name: f"{{{{ values['{name}'] }}}}" for name in given}, "values": texts}
        ),
    }


@pytest.fixture
def play(run: Run, tmp_path: Path) -> t.Callable[[Source], str]:
    """Play it with values from a source, and return what was printed."""

    def played(source: Source) -> str:
        lines = ["web1", "[all:vars]", *(f"{name}={each}" for name, each in source.ini.items())]
        (tmp_path / "hosts").write_text("".join(f"{line}\n" for line in lines))
        (tmp_path / "group_vars").mkdir(exist_ok=True)
        (tmp_path / "group_vars" / "all.yml").write_text(yaml.safe_dump(dict(source.group)))
        (tmp_path / "play.yml").write_text(PLAY)
        return run("ansible-playbook", "-i", "hosts", *source.arguments, "play.yml", cwd=tmp_path, check=False)

    return played


def test_every_variable_has_a_value_that_is_not_its_default() -> None:
    same = [name for name, each in GIVEN.items() if each is None or each == variables.KNOWN[name].get("default")]
    assert same == ["jemalloc_latest", "jemalloc_measure", "jemalloc_verify"]


@pytest.mark.parametrize("name", sources(GIVEN))
def test_the_value_is_the_same_whatever_it_comes_from(play: t.Callable[[Source], str], name: str) -> None:
    truths = {each: True for each, option in variables.KNOWN.items() if option["type"] == "bool"}
    for given in ({**GIVEN}, {**GIVEN, **truths}):
        printed = play(sources(given)[name])
        match = re.search(r"VALUES (\S+) END", printed)
        assert match, printed
        for playbook, found in zip(PLAYBOOKS, json.loads(base64.b64decode(match.group(1)))):
            own = variables.specifications(playbook)
            assert found == {each[len(variables.PREFIX) :]: given[each] for each in own}


#: What does not fit a type, and is no text that could.
WRONG = {"bool": "perhaps", "int": "soon", "list": "[a,", "dict": "{a", "str": None, "path": None, "raw": None}


@pytest.mark.parametrize("name", sources({}))
def test_what_does_not_fit_is_one_sentence_whatever_it_comes_from(play: t.Callable[[Source], str], name: str) -> None:
    kinds = {variables.ROLE[each]["type"]: each for each in variables.ROLE if WRONG[variables.ROLE[each]["type"]]}
    assert set(kinds) == {"bool", "int", "list", "dict"}
    for kind, variable in kinds.items():
        printed = play(sources({variable: WRONG[kind]})[name])
        assert f"{variable}: '{WRONG[kind]}' is n" in printed, printed
        assert "Nothing was changed." in printed
        assert "Traceback" not in printed
