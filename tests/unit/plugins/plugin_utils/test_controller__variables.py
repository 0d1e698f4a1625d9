# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every variable is converted as its specification says, and a wrong name or value is one sentence."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleError

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _variables as variables

CONTAINER = {"compose": "/srv/compose.yaml", "service": "web", "version": "5.1.0"}

#: A variable, what it may be set to, and what that is.
GOOD: t.List[t.Tuple[str, t.Any, t.Any]] = [
    *(("jemalloc_restart", value, False) for value in (False, "false", "False", "no", "off", "0", 0, 0.0)),
    *(("jemalloc_restart", value, True) for value in (True, "true", "Yes", "on", "1", 1)),
    *(("jemalloc_timeout", value, 90) for value in (90, "90", " 90 ", "+90", 90.0)),
    ("jemalloc_keep", "0", 0),
    *(("jemalloc_version", value, "5.1.0") for value in ("5.1.0",)),
    ("jemalloc_version", "previous", "previous"),
    ("jemalloc_version", "5.9.0", "5.9.0"),
    ("jemalloc_state", "absent", "absent"),
    ("jemalloc_prefix", "~/jemalloc", "~/jemalloc"),
    ("jemalloc_checksum", 1, "1"),
    *(("jemalloc_services", value, ["nginx"]) for value in ("nginx", ["nginx"], "[nginx]", '["nginx"]', "['nginx']")),
    *(
        ("jemalloc_services", value, ["nginx", "shop"])
        for value in ("nginx,shop", "nginx, shop,", "nginx\nshop\n", "['nginx','shop']", '["nginx", "shop"]')
    ),
    ("jemalloc_services", [], []),
    ("jemalloc_services", "[]", []),
    ("jemalloc_services", ",", []),
    ("jemalloc_exclude", "[1]", ["1"]),
    ("jemalloc_exclude", 1, ["1"]),
    (
        "jemalloc_services",
        '[{"name": "shop", "must_exist": "no", "malloc_conf": "{narenas: 2}", "version": "5.1.0"}, "nginx"]',
        [{"name": "shop", "must_exist": False, "malloc_conf": {"narenas": 2}, "version": "5.1.0"}, "nginx"],
    ),
    ("jemalloc_services", [{"name": "shop", "force": "1", "scope": None, "else": "x"}], "as it is"),
    ("jemalloc_containers", f"[{CONTAINER}]", [CONTAINER]),
    ("jemalloc_options", '{"prof": "yes", "lg_page": "16"}', {"prof": True, "lg_page": 16}),
    ("jemalloc_options", "prof=yes", {"prof": True}),
    ("jemalloc_options", {}, {}),
    ("jemalloc_hosts", ["web"], ["web"]),
    ("jemalloc_serial", "1,10%,100%", ["1", "10%", "100%"]),
    ("jemalloc_serial", 2, [2]),
    ("jemalloc_image_malloc_conf", "{narenas: 2}", {"narenas": 2}),
    ("jemalloc_malloc_conf", "narenas:2,background_thread:true", {"narenas": "2", "background_thread": "true"}),
    ("jemalloc_malloc_conf", {"preset": "ruby"}, {"preset": "ruby"}),
    (
        "jemalloc_services",
        [{"name": "a", "malloc_conf": "narenas:2"}],
        [{"name": "a", "malloc_conf": {"narenas": "2"}}],
    ),
]


@pytest.mark.parametrize(("name", "value", "expected"), GOOD)
def test_a_value_is_converted(name: str, value: t.Any, expected: t.Any) -> None:
    if expected == "as it is":
        expected = [{"name": "shop", "force": True, "scope": None, "else": "x"}]
    done = variables.value_of(name, value)
    assert (done, type(done)) == (expected, type(expected))


