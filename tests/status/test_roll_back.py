# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command of docs/roll-back.md, as it is printed there, on a host whose services a playbook enabled."""

from __future__ import annotations

import subprocess
import typing as t

import pytest
from markdown_it import MarkdownIt

from tests.checkout import ROOT
from tests.fleet.lab import wait_until
from tests.status.lab import NAME, Host, image
from tests.status.test_status import STATUS

Variables = t.Dict[str, t.Any]

#: A library with which no program starts.
BROKEN = "void _exit(int); __attribute__((constructor)) void start(void) { _exit(3); }\n"

LIBRARY = "/opt/jemalloc/9.9.9/lib/libjemalloc.so.2"

OTHERS = "/lib/x86_64-linux-gnu/libm.so.6"

NOTHING = {"puma": "", "sidekiq": "", "shop": "", "kept": ""}


def blocks() -> dict[str, list[str]]:
    """Return the commands of the page, by their headings."""
    found: dict[str, list[str]] = {}
    heading, inside = "", False
    for token in MarkdownIt("commonmark").parse((ROOT / "docs/roll-back.md").read_text(encoding="utf-8")):
        heading = token.content if inside else heading
        inside = token.type == "heading_open"
        if token.type == "fence":
            assert token.info == "sh"
            found.setdefault(heading, []).append(token.content)
    return found


BLOCKS = blocks()


def disable_one_service(host: Host, new: Variables, _old: Variables, commands: list[str]) -> None:
    at_once, by_play, excluding = commands
    for command in (at_once, by_play):
        host.enable(**new, jemalloc_services=["puma", "sidekiq"])
        assert host.running() == {**NOTHING, "puma": "9.9.9", "sidekiq": "9.9.9"}
        host.type(command)
        assert host.running() == {**NOTHING, "sidekiq": "9.9.9"}
    host.reset()
    host.enable(**new, jemalloc_enabled=True)
    host.shell("systemctl restart puma shop")
    assert host.running() == {**NOTHING, "puma": "9.9.9", "shop": "9.9.9"}
    host.type(excluding)
    host.shell("systemctl restart shop")
    assert host.running() == {**NOTHING, "shop": "9.9.9"}


def disable_one_host(host: Host, new: Variables, _old: Variables, commands: list[str]) -> None:
    everything, scopes = commands
    host.enable(**new, jemalloc_services=["puma", "sidekiq"])
    host.type(everything)
    assert host.running() == NOTHING
    assert host.shell("ls -d /opt/jemalloc; find /etc -name '*preload*'", check=False).count("\n") == 1
    host.enable(**new, jemalloc_enabled=True, jemalloc_services=["puma"], jemalloc_exclude=["kept"])
    host.shell("systemctl restart shop")
    host.type(scopes)
    assert host.shell("readlink /opt/jemalloc/current").strip() == "9.9.9"
    assert host.running() == NOTHING


def disable_the_fleet(host: Host, new: Variables, _old: Variables, commands: list[str]) -> None:
    (command,) = commands
    host.enable(**new, jemalloc_services=["puma", "sidekiq"])
    recap = host.type(command, check=False).partition("PLAY RECAP")[2]
    assert [line.split()[0] for line in recap.splitlines() if "unreachable=1" in line] == ["lost"]
    assert host.running() == NOTHING


def go_back(host: Host, new: Variables, old: Variables, commands: list[str]) -> None:
    (command,) = commands
    host.enable(**old, jemalloc_services=["puma", "sidekiq"])
    assert "web1  9.9.8    -         as configured: 2 services" in host.type(STATUS)
    assert "failed=1" in host.type(command, check=False)
    assert host.running() == {**NOTHING, "puma": "9.9.8", "sidekiq": "9.9.8"}
    host.enable(**new, jemalloc_services=["puma", "sidekiq"])
    assert "web1  9.9.9    9.9.8     as configured: 2 services" in host.type(STATUS)
    host.type(command)
    assert host.running() == {**NOTHING, "puma": "9.9.8", "sidekiq": "9.9.8"}


def one_service_by_hand(host: Host, new: Variables, _old: Variables, commands: list[str]) -> None:
    (command,) = commands
    host.enable(**new, jemalloc_services=["puma", "sidekiq"])
    host.shell(f"set -e; {command}")
    assert host.running() == {**NOTHING, "sidekiq": "9.9.9"}


def all_services_by_hand(host: Host, new: Variables, _old: Variables, commands: list[str]) -> None:
    (command,) = commands
    host.enable(**new, jemalloc_services=["puma", "sidekiq"])
    pids = host.shell("systemctl show -P MainPID puma sidekiq").split()
    assert set(host.shell(command, check=False).split()) == {f"/proc/{pid}/maps" for pid in pids}
    host.shell("systemctl restart puma sidekiq")
    assert host.running() == NOTHING


