# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators type, on a real host: what they said happens, and nothing that nobody said."""

from __future__ import annotations

import json
import re
import typing as t
from pathlib import Path

import pytest

from tests.connections.lab import unpack_collections
from tests.operators.lab import Operator, Played

APP = ("-e", '{"jemalloc_services": ["app"]}')

#: The ways to say that nothing is to be restarted: by arguments, or in the inventory.
NO_RESTART: list[tuple[tuple[str, ...], dict[str, str]]] = [
    (("-e", "jemalloc_restart=false"), {}),
    (("-e", "jemalloc_restart=no"), {}),
    (("-e", "jemalloc_restart=0"), {}),
    ((), {"jemalloc_restart": "false"}),
]


def restarted(played: Played) -> bool:
    """Whether a play restarted services, or would."""
    return bool(re.search(r"Restart and prove\] \*+\n(web1: .*\n)?(changed|ok|failed)", played.output))


def test_no_restart_is_no_restart(operator: Operator) -> None:
    before = operator.pids()
    for arguments, ini in NO_RESTART:
        predicted = operator.site(*APP, *arguments, "--check", ini=ini)
        done = operator.site(*APP, *arguments, ini=ini)
        assert predicted.changed == done.changed
        for each in (predicted, done):
            assert (each.failed, restarted(each)) == (False, False), each.output
        assert operator.enabled() == {"app"}
    assert operator.pids() == before
    assert operator.mapped() == {"app": "", "other": ""}
    assert restarted(operator.site(*APP))
    running = operator.pids()
    assert operator.mapped() == {"app": "9.9.9", "other": ""}
    done = operator.play("site", "-e", "jemalloc_state=absent", "-e", "jemalloc_restart=false")
    assert not done.failed, done.output
    assert operator.pids() == running
    assert (operator.enabled(), operator.current()) == (set(), "")
    operator.shell("systemctl restart app")


@pytest.mark.parametrize("value", ["false", "no"])
def test_no_metrics_are_no_metrics(operator: Operator, value: str) -> None:
    done = operator.site("-e", f"jemalloc_metrics={value}")
    assert not done.failed, done.output
    assert "preload-jemalloc-metrics" not in operator.shell("systemctl list-unit-files --all")


def test_a_rollout_with_texts(operator: Operator) -> None:
    unit = "[Service]\\nExecStart=/usr/bin/python3 -m http.server --directory /srv 8000\\n"
    operator.shell(f"printf '{unit}' > /etc/systemd/system/served.service && systemctl start served")
    release = [word for key, value in operator.releases["9.9.9"].items() for word in ("-e", f"{key}={value}")]
    texts = ("jemalloc_timeout=90", "jemalloc_health_url=http://127.0.0.1:8000/", "jemalloc_services=app")
    for measure in ("true", "false"):
        more = [
            word for text in (*texts, f"jemalloc_measure={measure}", "jemalloc_serial=1,100%") for word in ("-e", text)
        ]
        more += ["-e", f"jemalloc_report_database={operator.directory}/{measure}.sqlite"]
        done = operator.play("rollout", *release, *more)
        assert not done.failed, done.output
        assert (operator.directory / f"{measure}.sqlite").exists() == (measure == "true")
    assert operator.mapped() == {"app": "9.9.9", "other": ""}
    operator.shell("systemctl stop served; rm /etc/systemd/system/served.service")


def test_a_bundle_of_a_release_that_is_a_text(operator: Operator) -> None:
    done = operator.play("bundle", "-e", "jemalloc_versions=5.3.0", "-e", "jemalloc_method=auto", "--check")
    assert "(item=5.3.0)" in done.output, done.output
    assert "must resolve to a 'list'" not in done.text
    assert "jemalloc_versions of preload.jemalloc.bundle is now called jemalloc_bundle_versions" in done.text


