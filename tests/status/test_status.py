# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook status on a host with services that differ from what is configured, and one that cannot be reached."""

from __future__ import annotations

import json
import re
import subprocess
import typing as t
from pathlib import Path

import pytest

from tests.connections.lab import unpack_collections
from tests.status.lab import Host

STATUS = "ansible-playbook preload.jemalloc.status -i hosts"


@pytest.fixture(scope="module")
def drifted(machine: Host, releases: dict[str, dict[str, t.Any]]) -> t.Iterator[Host]:
    """A host on which puma is enabled, sidekiq not restarted, shop restarted without the library, and kept excluded."""
    machine.shell("mkdir -p /var/lib/textfile")
    more = {"jemalloc_metrics": True, "jemalloc_metrics_directory": "/var/lib/textfile", "jemalloc_exclude": ["kept"]}
    machine.enable(**releases["9.9.8"], jemalloc_services=["puma", "shop"])
    machine.enable(**releases["9.9.9"], **more, jemalloc_services=["puma", "shop"])
    machine.enable(**releases["9.9.9"], **more, jemalloc_services=["puma", "shop", "sidekiq"], jemalloc_restart=False)
    machine.shell(
        "printf '[Service]\nUnsetEnvironment=LD_PRELOAD\n' > /etc/systemd/system/shop.service.d/zzz.conf;"
        "systemctl daemon-reload; systemctl restart shop"
    )
    yield machine
    machine.reset()


PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - preload.jemalloc.jemalloc_status: {}
"""


def table(printed: str) -> list[str]:
    """Return the lines of the table in what a playbook printed, without the ages of processes."""
    lines = printed.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("HOST "))
    end = next(number for number, line in enumerate(lines) if re.match(r"\d+ hosts?: ", line))
    return [re.sub(r"(process(?:es)?) +for \d+ \w+$", r"\1", line) for line in lines[start : end + 1]]


def reason(service: str) -> list[str]:
    """Return the lines that every service has that runs without what its drop-in configures."""
    path = f"/etc/systemd/system/{service}.service.d/zz-preload-jemalloc.conf"
    return ["    Its process runs without jemalloc 9.9.9, which", f"    {path} configures:"]


def test_a_host_without_jemalloc(host: Host) -> None:
    printed = host.type(f"{STATUS} --limit web1")
    assert table(printed)[1:] == ["web1  -        -         nothing enabled", "1 host: 1 nothing enabled"]


def test_a_host_that_cannot_answer(host: Host) -> None:
    printed = host.type(f"{STATUS} --limit web1 -e ansible_python_interpreter=/nowhere/python")
    assert table(printed)[1].startswith("web1  unreadable: ")
    assert table(printed)[-1] == "1 host: 1 unreadable"


def test_bad_input_is_one_sentence(host: Host) -> None:
    (host.directory / "task.yml").write_text(PLAY)
    printed = host.type("ansible-playbook -i hosts --limit web1 task.yml", check=False)
    assert "missing required arguments: variable" in printed
    assert "Traceback" not in printed


def test_the_table(drifted: Host) -> None:
    printed = drifted.type(STATUS)
    expected = [
        "HOST  CURRENT  PREVIOUS  STATE",
        "web1  9.9.9    9.9.8     with drift: 2 units differ, 1 restart pending, 3 services, 1 exclusion",
        "  puma     jemalloc 9.9.9  1 process",
        "  shop     glibc           1 process",
        f"{reason('shop')[0]}",
        f"{reason('shop')[1]} its LD_PRELOAD does not",
        "    name it, so another setting may win.",
        "  sidekiq  glibc           1 process",
        f"{reason('sidekiq')[0]}",
        f"{reason('sidekiq')[1]} started before that",
        "    was written, restart.",
        "  pending: restart sidekiq",
        "  excluded: kept",
        "lost  unreachable: ssh: connect to host 127.0.0.1 port 1: Connection refused",
        "2 hosts: 1 with drift, 1 unreachable; 1 restart pending",
    ]
    assert table(printed) == expected
    assert "changed=0" in printed
    assert "failed=0" in printed
    assert table(drifted.type(f"{STATUS} --check --diff")) == expected
    short = [line.split() for line in table(drifted.type(f"{STATUS} -e jemalloc_status_full=false"))]
    wanted = [*expected[:2], *expected[3:11], "  1 more service", expected[11], *expected[13:]]
    assert short == [line.split() for line in wanted]


def test_json_for_machines(drifted: Host, tmp_path: Path) -> None:
    more = {
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_COLLECTIONS_PATH": str(unpack_collections(drifted.run, tmp_path, ["ansible/posix"])),
    }
    done = subprocess.run(
        STATUS.split(), cwd=drifted.directory, env={**drifted.environment, **more}, capture_output=True, check=True
    )
    printed = json.loads(done.stdout)["plays"][0]["tasks"][-1]["hosts"]["web1"]
    assert printed["states"] == {"web1": "with drift", "lost": "unreachable"}
    assert printed["lines"][0] == "HOST  CURRENT  PREVIOUS  STATE"
    assert b"CURRENT" not in done.stderr


def test_another_callback_keeps_standard_output(drifted: Host) -> None:
    more = {"ANSIBLE_STDOUT_CALLBACK": "tree", "ANSIBLE_CALLBACK_TREE_DIR": str(drifted.directory / "tree")}
    done = subprocess.run(
        STATUS.split(), cwd=drifted.directory, env={**drifted.environment, **more}, capture_output=True, check=True
    )
    assert done.stdout == b""
    assert table(done.stderr.decode())[-1] == "2 hosts: 1 with drift, 1 unreachable; 1 restart pending"
