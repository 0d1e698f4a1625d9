# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role makes of its variables."""

from __future__ import annotations

import typing as t

import pytest
import yaml

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _role as role
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _variables as variables
from tests.checkout import ROOT

DEFAULTS = variables.converted({})


def given(**more: t.Any) -> t.Dict[str, t.Any]:
    """Return the converted variables of a role with these."""
    return variables.converted({f"jemalloc_{name}": value for name, value in more.items()})


def test_options_of_the_module() -> None:
    found = role.options(given(version="5.1.0", checksum="sha256:x", keep=1, services="puma", metrics="yes"), {})
    assert found == {
        **{name: DEFAULTS[name] for name in ("latest", "method", "verify", "prefix", "origins", "options")},
        **{name: DEFAULTS[name] for name in ("build_packages", "cache", "cache_size", "build_shared")},
        "version": "5.1.0",
        "checksum": "sha256:x",
        "keep": 1,
        "for_services": ["puma"],
        "for_metrics": True,
        "build": "never",
    }


@pytest.mark.parametrize(
    ("method", "task", "build", "used"),
    [
        ("auto", {}, "never", "auto"),
        ("source", {}, "now", "source"),
        ("package", {}, "never", "package"),
        ("package", {"version": "5.1.0", "current": False, "build": "now"}, "now", "auto"),
        ("source", {"version": "5.1.0", "current": False, "build": "now"}, "now", "source"),
        ("auto", {"build": "chosen", "method": "source"}, "chosen", "source"),
    ],
)
def test_options_that_a_task_gives(method: str, task: t.Dict[str, t.Any], build: str, used: str) -> None:
    variables_ = given(method=method, checksum="sha256:x", latest="no", keep="2", bundle_checksum="sha256:y")
    found = role.options(variables_, task)
    assert (found["build"], found["method"]) == (build, used)
    own = {"checksum", "latest", "bundle_checksum", "keep"} & set(found)
    assert own == (set() if task.get("version") else {"checksum", "latest", "bundle_checksum", "keep"})
    assert "keep" not in role.options(variables_, {"current": False})
    assert ("for_services" in found, "for_metrics" in found) == (build != "chosen", build != "chosen")


def test_scopes() -> None:
    assert role.scopes(DEFAULTS) == {"via": "environment", "prefix": "/opt/jemalloc", "purge": True}
    assert role.scopes(given(enabled="no", exclude="", services="[]", enabled_via="ld_so_preload", purge="no")) == {
        "purge": False,
        "host": False,
        "services": [],
        "via": "ld_so_preload",
        "prefix": "/opt/jemalloc",
    }


@pytest.mark.parametrize(
    "wanted",
    [
        {"malloc_conf": "narenas:2"},
        {"malloc_conf": "narenas:2", "enabled": True},
        {"malloc_conf": "narenas:auto", "enabled": True},
        {"malloc_conf": "prof:true", "enabled": True},  # how it was built, the host says
        {"malloc_conf": "lg_chunk:21", "enabled": True, "version": "4.5.0"},
        {"malloc_conf": "lg_chunk:21", "enabled": True, "latest": True},
        {"malloc_conf": "lg_chunk:21", "enabled": True, "method": "package"},
        {"malloc_conf": "lg_chunk:21", "enabled": True, "version": "previous"},
        {"services": ["a", {"name": "b", "malloc_conf": "narenas:2"}]},
        {"services": [{"name": "b", "malloc_conf": "lg_chunk:21", "version": "4.5.0"}]},
    ],
)
def test_options_of_jemalloc(wanted: t.Dict[str, t.Any]) -> None:
    role.check_options(given(**wanted))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"malloc_conf": "lg_chunk:21", "enabled": True}, "malloc_conf: jemalloc 5.3.1 has no option lg_chunk; it is "),
        ({"services": [{"name": "b", "malloc_conf": "narena:2"}]}, "services: b: malloc_conf: jemalloc has no option "),
        ({"malloc_conf": "a:2", "enabled": True, "enabled_via": "ld_so_preload"}, "malloc_conf: it needs via: env"),
    ],
)
def test_options_of_jemalloc_that_cannot_do(wanted: t.Dict[str, t.Any], message: str) -> None:
    with pytest.raises(JemallocError, match=rf"^{message}.*Nothing was changed\."):
        role.check_options(given(**wanted))


