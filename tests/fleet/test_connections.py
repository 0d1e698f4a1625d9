# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that are reached as another user, with and without pipelining, and that reach nothing themselves."""

from __future__ import annotations

import json
import re
import typing as t

import pytest

from tests.fleet.lab import SUBNET, Fleet, mapped


@pytest.mark.parametrize("pipelining", ["0", "1"])
def test_another_user_without_a_network(cached: tuple[Fleet, dict[str, t.Any]], pipelining: str) -> None:
    fleet, wanted = cached
    for host in fleet.hosts:
        fleet.shell(host, "id deploy || useradd --create-home deploy")
        fleet.shell(host, "echo 'deploy ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/deploy")
        fleet.shell(host, "install -d -o deploy -m 700 /home/deploy/.ssh")
        fleet.shell(host, "install -o deploy -m 600 /root/.ssh/authorized_keys /home/deploy/.ssh/")
        fleet.shell(host, "ip route del default")
    try:
        # the controller reaches nothing either, but for its hosts
        settings = {
            "ANSIBLE_PIPELINING": pipelining,
            "https_proxy": "http://127.0.0.1:1",
            "http_proxy": "http://127.0.0.1:1",
        }
        command = fleet.command("site", ansible_user="deploy", **wanted)
        printed = fleet.run(*command, **settings)
        assert re.findall(r"failed=(\d+)", printed) == ["0"] * len(fleet.hosts)
        again = fleet.run(*command, **settings)
        assert re.findall(r"changed=(\d+)", again) == ["0"] * len(fleet.hosts)
    finally:
        for host in fleet.hosts:
            fleet.shell(host, f"ip route replace default via {SUBNET}.1")
    for host in fleet.hosts:
        assert mapped(fleet, host, "cron") == {"/opt/jemalloc/9.9.9/lib/libjemalloc.so.2"}
        assert fleet.shell(host, "ls -A /home/deploy/.ansible/tmp 2>/dev/null || true") == ""


def test_strategies(cached: tuple[Fleet, dict[str, t.Any]]) -> None:
    fleet, wanted = cached
    checked = fleet.play("site", "--check", **wanted)
    assert re.findall(r"changed=(\d+)", checked) == ["3"] * len(fleet.hosts)
    settings = {"ANSIBLE_FORKS": "4", "ANSIBLE_PIPELINING": "1", "ANSIBLE_STRATEGY": "ansible.builtin.free"}
    printed = fleet.run(*fleet.command("site", "--limit", ",".join(fleet.hosts[:2]), **wanted), **settings)
    assert re.findall(r"changed=(\d+)", printed) == ["3"] * 2
    printed = fleet.run(*fleet.command("site", **wanted), **settings)
    assert re.findall(r"changed=(\d+)", printed) == ["0"] * 2 + ["3"] * (len(fleet.hosts) - 2)


def test_async_is_refused(fleet: Fleet) -> None:
    play = [{"hosts": fleet.hosts[0], "gather_facts": False, "tasks": [{"preload.jemalloc.jemalloc": {}, "async": 60}]}]
    (fleet.directory / "async.yml").write_text(json.dumps(play))
    command = ["ansible-playbook", "--inventory", str(fleet.inventory), str(fleet.directory / "async.yml")]
    assert "does not support async" in fleet.run(*command, check=False)
