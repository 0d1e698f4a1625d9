# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever others wrote into files that count for processes counts on behind our library, and is there afterwards.

What it means is asked from those who read it: the environment of real processes of systemd and PAM, before and after.
"""

from __future__ import annotations

import re
import typing as t

import pytest
from hosts import ABSENT, PREFIX, Host
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

EXAMPLES, EXAMPLES_IN_FULL = 10, 150

LIBRARY = f"{PREFIX}/current/lib/libjemalloc.so"

#: A restart is no failure here, however often it happens.
RESTART = "systemctl reset-failed app; systemctl restart app"

#: What the grammars of systemd, PAM and the dynamic linker make something of, or not.
FRAGMENTS = [
    *("LD_PRELOAD=", "/a.so", "/b.so", "X=1", "export ", "=", ":", " ", "\t", "\f", "\v", "\r", "\n", "\r\n", "\n\n"),
    *("\\", "\\\\", "\\\n", "\\x61", "\\t", '"', "'", "#", ";", "\n#", "\n;", "%", "%%", "%n", "$X", "é", "\u2028"),
]


def texts(*more: str) -> st.SearchStrategy[str]:
    """Texts of what the grammars know; often the variable itself."""
    return st.lists(st.sampled_from([*FRAGMENTS, *more, *more]), max_size=14).map("".join)


def holds(pytestconfig: pytest.Config, strategy: st.SearchStrategy[str], *known: str) -> t.Callable[..., None]:
    """Try a property with texts, those that once did harm first."""

    def decorate(check: t.Callable[[str], None]) -> None:
        for text in known:
            check = example(text)(check)
        examples = EXAMPLES_IN_FULL if pytestconfig.getoption("full") else EXAMPLES
        suppressed = [HealthCheck.too_slow]
        given(strategy)(
            settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=suppressed)(check)
        )()

    return decorate


def environment(printed: str) -> dict[str, str]:
    """Return the variables of /proc/PID/environ that the texts can set."""
    pairs = (entry.partition("=") for entry in printed.split("\0"))
    return {name: value for name, _equals, value in pairs if name in ("LD_PRELOAD", "X")}


def of_service(host: Host) -> dict[str, str]:
    """Return what the service has of them when it is started anew."""
    host.ask("shell", script=RESTART)
    return environment(host.ask("shell", script="cat /proc/$(systemctl show -P MainPID app)/environ"))


def in_front(before: dict[str, str]) -> dict[str, str]:
    """Return what these variables are to be with our library in front of what was there."""
    entries = [entry for entry in re.split("[: ]", before.get("LD_PRELOAD", "")) if entry]
    return {**before, "LD_PRELOAD": ":".join([LIBRARY, *entries])}


def check_round(host: Host, arguments: dict[str, t.Any], see: t.Callable[[], t.Any], expect: t.Any) -> None:
    """See what holds with us, and that taking us away gives back each byte."""
    host.ask("keep", name="foreign")
    try:
        done = host.run(arguments)
        assert done.status == 0, done.output
        assert see() == expect
        assert host.run(arguments).result["changed"] is False
        assert host.run(ABSENT).status == 0
        host.check_unchanged("foreign")
    finally:
        host.ask("restore", name="foreign")  # so that the next text is tried on its own


def test_drop_in(host: Host, pytestconfig: pytest.Config) -> None:
    path = "/etc/systemd/system/app.service.d/own.conf"

    def see() -> dict[str, str]:
        return of_service(host)

    @holds(
        pytestconfig,
        texts("Environment=", "\nEnvironment=", "Environment=LD_PRELOAD=", "\n[Unit]\n", "\n[Service]\n"),
        "Environment=LD_PRELOAD=/a.so 'X=1",
        "Environment=X=1 \\\n;\n LD_PRELOAD=/a.so",
        "Environment=X=1\fLD_PRELOAD=/a.so",
        'Environment="LD_PRELOAD=/a\\x61.so\\t/b.so:%n"',
    )
    def check(text: str) -> None:
        host.ask("write", path=path, text=f"[Service]\n{text}")
        host.ask("shell", script="systemctl daemon-reload")
        check_round(host, {"services": ["app"]}, see, in_front(see()))


def test_environment_file(host: Host, pytestconfig: pytest.Config) -> None:
    path = "/etc/app.env"
    host.ask("write", path="/etc/systemd/system/app.service.d/own.conf", text=f"[Service]\nEnvironmentFile={path}\n")
    host.ask("shell", script="systemctl daemon-reload")

    def see() -> dict[str, str]:
        return of_service(host)

    @holds(
        pytestconfig,
        texts("\nLD_PRELOAD=", "LD_PRELOAD=/a.so"),
        "LD_PRELOAD=",
        "X='\nLD_PRELOAD=/a.so\n'",
        "export LD_PRELOAD=/a.so",
        "LD_\\\nPRELOAD=/a.so",
        'LD_PRELOAD="/a.so"/b.so \\\n /c.so',
    )
    def check(text: str) -> None:
        host.ask("write", path=path, text=text)
        before = see()
        if "LD_PRELOAD" not in before:
            check_round(host, {"services": ["app"]}, see, in_front(before))
            return
        host.ask("keep", name="foreign")
        refusal = host.run({"services": ["app"]}).sentence()
        assert refusal.startswith(f"services: {path} sets LD_PRELOAD for app.service and would")
        host.check_unchanged("foreign")


def test_manager(host: Host, pytestconfig: pytest.Config) -> None:
    path = "/etc/systemd/system.conf.d/own.conf"

    def see() -> dict[str, str]:
        return environment(host.ask("shell", script="systemd-run --quiet --pipe --wait cat /proc/self/environ"))

    @holds(
        pytestconfig,
        texts("DefaultEnvironment=", "\nDefaultEnvironment=", "DefaultEnvironment=LD_PRELOAD=", "\n[Manager]\n"),
        "DefaultEnvironment=LD_PRELOAD=/a.so 'X=1",
        "DefaultEnvironment='LD_PRELOAD=/a.so /b.so'\\\n X=1",
    )
    def check(text: str) -> None:
        host.ask("write", path=path, text=f"[Manager]\n{text}")
        host.ask("shell", script="systemctl daemon-reload")
        check_round(host, {"host": True}, see, in_front(see()))

    host.ask("shell", script=f"rm {path}; systemctl daemon-reload")


def test_environment_of_logins(host: Host, pytestconfig: pytest.Config) -> None:
    def see() -> dict[str, str]:
        return environment(host.ask("shell", script="su tester -c 'cat /proc/self/environ'"))

    @holds(
        pytestconfig,
        texts("\nLD_PRELOAD=", "LD_PRELOAD=/a.so"),
        "LD_PRELOAD='/a.so' # comment",
        'LD_PRELOAD="/a.so"\'/b.so"',
        "export LD_PRELOAD=/a.so\r\n",
        " LD_PRELOAD=/a.so\t",
    )
    def check(text: str) -> None:
        host.ask("write", path="/etc/environment", text=text)
        check_round(host, {"host": True}, see, in_front(see()))


def test_list_of_the_dynamic_linker(host: Host, pytestconfig: pytest.Config) -> None:
    libraries = host.ask("shell", script="ldconfig -p | sed -n 's/.* => \\(.*lib[mz].so.[16]\\)$/\\1/p'").split()
    assert len(libraries) == 2

    def see() -> set[str]:
        printed = host.ask("shell", script="cat /proc/self/maps")
        assert "ERROR" not in printed, printed
        return {line.split()[-1] for line in printed.splitlines() if ".so" in line}

    @holds(pytestconfig, st.lists(st.sampled_from([*libraries, " ", "\t", "\n", ":", "\n# other\n"])).map("".join))
    def check(text: str) -> None:
        text = re.sub(r"so\.(\d)/", r"so.\1 /", text)  # names in one would be one that is not there
        host.ask("write", path="/etc/ld.so.preload", text=text)
        arguments = {"host": True, "via": "ld_so_preload"}
        if text.count("#") > 1:
            host.ask("keep", name="foreign")
            assert "more than one comment" in host.run(arguments).sentence()
            host.check_unchanged("foreign")
        else:
            check_round(host, arguments, see, see() | {f"{PREFIX}/9.9.9/lib/libjemalloc.so.2"})