#: A variable, what it is set to, and what is said of that.
BAD: t.List[t.Tuple[str, t.Any, str]] = [
    (
        "jemalloc_restart",
        "perhaps",
        "'perhaps' is neither true nor false. Nothing was changed. Write it as in jemalloc_restart: true.",
    ),
    ("jemalloc_restart", 2, "2 is neither true nor false. Nothing was changed. Write it as in jemalloc_restart: true."),
    *(
        (
            "jemalloc_timeout",
            value,
            f"{shown} is not a whole number. Nothing was changed. Write it as in jemalloc_timeout: 60.",
        )
        for value, shown in (("soon", "'soon'"), (True, "true"), (1.5, "1.5"), ("", "''"), ([1], "[1]"))
    ),
    ("jemalloc_version", True, "true is not a text. Nothing was changed."),
    ("jemalloc_prefix", ["/opt"], "[/opt] is not a text. Nothing was changed. Write it as in jemalloc_prefix: '/opt/j"),
    ("jemalloc_state", "gone", "'gone' is none of present, absent. Nothing was changed. Write it as in jemalloc_state"),
    (
        "jemalloc_services",
        {"name": "shop"},
        "{name: shop} is not a list. Nothing was changed. Write it as in jemalloc_services: [puma, sidekiq].",
    ),
    ("jemalloc_services", "[nginx,", "'[nginx,' is neither JSON nor YAML. Nothing was changed. Write it as in jemal"),
    ("jemalloc_services", True, "true is not a list. Nothing was changed. Write it as in jemalloc_services: [puma, si"),
    ("jemalloc_services", [{"name": "a", "force": "x"}], "a: force: 'x' is neither true nor false. Nothing was chang"),
    ("jemalloc_options", {"prof": "x"}, "prof: 'x' is neither true nor false. Nothing was changed. Write it as in jem"),
    ("jemalloc_options", "prof", "'prof' is not a mapping. Nothing was changed. Write it as in jemalloc_options: {pro"),
    ("jemalloc_options", "[prof]", "[prof] is not a mapping. Nothing was changed. Write it as in jemalloc_options: {"),
    (
        "jemalloc_version",
        5.1,
        "'5.1' is not the number of a jemalloc release; did you mean 5.1.0? Nothing was changed.",
    ),
    ("jemalloc_version", 5, "'5' is not the number of a jemalloc release; did you mean 5.3.1? Nothing was changed."),
    ("jemalloc_version", "v5.3.1", "'v5.3.1' is not the number of a jemalloc release; did you mean 5.3.1? Nothing w"),
    (
        "jemalloc_version",
        "latest",
        "'latest' is not the number of a jemalloc release; for the newest one of upstream leave it out and set "
        "jemalloc_latest: true. Nothing was changed.",
    ),
    ("jemalloc_services", [{"name": "a", "version": "5.1"}], "'5.1' is not the number of a jemalloc release; did you"),
    ("jemalloc_bundle_versions", "5.3.0,5.2", "'5.2' is not the number of a jemalloc release; did you mean 5.2.1?"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_what_does_not_fit_is_one_sentence(name: str, value: t.Any, message: str) -> None:
    with pytest.raises(JemallocError) as caught:
        variables.value_of(name, value)
    assert str(caught.value).startswith(f"{name}: {message}")
    assert "\n" not in str(caught.value)


#: A name, and what is said of it.
NAMES = {
    "jemalloc_service": "Did you mean jemalloc_services?",
    "jemalloc_enable": "Did you mean jemalloc_enabled?",
    "jemalloc_versoin": "Did you mean jemalloc_version?",
    "jemalloc_versions": "Did you mean jemalloc_version?",
    "jemalloc_engine": "Did you mean jemalloc_image_engine?",
    "jemalloc_zzz": "The page docs/variables.md lists all.",
    "jemalloc_mallocconf": "Did you mean jemalloc_malloc_conf?",
}


def untouched(value: t.Any) -> t.Any:
    """Return a value without templating it."""
    return value


@pytest.mark.parametrize(("name", "rest"), NAMES.items())
def test_an_unknown_name_is_an_error_with_the_nearest(name: str, rest: str) -> None:
    with pytest.raises(JemallocError) as caught:
        variables.said({name: 1, "jemalloc_version": "5.1.0"}, untouched)
    said = f"{name}: the collection preload.jemalloc has no such variable. Nothing was changed. {rest}"
    assert str(caught.value) == said


def test_all_unknown_names_are_named() -> None:
    with pytest.raises(JemallocError, match=r"^jemalloc_a: .* jemalloc_b: "):
        variables.said({"jemalloc_b": 1, "jemalloc_a": 1}, untouched)


def test_what_is_read_of_all_variables() -> None:
    given = {
        "jemalloc_prefix": "{{ x }}",
        "jemalloc_profile_unit": "of another playbook",
        "jemalloc_found": {"changed": False, "failed": False},
        "jemalloc_skipped": {"changed": False, "skipped": True},
        "__jemalloc_installed": {},
        "unit": "not ours here",
        "ansible_user": "root",
    }
    assert variables.said(given, lambda value: f"<{value}>") == {"jemalloc_prefix": "<{{ x }}>"}
    assert variables.said(given, untouched, "profile") == {
        "jemalloc_prefix": "{{ x }}",
        "jemalloc_profile_unit": "of another playbook",
        "unit": "not ours here",
    }
    assert variables.said({"jemalloc_engine": "podman"}, untouched, "image") == {"jemalloc_engine": "podman"}


def test_values_are_plain() -> None:
    given = {"jemalloc_services": ("puma", {"name": "shop"})}
    found = variables.said(given, untouched)
    assert found == {"jemalloc_services": ["puma", {"name": "shop"}]}


def test_a_template_that_fails_is_one_sentence() -> None:
    def fail(_value: t.Any) -> t.Any:
        raise AnsibleError("'shop' is undefined")

    with pytest.raises(JemallocError) as caught:
        variables.said({"jemalloc_services": "{{ shop }}"}, fail)
    assert str(caught.value) == "jemalloc_services: its template fails: 'shop' is undefined. Nothing was changed."


def test_what_is_not_set_has_its_default_or_is_left_out() -> None:
    found = variables.converted({"jemalloc_services": None, "jemalloc_prefix": "", "jemalloc_exclude": "[]"})
    assert found["exclude"] == []
    assert (found["prefix"], found["restart"], found["timeout"]) == ("/opt/jemalloc", True, 60)
    assert {"services", "enabled", "containers", "metrics", "version", "hosts", "measure"} & set(found) == set()
    assert variables.converted({}, "rollout")["measure"] is False
    assert variables.converted({}, "bundle") == {}
    assert variables.converted({"jemalloc_timeout": "90", "unit": "puma"}, "profile") == {
        "timeout": 90,
        "profile_unit": "puma",
        "profile_duration": 60,
        "profile_lg_prof_interval": 26,
        "profile_lg_prof_sample": 19,
        "profile_size_limit": 256,
    }


def test_what_a_playbook_requires() -> None:
    with pytest.raises(JemallocError) as caught:
        variables.converted({}, "profile")
    assert str(caught.value) == (
        "jemalloc_profile_unit: it is not set, and preload.jemalloc.profile requires it. Nothing was changed. Set it, "
        "for example with -e jemalloc_profile_unit=puma."
    )
    with pytest.raises(JemallocError, match=r"^jemalloc_image_tag: it is not set, and preload.jemalloc.image requires"):
        variables.converted({"jemalloc_image_base": "debian:12"}, "image")


def test_old_names() -> None:
    given = {"unit": "puma", "duration": "soon", "jemalloc_profile_version": "5.1.0"}
    assert variables.old_names(given, "profile") == {
        "unit": "jemalloc_profile_unit",
        "duration": "jemalloc_profile_duration",
    }
    assert variables.old_names(given, "") == {}
    with pytest.raises(JemallocError, match=r"^duration: 'soon' is not a whole number\..* as in duration: 60\.$"):
        variables.converted(given, "profile")
    assert variables.converted({**given, "jemalloc_profile_duration": 5}, "profile")["profile_duration"] == 5


def test_specifications_name_known_playbooks_and_types() -> None:
    playbooks = {"site", "rollout", "rollback", "bundle", "cache", "image", "profile", "report", "status"}
    for name, each in variables.PLAYBOOKS.items():
        assert set(each["playbooks"]) <= playbooks, name
        own = name.split("_")[1]
        assert own in each["playbooks"] or name in ("jemalloc_hosts", "jemalloc_serial", "jemalloc_measure")
    assert set(variables.ROLE) & set(variables.PLAYBOOKS) == set()
    for name, each in variables.KNOWN.items():
        assert each["type"] in ("bool", "int", "str", "path", "list", "dict", "raw"), name
        default = each.get("default")
        if default is not None:
            assert variables.value_of(name, default) == default