def whole_host_by_hand(host: Host, new: Variables, _old: Variables, commands: list[str]) -> None:
    login = "su root -c 'grep -c /opt/jemalloc /proc/self/maps'"
    for via, command in zip(("environment", "ld_so_preload"), commands):
        host.enable(**new, jemalloc_enabled=True, jemalloc_enabled_via=via)
        host.shell("systemctl restart shop")
        assert host.running()["shop"] == "9.9.9"
        assert int(host.shell(login)) > 0
        host.shell(f"set -e; {command}")
        host.shell("systemctl restart shop")
        assert host.running() == NOTHING
        assert int(host.shell(login, check=False)) == 0
    assert len(commands) == 2


def no_program_starts(host: Host, new: Variables, _old: Variables, commands: list[str]) -> None:
    empty, restore = commands
    host.shell(f"echo {OTHERS} > /etc/ld.so.preload")
    host.enable(**new, jemalloc_enabled=True, jemalloc_enabled_via="ld_so_preload")
    arguments = ["podman", "exec", "--interactive", NAME, "bash"]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, env=host.environment, stdin=pipe, stdout=pipe, encoding="utf-8") as shell:
        assert shell.stdin
        assert shell.stdout
        shell.stdin.write("echo open\n")
        shell.stdin.flush()
        assert shell.stdout.readline() == "open\n"
        break_library(host)
        assert not starts(host)
        shell.stdin.write(empty)
        shell.stdin.flush()
        wait_until(lambda: starts(host))
        shell.stdin.close()
    host.shell(restore)
    assert host.shell("cat /etc/ld.so.preload") == f"{OTHERS}\n"
    assert host.running() == NOTHING


def break_library(host: Host) -> None:
    """Put a library with which no program starts in the place of the installed one."""
    (host.directory / "broken.c").write_text(BROKEN)
    host.run("gcc", "-shared", "-fPIC", "-o", "broken.so", "broken.c", cwd=host.directory)
    host.run("podman", "cp", str(host.directory / "broken.so"), f"{NAME}:{LIBRARY}")


def starts(host: Host) -> bool:
    """Whether a program starts in the container."""
    command = ["podman", "exec", NAME, "true"]
    return subprocess.run(command, env=host.environment, capture_output=True, check=False).returncode == 0


def rescue(host: Host, new: Variables, _old: Variables, commands: list[str]) -> None:
    (command,) = commands
    for via in ("environment", "ld_so_preload"):
        host.enable(**new, jemalloc_enabled=True, jemalloc_enabled_via=via, jemalloc_services=["puma"])
        assert host.running()["puma"] == "9.9.9"
        break_library(host)
        host.run("podman", "stop", "--time=0", NAME)
        top = host.run("podman", "mount", NAME).strip()
        other = ("podman", "run", "--rm", "--network=none", f"--volume={top}:/mnt", image(host.run, host.directory))
        host.run(*other, "bash", "-c", command)
        host.run("podman", "umount", NAME)
        host.run("podman", "start", NAME)
        host.wait_until_up()
        assert host.running() == NOTHING
        assert "/opt/jemalloc" not in host.shell("cat /etc/environment /etc/ld.so.preload", check=False)
        host.reset()


def verify(host: Host, new: Variables, _old: Variables, commands: list[str]) -> None:
    (command,) = commands
    host.enable(**new, jemalloc_services=["puma"])
    assert LIBRARY in host.shell(command)
    host.type("ansible-playbook preload.jemalloc.site -i hosts --limit web1 -e jemalloc_state=absent")
    assert host.shell(command, check=False) == ""


SCENARIOS: dict[str, t.Callable[[Host, Variables, Variables, list[str]], None]] = {
    "Disable one service": disable_one_service,
    "Disable one host": disable_one_host,
    "Disable the fleet": disable_the_fleet,
    "Go back to the previous release": go_back,
    "One service by hand": one_service_by_hand,
    "All services by hand": all_services_by_hand,
    "The whole host by hand": whole_host_by_hand,
    "No program starts any more": no_program_starts,
    "From a rescue system": rescue,
    "Verify it": verify,
}


def test_every_command_has_its_scenario() -> None:
    assert list(BLOCKS) == list(SCENARIOS)


@pytest.mark.parametrize("heading", SCENARIOS)
def test_a_command(host: Host, releases: dict[str, Variables], heading: str) -> None:
    SCENARIOS[heading](host, releases["9.9.9"], releases["9.9.8"], BLOCKS[heading])