LISTS = {
    "jemalloc_services=app": {"app"},
    "jemalloc_services=app,other": {"app", "other"},
    "jemalloc_services=['app','other']": {"app", "other"},
}


def test_services_as_texts(operator: Operator) -> None:
    for text, expected in LISTS.items():
        done = operator.site("-e", text)
        assert not done.failed, done.output
        assert operator.enabled() == expected
        assert {name for name, release in operator.mapped().items() if release} == expected


#: What somebody types, and what is said of it.
WRONG = {
    '{"jemalloc_service": ["app"]}': "Did you mean jemalloc_services?",
    '{"jemalloc_enable": true}': "Did you mean jemalloc_enabled?",
    "jemalloc_versoin=5.1.0": "Did you mean jemalloc_version?",
    '{"jemalloc_services": [{"name": "app", "malloc_conf": "lg_chunk:21"}]}': "5.3.1 has no option lg_chunk",
    "jemalloc_services=[app,": "jemalloc_services: '[app,' is neither JSON nor YAML. Nothing was changed.",
    "jemalloc_version=latest": "set jemalloc_latest: true.",
    "jemalloc_version=5.1": "jemalloc_version: '5.1' is not the number of a jemalloc release; did you mean 5.1.0?",
    "jemalloc_version=v5.3.1": "jemalloc_version: 'v5.3.1' is not the number of a jemalloc release; did you mean 5.3.1",
    "jemalloc_version=5": "jemalloc_version: '5' is not the number of a jemalloc release; did you mean 5.3.1?",
}


def test_what_is_wrong_is_said_before_anything_changes(enabled: Operator) -> None:
    before = enabled.pids()
    for text, sentence in WRONG.items():
        done = enabled.play("site", "-e", text)
        assert (done.failed, done.changed) == (True, 0), done.output
        assert sentence in done.text, done.output
    assert (enabled.pids(), enabled.enabled(), enabled.current()) == (before, {"app"}, "9.9.8")


def test_an_upgrade_and_a_rollback_without_the_variables(enabled: Operator) -> None:
    done = enabled.site()
    assert not done.failed, done.output
    assert (enabled.enabled(), enabled.mapped()) == ({"app"}, {"app": "9.9.9", "other": ""})
    assert enabled.site().changed == 0
    predicted = enabled.play("rollback", "--check")
    done = enabled.play("rollback")
    assert not done.failed, done.output
    assert predicted.changed == done.changed
    assert (enabled.enabled(), enabled.current()) == ({"app"}, "9.9.8")
    assert enabled.mapped() == {"app": "9.9.8", "other": ""}


def test_a_rollback_changes_no_scope_even_if_the_inventory_names_others(enabled: Operator) -> None:
    assert not enabled.site().failed
    done = enabled.play("rollback", ini={"jemalloc_services": "['other']", "jemalloc_latest": "true"})
    assert not done.failed, done.output
    assert (enabled.enabled(), enabled.mapped()) == ({"app"}, {"app": "9.9.8", "other": ""})


def test_a_rollback_after_a_first_installation_says_what_helps(enabled: Operator) -> None:
    done = enabled.play("rollback")
    assert (done.failed, done.changed) == (True, 0)
    assert "jemalloc_services: [] for its services" in done.text, done.output
    assert enabled.mapped() == {"app": "9.9.8", "other": ""}
    done = enabled.site("-e", '{"jemalloc_services": []}', version="9.9.8")
    assert not done.failed, done.output
    assert (enabled.enabled(), enabled.mapped()) == (set(), {"app": "", "other": ""})


def test_lines_of_others_stand_in_no_output(operator: Operator) -> None:
    secret = "http_proxy=http://svc:S3cretPw@proxy:3128\n"
    operator.shell(f"printf '{secret}' > /etc/environment")
    enabled = ("-e", '{"jemalloc_enabled": true, "jemalloc_exclude": ["app"]}', "-vvv", "--diff")
    for arguments in ((*enabled, "--check"), enabled, ("-e", "jemalloc_state=absent", "-vvv", "--diff")):
        done = operator.site(*arguments)
        assert not done.failed, done.output
        assert "S3cretPw" not in done.output
    assert operator.shell("cat /etc/environment") == secret
    operator.shell("rm /etc/environment")


