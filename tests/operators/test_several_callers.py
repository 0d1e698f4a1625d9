# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several callers on one host, plays that are interrupted, and what is left of a host that had everything."""

from __future__ import annotations

import typing as t

import pytest

from tests.operators.lab import Operator, Played
from tests.operators.test_runs import restarted

LOOP = """
- hosts: web
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: preload.jemalloc.jemalloc}
      loop: [app, other]
      vars:
        jemalloc_services: ["{{ item }}"]
"""

TWICE = """
- hosts: web
  gather_facts: false
  roles:
    - {role: preload.jemalloc.jemalloc, vars: {jemalloc_services: [app]}}
    - {role: preload.jemalloc.jemalloc, vars: {jemalloc_services: [other]}}
"""

FAILS = """
- hosts: web
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: preload.jemalloc.jemalloc}
      vars: {jemalloc_services: []}
    - ansible.builtin.fail: {msg: something else}
"""

APP = ("-e", '{"jemalloc_services": ["app"]}')
OTHER = ("-e", '{"jemalloc_services": ["other"]}')
NONE = ("-e", '{"jemalloc_services": []}')
WARNING = "app.service: an earlier task of this run named it for jemalloc, and this task takes it away"


@pytest.fixture
def play(operator: Operator) -> t.Callable[..., Played]:
    """Play a text with a release."""

    def played(text: str, *arguments: str, until: int = 0) -> Played:
        (operator.directory / "several.yml").write_text(text)
        release = [word for name, each in operator.releases["9.9.9"].items() for word in ("-e", f"{name}={each}")]
        return operator.play("several.yml", *release, *arguments, until=until)

    return played


def test_a_loop_over_services_without_purge(operator: Operator, play: t.Callable[..., Played]) -> None:
    keep = ("-e", "jemalloc_purge=false")
    done = play(LOOP, *keep)
    assert not done.failed, done.output
    assert "takes it away" not in done.text
    assert (operator.enabled(), operator.mapped()) == ({"app", "other"}, {"app": "9.9.9", "other": "9.9.9"})
    before = operator.pids()
    for again in (("--check",), ()):
        done = play(LOOP, *keep, *again)
        assert (done.failed, done.changed) == (False, 0), done.output
        assert "jemalloc : Preload jemalloc]" not in done.output  # one module call for each of the two is enough
    assert operator.pids() == before


def test_the_role_twice_with_purge(operator: Operator, play: t.Callable[..., Played]) -> None:
    for _run in range(2):
        done = play(TWICE)
        assert not done.failed, done.output
        assert WARNING in done.text, done.output
        assert "jemalloc_purge: false" in done.text
        assert (operator.enabled(), operator.mapped()) == ({"other"}, {"app": "", "other": "9.9.9"})
    assert "takes it away" not in operator.site(*NONE).text
    assert operator.mapped() == {"app": "", "other": ""}


def test_the_restarts_of_both_roles_are_made(operator: Operator, play: t.Callable[..., Played]) -> None:
    assert not operator.site("-e", '{"jemalloc_services": ["app", "other"]}').failed
    done = play(TWICE.replace("[app]", "[other], jemalloc_timeout: 50"))
    assert not done.failed, done.output
    assert operator.mapped() == {"app": "", "other": "9.9.9"}


def test_a_play_that_fails_before_its_handlers(operator: Operator, play: t.Callable[..., Played]) -> None:
    for way in ("", "jemalloc_state=absent"):
        assert not operator.site(*APP).failed
        assert play(FAILS).failed
        assert (operator.enabled(), operator.mapped()) == (set(), {"app": "9.9.9", "other": ""})
        arguments = ("-e", way) if way else NONE
        predicted = operator.site(*arguments, "--check")
        done = operator.site(*arguments)
        assert (predicted.changed, restarted(predicted)) == (done.changed, True), predicted.output
        assert not done.failed, done.output
        assert operator.mapped() == {"app": "", "other": ""}
        assert operator.site(*arguments).changed == 0


def test_options_that_change_in_a_play_that_fails_are_not_lost(
    operator: Operator, play: t.Callable[..., Played]
) -> None:
    assert not operator.site("-e", '{"jemalloc_services": [{"name": "app", "malloc_conf": "narenas:2"}]}').failed
    wanted = "[{name: app, malloc_conf: 'narenas:3', environment: {MALLOC_ARENA_MAX: 2}}]"
    failing = FAILS.replace("jemalloc_services: []", f"jemalloc_services: {wanted}")
    assert play(failing).failed
    assert operator.environ("app", "MALLOC_CONF", "MALLOC_ARENA_MAX") == ["narenas:2", ""]
    done = operator.site()
    assert not done.failed, done.output
    assert operator.environ("app", "MALLOC_CONF", "MALLOC_ARENA_MAX") == ["narenas:3", "2"]
    assert operator.site().changed == 0