def test_what_has_no_effect() -> None:
    assert role.without_effect(given(malloc_conf="narenas:2")).startswith("jemalloc_malloc_conf: it has no effect, as ")
    assert role.without_effect(given(malloc_conf="narenas:2", enabled=False)) == ""
    assert role.without_effect(given(enabled=True)) == ""


OWN = [{"name": "a", "version": "5.1.0"}, {"name": "b", "version": "5.1.0"}, "c", {"name": "d"}]
CONTAINERS = [{"quadlet": "web", "version": "5.2.1"}]


def test_releases_and_what_is_shown() -> None:
    assert role.releases(DEFAULTS) == []
    assert role.releases(given(services=OWN, containers=CONTAINERS)) == ["5.1.0", "5.2.1"]
    shown = role.shown(given(origins="https://u:secret@example.com", bundle="https://u:secret@example.com/x", keep=1))
    assert "secret" not in str(shown)
    assert (shown["keep"], shown["prefix"]) == (1, "/opt/jemalloc")


def test_builders() -> None:
    groups = {"builders": ["b1", "b2"], "empty": []}
    assert role.builders(DEFAULTS, groups, "web1") == ["web1"]
    assert role.builders(given(build_host="b1"), groups, "web1") == ["b1"]
    assert role.builders(given(build_host="builders"), groups, "web1") == ["b1", "b2"]
    assert role.builders(given(build_host="empty"), groups, "web1") == ["empty"]


THERE: t.Dict[str, t.Any] = {"missing": None, "scopes": {"services": []}}


@pytest.mark.parametrize(
    ("wanted", "result", "expected"),
    [
        ({}, THERE, ""),
        ({}, {"missing": None, "scopes": None}, "preload"),
        ({}, {"missing": {"version": "5.1.0"}, "scopes": None}, "build"),
        ({"services": OWN}, THERE, ""),
        ({"services": OWN}, {"scopes": None}, "build"),
        ({"containers": CONTAINERS}, THERE, "build"),
        ({"containers": []}, THERE, "more"),
        ({"metrics": "false"}, THERE, "more"),
        ({"state": "absent", "containers": CONTAINERS}, {}, "remove"),
    ],
)
def test_which_tasks_come_next(wanted: t.Dict[str, t.Any], result: t.Dict[str, t.Any], expected: str) -> None:
    assert role.next_tasks(given(**wanted), result) == expected
    assert not expected or (ROOT / f"roles/jemalloc/tasks/{expected}.yml").exists()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("version: jemalloc 9 is not known.", "jemalloc_version: jemalloc 9 is not known."),
        ("method: none; use method: auto.", "jemalloc_method: none; use jemalloc_method: auto."),
        ("it is (build_packages: true).", "it is (jemalloc_build_packages: true)."),
        (
            "services: [] for its services, host: false for the whole host, state: absent for all.",
            "jemalloc_services: [] for its services, jemalloc_enabled: false for the whole host, jemalloc_state: "
            "absent for all.",
        ),
        ("/srv/version: No such file", "/srv/version: No such file"),
    ],
)
def test_messages_name_variables(message: str, expected: str) -> None:
    assert role.in_variables(message) == expected


@pytest.mark.parametrize(
    ("module", "message", "expected"),
    [
        (
            "jemalloc_preload",
            "services: app wants 5.1.0, but with via: ld_so_preload",
            "jemalloc_services: app wants 5.1.0, but with jemalloc_enabled_via: ld_so_preload",
        ),
        ("jemalloc_metrics", "directory: /x is not there.", "jemalloc_metrics_directory: /x is not there."),
        ("jemalloc_preload", "directory: /x is not there.", "directory: /x is not there."),
        ("jemalloc_container", "containers: web: none", "jemalloc_containers: web: none"),
        ("jemalloc_service", "services: puma: it says host: x", "jemalloc_services: puma: it says host: x"),
    ],
)
def test_messages_of_each_module_name_variables(module: str, message: str, expected: str) -> None:
    assert role.in_variables(message, module) == expected


def test_defaults_of_the_role_are_those_that_are_documented() -> None:
    defaults = yaml.safe_load((ROOT / "roles/jemalloc/defaults/main.yml").read_text(encoding="utf-8"))
    assert defaults == {name: each["default"] for name, each in variables.ROLE.items() if "default" in each}
