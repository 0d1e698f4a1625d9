# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd prints and what stands in its files."""

from __future__ import annotations

import dataclasses
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _managers as managers
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

LOADED = """Id=puma.service
LoadState=loaded
ActiveState=active
FragmentPath=/etc/systemd/system/puma.service
DropInPaths=/etc/systemd/system/puma.service.d/a.conf /run/b.conf
EnvironmentFiles=/etc/default/puma (ignore_errors=yes)
EnvironmentFiles=/etc/with space (ignore_errors=no)
"""
BARE = (
    "Id=dbus-broker.service\nLoadState=loaded\nActiveState=inactive\nFragmentPath=\nDropInPaths=\nEnvironmentFiles=\n"
)


class Systemctl:
    """Answers with what systemctl would print."""

    def __init__(self, output: str, status: int = 0) -> None:
        self.output, self.status = output, status
        self.calls: t.List[t.Sequence[str]] = []

    def __call__(
        self, arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
    ) -> t.Tuple[int, str]:
        """Answer a command."""
        assert directory is data is None
        self.calls.append(arguments)
        return self.status, self.output


def test_is_running(tmp_path: pathlib.Path) -> None:
    assert not systemd.is_running(str(tmp_path))
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert systemd.is_running(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("puma", "puma.service"),
        ("puma.service", "puma.service"),
        ("sidekiq@1", "sidekiq@1.service"),
        (r"a\x2db", r"a\x2db.service"),
        ("a:b_c.d-e", "a:b_c.d-e.service"),
        ("cron.timer", "cron.timer"),
        ("php8.2-fpm", "php8.2-fpm.service"),
        ("sidekiq@", "sidekiq@.service"),
    ],
)
def test_unit_name(name: str, expected: str) -> None:
    assert systemd.unit_name(name) == expected


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../x", "@.service", "a*", "a\n", "ä", "$(id)"])
def test_unit_name_that_is_none(name: str) -> None:
    with pytest.raises(JemallocError) as caught:
        systemd.unit_name(name)
    assert str(caught.value) == (
        f"services: {name!r} is not the name of a service; write it as in systemctl status NAME."
    )


@pytest.mark.parametrize("path", ["/usr/bin/python3.13", "/a_b/c@d/e+f", "/opt/my-app"])
def test_plain_path(path: str) -> None:
    assert systemd.is_plain_path(path)


@pytest.mark.parametrize("path", ["", "/", "a/b", "/a b", "/a/", "//a", "/a%h", "/a\\x20", '/a"b', "/a\n", "/ä"])
def test_path_that_is_not_plain(path: str) -> None:
    assert not systemd.is_plain_path(path)


def test_units(root: pathlib.Path) -> None:
    run = Systemctl(f"{LOADED}\n{BARE}\n{LOADED}")
    found = systemd.units(run, systemd.wanted_services(["puma", "dbus.service", "alias-of-puma"]))
    assert [dataclasses.replace(unit, wanted=systemd.Wanted(""), properties={}) for unit in found] == [
        systemd.Unit(
            "puma.service",
            "active",
            ("/etc/systemd/system/puma.service", "/etc/systemd/system/puma.service.d/a.conf", "/run/b.conf"),
            ("/etc/default/puma", "/etc/with space"),
        ),
        systemd.Unit("dbus-broker.service", "inactive"),
    ]
    assert [call[3:] for call in run.calls] == [["--", "puma.service", "dbus.service", "alias-of-puma.service"]]
    assert found[0].properties["Id"] == ["puma.service"]


def test_units_of_no_names_asks_nobody() -> None:
    run = Systemctl("")
    assert systemd.units(run, []) == []
    assert run.calls == []


LATER = "One that comes later is named {name: puma, must_exist: false}."