def test_what_is_not_to_be_restarted_now_is_restarted_later(operator: Operator) -> None:
    assert not operator.site(*APP).failed
    running = operator.pids()
    for _run in range(2):
        assert not restarted(operator.site(*NONE, "-e", "jemalloc_restart=false"))
    assert (operator.pids(), operator.enabled()) == (running, set())
    assert restarted(operator.site())
    assert operator.mapped() == {"app": "", "other": ""}
    assert operator.site().changed == 0


def test_no_restart_is_lost_wherever_a_play_is_interrupted(
    operator: Operator, play: t.Callable[..., Played], pytestconfig: pytest.Config
) -> None:
    swap = TWICE.replace("[app]", "[]", 1)
    lost = []
    until = 1
    while True:
        assert not operator.site(*APP).failed
        assert operator.mapped() == {"app": "9.9.9", "other": ""}
        interrupted = play(swap, until=until)
        done = play(swap)
        assert not done.failed, done.output
        lost += [until] if operator.mapped() != {"app": "", "other": "9.9.9"} else []
        if not interrupted.failed:
            break
        until += 1 if pytestconfig.getoption("full") else 3
    assert lost == []
    assert until > 6


#: Services that load the library by other means than ours.
OWN = {
    "wrapped": "ExecStart=/usr/local/bin/jemalloc.sh /bin/sleep infinity",
    "scripted": "ExecStart=/srv/start",
    "own": 'Environment="LD_PRELOAD=/opt/jemalloc/current/lib/libjemalloc.so"\\nExecStart=/bin/sleep infinity',
}


def test_services_that_load_it_by_other_means_are_left_alone(operator: Operator) -> None:
    assert not operator.site().failed
    operator.shell("printf '#!/bin/sh\\nexec jemalloc.sh /bin/sleep infinity\\n' > /srv/start; chmod 755 /srv/start")
    try:
        for name, lines in OWN.items():
            operator.shell(f"printf '[Service]\\n{lines}\\n' > /etc/systemd/system/{name}.service")
        names = " ".join(OWN)
        operator.shell(f"systemctl daemon-reload; systemctl start {names}")
        before = operator.shell(f"systemctl show --property=MainPID {names}")
        for arguments in (NONE, APP, NONE, NONE):
            assert not operator.site(*arguments).failed
            assert operator.shell(f"systemctl show --property=MainPID {names}") == before
        assert operator.site(*NONE).changed == 0
        done = operator.play("site", "-e", "jemalloc_state=absent")
        for name in OWN:
            assert f"{name}.service (1 process; it starts with the library by other means)" in done.text, done.output
        assert operator.shell(f"systemctl show --property=MainPID {names}") == before
    finally:
        operator.shell(f"cd /etc/systemd/system; systemctl stop {' '.join(OWN)}; rm -f {'.service '.join([*OWN, ''])}")


@pytest.mark.parametrize("via", ["environment", "ld_so_preload"])
def test_what_the_whole_host_started_is_restarted_or_named(operator: Operator, via: str) -> None:
    assert not operator.site("-e", "jemalloc_enabled=true", "-e", f"jemalloc_enabled_via={via}").failed
    operator.shell("systemctl restart app other")
    assert operator.mapped() == {"app": "9.9.9", "other": "9.9.9"}
    operator.shell("printf '[Service]\\nType=oneshot\\nExecStart=/bin/sleep 600\\n' > /etc/systemd/system/job.service")
    operator.shell("systemctl daemon-reload; systemctl start --no-block job")
    absent = ("-e", "jemalloc_state=absent")
    predicted = operator.play("site", *absent, "--check")
    done = operator.play("site", *absent)
    for each in (predicted, done):
        assert not each.failed, each.output
        assert "job.service (1 process; it is activating)" in each.text, each.output
    assert predicted.changed == done.changed
    assert operator.mapped() == {"app": "", "other": ""}
    assert operator.play("site", *absent).changed == 0
    operator.shell("systemctl stop job; rm /etc/systemd/system/job.service")