def line(played: Played) -> str:
    """Return the one line that the role says of a host."""
    (found,) = re.findall(r"^web1: .*; pending: .*$", played.output, re.MULTILINE)
    return str(found)


def test_each_host_ends_with_one_line(operator: Operator) -> None:
    assert line(operator.site(*APP, "--check")) == "web1: jemalloc 9.9.9; would restart app; pending: none"
    held = operator.site(*APP, "-e", "jemalloc_restart=false")
    assert line(held) == "web1: jemalloc 9.9.9; pending: app"
    assert line(operator.site(*APP)) == "web1: jemalloc 9.9.9; restarted and verified app (1 process); pending: none"
    again = operator.site(*APP)
    assert (line(again), again.changed) == ("web1: jemalloc 9.9.9; pending: none", 0)
    removed = operator.play("site", "-e", "jemalloc_state=absent")
    stays = f"what stays: {operator.directory}/cache on the controller"
    assert line(removed) == f"web1: jemalloc removed; {stays}; restarted and verified app (1 process); pending: none"


def test_a_callback_for_machines_keeps_its_output(operator: Operator, tmp_path: Path) -> None:
    collections = unpack_collections(operator.run, tmp_path, ["ansible/posix"])
    for arguments in (APP, ("-e", "jemalloc_state=absent")):
        words = [word for name, value in operator.releases["9.9.9"].items() for word in ("-e", f"{name}={value}")]
        command = ("ansible-playbook", f"--inventory={operator.inventory()}", *words, *arguments)
        settings = {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_COLLECTIONS_PATH": str(collections)}
        output = operator.run(*command, "preload.jemalloc.site", cwd=operator.directory, **settings)
        assert json.loads(output)["stats"]["web1"]["failures"] == 0


REQUIRED: list[tuple[str, tuple[str, ...], str]] = [
    ("profile", (), "jemalloc_profile_unit: it is not set, and preload.jemalloc.profile requires it."),
    ("image", ("-e", "jemalloc_hosts=web1"), "jemalloc_image_base: it is not set, and preload.jemalloc.image requires"),
]


@pytest.mark.parametrize(("playbook", "arguments", "sentence"), REQUIRED)
def test_a_variable_that_a_playbook_requires(
    host: Operator, playbook: str, arguments: t.Sequence[str], sentence: str
) -> None:
    done = host.play(playbook, *arguments)
    assert (done.failed, done.changed) == (True, 0)
    assert sentence in done.text, done.output


def test_a_forecast_of_a_play_that_makes_the_service_first(operator: Operator) -> None:
    play = """
- hosts: web
  gather_facts: false
  tasks:
    - name: Bring the application
      ansible.builtin.copy:
        content: "[Service]\\nExecStart=/bin/sleep infinity\\n"
        dest: /etc/systemd/system/later.service
        mode: "0644"
    - name: Enable jemalloc for it
      ansible.builtin.include_role:
        name: preload.jemalloc.jemalloc
      vars:
        jemalloc_services: [later]
"""
    (operator.directory / "later.yml").write_text(play)
    release = [word for name, value in operator.releases["9.9.9"].items() for word in ("-e", f"{name}={value}")]
    forecast = operator.play("later.yml", *release, "--check", "--diff")
    assert not forecast.failed, forecast.output
    assert "knows no such service: later; " in forecast.text
    assert "+++ after: /etc/systemd/system/later.service.d/zz-preload-jemalloc.conf" in forecast.text
    assert (operator.enabled(), operator.current()) == (set(), "")
    done = operator.play("later.yml", *release)
    assert (done.failed, done.changed) == (False, forecast.changed), done.output
    assert operator.enabled() == {"later"}
    operator.shell("rm /etc/systemd/system/later.service && systemctl daemon-reload")


def test_one_list_of_exclusions_for_hosts_of_several_kinds(operator: Operator) -> None:
    given = {"jemalloc_enabled": True, "jemalloc_exclude": ["php8.2-fpm", "chromium", "other"]}
    done = operator.site("-e", json.dumps(given))
    assert not done.failed, done.output
    operator.shell("systemctl restart app other")
    assert operator.mapped() == {"app": "9.9.9", "other": ""}
    assert operator.site("-e", json.dumps(given)).changed == 0
    assert not operator.site("-e", '{"jemalloc_enabled": false, "jemalloc_exclude": []}').failed
    operator.shell("systemctl restart app")


def test_a_name_that_is_nearly_one(operator: Operator) -> None:
    done = operator.site("-e", "jemalloc_services=apps")
    assert (done.failed, done.changed) == (True, 0)
    assert "did you mean app? One that comes later is named {name: apps, must_exist: false}." in done.text, done.output


def test_options_for_the_whole_host(operator: Operator) -> None:
    services = [{"name": "app", "malloc_conf": {"narenas": 3}, "environment": {"MALLOC_ARENA_MAX": 2}}]
    given = {"jemalloc_enabled": True, "jemalloc_malloc_conf": "narenas:2,tcache:true", "jemalloc_services": services}
    arguments = ("-e", json.dumps(given))
    predicted, done = operator.site(*arguments, "--check"), operator.site(*arguments)
    assert not done.failed, done.output
    assert predicted.changed == done.changed
    assert operator.environ("app", "MALLOC_CONF", "MALLOC_ARENA_MAX") == ["narenas:3", "2"]
    operator.shell("systemctl restart other")
    assert operator.environ("other", "MALLOC_CONF", "MALLOC_ARENA_MAX") == ["narenas:2,tcache:true", ""]
    assert operator.shell("su -l root -c 'echo $MALLOC_CONF'") == "narenas:2,tcache:true\n"
    assert operator.site(*arguments).changed == 0
    again = operator.site("-e", "jemalloc_malloc_conf=narenas:4")
    assert again.changed == 0  # not said is left as it is
    assert "jemalloc_malloc_conf: it has no effect, as jemalloc_enabled is not defined." in again.text
    wrong = operator.site(*arguments, "-e", "jemalloc_malloc_conf=narena:2")
    assert (wrong.failed, wrong.changed) == (True, 0)
    assert "jemalloc_malloc_conf: jemalloc has no option 'narena'; did you mean narenas" in wrong.text
    assert "Nothing was changed." in wrong.text
    assert not operator.site("-e", "jemalloc_enabled=false").failed
    assert "MALLOC_CONF" not in operator.shell("cat /etc/environment; systemctl show-environment")


def test_another_prefix_is_refused(enabled: Operator) -> None:
    before = enabled.pids()
    for arguments in (APP, ("-e", "jemalloc_state=absent")):
        for check in (("--check",), ()):
            done = enabled.site(*arguments, *check, "-e", "jemalloc_prefix=/srv/jemalloc")
            assert (done.failed, done.changed) == (True, 0), done.output
            assert "jemalloc_prefix: /srv/jemalloc is not where this host has its jemalloc" in done.text
            assert "(jemalloc_state: absent with jemalloc_prefix: /opt/jemalloc)" in done.text
    assert "jemalloc" not in enabled.shell("ls /srv")
    assert (enabled.pids(), enabled.mapped()) == (before, {"app": "9.9.8", "other": ""})


def test_a_password_in_the_address_of_the_health_check(host: Operator) -> None:
    done = host.site("-e", "jemalloc_health_url=http://user:S3cretPw@127.0.0.1/", "-vvv")
    assert (done.failed, done.changed) == (True, 0)
    assert "jemalloc_health_url: it has a name or a password in it" in done.text