@pytest.mark.parametrize(
    ("output", "status", "message"),
    [
        (
            BARE.replace("loaded", "not-found"),
            0,
            f"services: systemd on this host knows no such service: puma; did you mean pumas? {LATER}",
        ),
        (
            LOADED.replace("loaded", "masked"),
            0,
            "services: systemd on this host says that puma is masked; take it off the list.",
        ),
        (
            LOADED.replace("loaded", "bad-setting"),
            0,
            "services: systemd on this host says that puma is bad-setting; take it off the list.",
        ),
        (
            "Failed to connect to bus\n",
            1,
            "services: systemd answers 'Failed to connect to bus' when asked for puma.service.",
        ),
    ],
)
def test_units_that_are_none(root: pathlib.Path, output: str, status: int, message: str) -> None:
    directory = root / "etc/systemd/system"
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("pumas.service", "web.service"):
        (directory / name).write_text("")
    with pytest.raises(JemallocError) as caught:
        systemd.units(Systemctl(output, status), systemd.wanted_services(["puma"]), str(root))
    assert str(caught.value) == message


def test_units_that_may_come_later(root: pathlib.Path) -> None:
    later = systemd.wanted_services([{"name": "puma", "must_exist": False}])
    (found,) = systemd.units(Systemctl(BARE.replace("loaded", "not-found")), later)
    assert found.active == "inactive"
    with pytest.raises(JemallocError, match="says that puma is masked"):
        systemd.units(Systemctl(BARE.replace("loaded", "masked")), later)


def test_units_that_an_earlier_task_would_make(root: pathlib.Path) -> None:
    messages: t.List[str] = []
    wanted = systemd.wanted_services(["puma", {"name": "own", "scope": "user"}])
    output = BARE.replace("loaded", "not-found")
    found = systemd.units(Systemctl(output), wanted, str(root), missing=messages.append)
    assert [unit.active for unit in found] == ["inactive", ""]
    assert ["knows no such service: puma;" in messages[0], "no user unit own.service" in messages[1]] == [True, True]


def test_units_without_systemd(root: pathlib.Path) -> None:
    (root / "run/systemd/system").rmdir()
    run = Systemctl("")
    with pytest.raises(JemallocError) as caught:
        systemd.units(run, systemd.wanted_services(["puma", "cron"]))
    assert str(caught.value) == (
        "services: puma.service, cron.service cannot be looked up, systemd is not the init of this host; run the "
        "command by jemalloc.sh instead."
    )
    assert run.calls == []


def test_what_is_shown_of_a_unit() -> None:
    run = Systemctl("ActiveState=active\nPassEnvironment=A\nPassEnvironment=B\n")
    assert systemd.shown(run, "puma.service", ("ActiveState", "PassEnvironment")) == {
        "ActiveState": "active",
        "PassEnvironment": "A B",
    }
    assert run.calls == [["systemctl", "show", "--property=ActiveState,PassEnvironment", "--", "puma.service"]]
    assert systemd.shown(lambda *_given: (1, "Failed to connect to bus: No=thing"), "x.service", ("MainPID",)) == {}
    systemd.shown(run, "own.service", ("MainPID",), 65533)
    assert run.calls[-1] == [*managers.command(65533), "show", "--property=MainPID", "--", "own.service"]


def test_what_is_shown_of_many_units(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(arguments: t.Sequence[str], *_more: t.Any) -> t.Tuple[int, str]:
        asked = arguments[arguments.index("--") + 1 :]
        calls.append(arguments)
        # it passes over what it cannot ask for, and gives an alias its unit
        known = [name for name in asked if name != "c@.service"]
        return 1, "\n".join(f"Names=a.service {name}\nMainPID={ord(name[0])}\n" for name in known)

    calls: t.List[t.Sequence[str]] = []
    monkeypatch.setattr(systemd, "_AT_ONCE", 2)
    names = ["b.service", "c@.service", "d.service"]
    assert systemd.shown_all(run, names, ("MainPID",), 65533) == {
        "b.service": {"MainPID": "98"},
        "c@.service": {},
        "d.service": {"MainPID": "100"},
    }
    command = [*managers.command(65533), "show", "--property=Names,MainPID", "--"]
    assert calls == [[*command, "b.service", "c@.service"], [*command, "d.service"]]


def test_nothing_is_shown_of_no_unit_and_of_a_systemd_that_does_not_answer() -> None:
    run = Systemctl("", 1)
    assert systemd.shown_all(run, [], ("MainPID",)) == {}
    assert run.calls == []
    assert systemd.shown_all(run, ["a.service"], ("MainPID",)) == {"a.service": {}}


def user_unit(root: pathlib.Path, *names: str, **entry: t.Any) -> systemd.Unit:
    """Return a unit of users' own systemd, looked up where these files are; each sets a variable to its own name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"[Service]\nEnvironment=FROM={name}\nEnvironmentFile=-/etc/default/{path.name}\n")
    wanted = systemd.wanted_services([{"name": "own", "scope": "user", **entry}])
    (found,) = systemd.units(Systemctl(""), wanted, str(root))
    return found


def test_a_unit_of_users_is_read_as_systemd_reads_it(root: pathlib.Path) -> None:
    found = user_unit(
        root,
        "usr/lib/systemd/user/own.service",
        "etc/systemd/user/own.service",
        "usr/lib/systemd/user/own.service.d/20-b.conf",
        "run/systemd/user/own.service.d/20-b.conf",
        "etc/systemd/user/own.service.d/10-a.conf",
        "etc/systemd/user/own.service.d/note.txt",
        "usr/lib/systemd/user/service.d/15-all.conf",
        "etc/systemd/user/service.d/20-b.conf",
        "etc/systemd/user/other.service.d/10-a.conf",
    )
    names = ("own.service", "own.service.d/10-a.conf", "service.d/15-all.conf", "own.service.d/20-b.conf")
    places = ("etc", "etc", "usr/lib", "run")
    assert found.unit_files == tuple(f"{root}/{place}/systemd/user/{name}" for place, name in zip(places, names))
    assert found.environment_files == tuple(f"/etc/default/{name.rpartition('/')[2]}" for name in names)
    assert (found.name, found.active, found.user) == ("own.service", "", True)


def test_cpus_of_a_unit_of_users_are_those_that_its_files_say_last(root: pathlib.Path) -> None:
    path = root / "etc/systemd/user/own.service"
    path.parent.mkdir(parents=True)
    path.write_text("[Service]\nCPUQuota=50%\nCPUQuota=150%\nAllowedCPUs=0-1\n")
    assert user_unit(root).properties == {"CPUQuota": ["150%"], "AllowedCPUs": ["0-1"], "CPUAffinity": []}


def test_a_unit_of_users_that_is_not_there(root: pathlib.Path) -> None:
    with pytest.raises(JemallocError) as caught:
        user_unit(root, "etc/systemd/user/own.service.d/10-a.conf")
    directories = [f"{root}/{place}/systemd/user" for place in ("etc", "run", "usr/local/lib", "usr/lib")]
    assert str(caught.value) == (
        f"services: there is no user unit own.service in {', '.join(directories)}; 'systemctl --user list-unit-files' "
        "lists what it has. One in a user's home, or that comes later, is named {name: own, scope: user, must_exist: "
        "false}."
    )
    assert user_unit(root, must_exist=False).unit_files == (f"{directories[0]}/own.service.d/10-a.conf",)


def test_parse_show() -> None:
    assert systemd.parse_show("A=1\nB=x=y\nA=2\n\nA=\n") == [{"A": ["1", "2"], "B": ["x=y"]}, {"A": [""]}]
    assert systemd.parse_show("") == [{}]


def test_manager_texts(tmp_path: pathlib.Path) -> None:
    texts = {
        "etc/systemd/system.conf": "main",
        "usr/lib/systemd/system.conf.d/10-a.conf": "hidden by the one of the same name below /etc",
        "usr/lib/systemd/system.conf.d/30-c.conf": "c",
        "run/systemd/system.conf.d/20-b.conf": "b",
        "etc/systemd/system.conf.d/10-a.conf": "a",
        "etc/systemd/system.conf.d/ours.conf": "ours",
        "etc/systemd/system.conf.d/readme.txt": "no setting",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert systemd.manager_texts("ours.conf", str(tmp_path)) == ["main", "a", "b", "c"]
    assert systemd.manager_texts("ours.conf", str(tmp_path / "missing")) == []
