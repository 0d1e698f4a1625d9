# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files preload something, and what a unit is to run with by them."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _cgroups as cgroups
from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _preload as preload
from ansible_collections.preload.jemalloc.plugins.module_utils import _scopes as scopes
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._cgroups import Place
from ansible_collections.preload.jemalloc.plugins.module_utils._scopes import Scope
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _rendering as rendering

PREFIX = "/opt/jemalloc"
CURRENT = f"{PREFIX}/current/lib/libjemalloc.so"


def read(root: pathlib.Path) -> t.Dict[str, Scope]:
    """Return the scopes below a root, by their paths from there, without their age."""
    found = scopes.scopes(scopes.Reader(), PREFIX)
    assert len(found) == len({scope.path for scope in found})
    return {os.path.relpath(scope.path, str(root)): scope._replace(path="", changed=0) for scope in found}


def write(root: pathlib.Path, path: str, text: str) -> None:
    """Write a file below a root."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def activate(root: pathlib.Path, host: t.Optional[str], *entries: t.Any, excluded: t.Sequence[str] = ()) -> None:
    """Write what the module jemalloc_preload would."""
    texts = preload.Texts(**rendering.render(PREFIX))
    units = [systemd.Unit(each.name, "", wanted=each) for each in systemd.wanted_services(entries)]
    out = [systemd.Unit(each.name, "", wanted=each) for each in systemd.wanted_services(excluded)]
    wanted = preload.Scopes(
        host, units, out, {"chromium": "/usr/bin/chromium"}, "5.3.1", {"5.3.1": None, "5.2.1": None}
    )
    for change in preload.plan(wanted, texts, PREFIX)[0]:
        os.makedirs(os.path.dirname(change.path), exist_ok=True)
        if change.link:
            files.replace_link(change.path, change.after or "")
        else:
            files.write_file(change.path, (change.after or "").encode("utf-8"))


def test_nothing(root: pathlib.Path) -> None:
    assert read(root) == {}


def test_ours_for_the_host_by_the_environment(root: pathlib.Path) -> None:
    write(root, "etc/environment", "LD_PRELOAD=/lib/own.so\n")
    services = [
        "puma",
        {"name": "agent", "scope": "user"},
        {"name": "job@", "version": "5.2.1", "malloc_conf": {"narenas": 2}},
    ]
    activate(root, "environment", *services, excluded=["php"])
    drop_in = changes_util.DROP_IN
    assert read(root) == {
        f"etc/systemd/system.conf.d/{drop_in}": Scope("", "host", "", True, (CURRENT,)),
        "etc/environment": Scope("", "login", "", True, (CURRENT, "/lib/own.so")),
        "etc/profile.d/jemalloc.sh": Scope("", "login", "", True),
        f"etc/systemd/system/puma.service.d/{drop_in}": Scope("", "service", "puma.service", True, (CURRENT,)),
        f"etc/systemd/system/job@.service.d/{drop_in}": Scope(
            "", "service", "job@.service", True, (f"{PREFIX}/5.2.1/lib/libjemalloc.so",), "narenas:2"
        ),
        f"etc/systemd/system/php.service.d/{drop_in}": Scope("", "service", "php.service", True),
        f"etc/systemd/user/agent.service.d/{drop_in}": Scope("", "user_service", "agent.service", True, (CURRENT,)),
        "usr/local/bin/chromium": Scope("", "command", "", True),
        "usr/local/bin/jemalloc.sh": Scope("", "command", "", True),
        "usr/local/bin/no-jemalloc.sh": Scope("", "command", "", True),
    }


def test_ours_for_the_host_by_the_list(root: pathlib.Path) -> None:
    write(root, "etc/ld.so.preload", "# all\n/lib/one.so /lib/two.so\n")
    activate(root, "ld_so_preload")
    found = read(root)
    assert found["etc/ld.so.preload"].ours
    assert scopes.release_of(found["etc/ld.so.preload"].preloads, PREFIX, "5.3.1") == "5.3.1"
    assert found["etc/ld.so.preload"].preloads[1:] == ("/lib/one.so", "/lib/two.so")
    assert found["etc/ld.so.preload.without-jemalloc"] == Scope(
        "", "ld_so_preload", "", True, ("/lib/one.so", "/lib/two.so")
    )


def test_foreign_ones(root: pathlib.Path) -> None:
    write(root, "etc/environment", "LD_PRELOAD=/lib/a.so:/lib/b.so\nMALLOC_CONF=thp:never\n")
    write(root, "etc/ld.so.preload", "/lib/c.so\n")
    write(root, "etc/profile.d/jemalloc.sh", "export LD_PRELOAD=/lib/x.so\n")
    write(root, "etc/systemd/system.conf", "[Manager]\nDefaultEnvironment=LD_PRELOAD=/lib/d.so\n")
    write(
        root, "usr/lib/systemd/system/redis.service", '[Service]\nEnvironment="LD_PRELOAD=/lib/e.so" MALLOC_CONF=a%%b\n'
    )
    write(root, "usr/lib/systemd/system/service.d/all.conf", "[Service]\nEnvironment=LD_PRELOAD=/lib/f.so\n")
    write(root, "usr/lib/systemd/system/quiet.service", "[Service]\nExecStart=/bin/true\n# LD_PRELOAD\n")
    write(root, "etc/systemd/user/own.service.d/x.conf", "[Service]\nEnvironment=LD_PRELOAD=/lib/g.so\n")
    write(root, "etc/default/td-agent", "LD_PRELOAD=/lib/h.so\nMALLOC_CONF='a:b'\n")
    write(root, "etc/systemd/system/td.service", f"[Service]\nEnvironmentFile=-{root}/etc/default/td-*\n")
    write(root, "etc/systemd/system/x.service/y", "no unit")
    os.mkfifo(str(root / "etc/systemd/system/pipe.service"))
    assert read(root) == {
        "etc/environment": Scope("", "login", "", False, ("/lib/a.so", "/lib/b.so"), "thp:never"),
        "etc/ld.so.preload": Scope("", "ld_so_preload", "", False, ("/lib/c.so",)),
        "etc/systemd/system.conf": Scope("", "host", "", False, ("/lib/d.so",)),
        "usr/lib/systemd/system/redis.service": Scope("", "service", "redis.service", False, ("/lib/e.so",), "a%b"),
        "usr/lib/systemd/system/service.d/all.conf": Scope("", "service", "", False, ("/lib/f.so",)),
        "etc/systemd/user/own.service.d/x.conf": Scope("", "user_service", "own.service", False, ("/lib/g.so",)),
        "etc/default/td-agent": Scope("", "service", "td.service", False, ("/lib/h.so",), "a:b"),
    }


def test_a_unit_file_hides_one_of_the_same_name(root: pathlib.Path) -> None:
    write(root, "usr/lib/systemd/system/a.service", "[Service]\nEnvironment=LD_PRELOAD=/lib/a.so\n")
    write(root, "etc/systemd/system/a.service", "[Service]\n")
    assert read(root) == {}


@pytest.mark.parametrize(
    ("settings", "preloads"),
    [
        ("ExecStart=/usr/local/bin/jemalloc.sh puma", (CURRENT,)),
        ("ExecStart=-jemalloc.sh puma", (CURRENT,)),
        ("ExecStart=/bin/env A=1 jemalloc.sh puma", (CURRENT,)),
        (
            "Environment=JEMALLOC_VERSION=5.2.1 LD_PRELOAD=/a.so\nExecStart=jemalloc.sh puma",
            (f"{PREFIX}/5.2.1/lib/libjemalloc.so", "/a.so"),
        ),
        ("ExecStart=no-jemalloc.sh puma", None),
        ("ExecStart=/usr/local/bin/no-jemalloc.sh puma", None),
        ("ExecStart=cat /etc/profile.d/jemalloc.sh.old", None),
    ],
)
def test_a_service_by_the_wrapper(root: pathlib.Path, settings: str, preloads: t.Optional[t.Tuple[str, ...]]) -> None:
    write(root, "etc/systemd/system/a.service", f"[Service]\n{settings}\n")
    found = read(root).get("etc/systemd/system/a.service")
    assert (found and found.preloads) == preloads


def test_what_cannot_be_read(root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, "etc/systemd/system/a.service", "[Service]\n")
    read_text = files.read_text

    def refuse(path: str) -> t.Optional[str]:
        if path.endswith("a.service"):
            raise PermissionError(13, "Permission denied", path)
        return read_text(path)

    monkeypatch.setattr(files, "read_text", refuse)
    reader = scopes.Reader()
    assert scopes.scopes(reader, PREFIX) == []
    assert reader.unreadable == [str(root / "etc/systemd/system/a.service")]


HOST = Scope("/m", "host", "", True, (CURRENT,))
LIST = Scope("/etc/ld.so.preload", "ld_so_preload", "", True, (CURRENT,))
PUMA = Scope("/p", "service", "puma.service", True, (f"{PREFIX}/5.2.1/lib/libjemalloc.so",))
OUT = Scope("/o", "service", "php.service", True)
JOB = Scope("/j", "service", "job@.service", True, (CURRENT,))
JOB_ONE = Scope("/j1", "service", "job@1.service", False, (f"{PREFIX}/5.1.0/lib/libjemalloc.so.2",))
USER = Scope("/u", "user_service", "puma.service", True, (CURRENT,))
FOREIGN = Scope("/f", "service", "redis.service", False, ("/lib/libjemalloc.so.2",))


@pytest.mark.parametrize(
    ("place", "found", "release", "scope"),
    [
        (Place("puma.service", "system"), [HOST, PUMA], "5.2.1", PUMA),
        (Place("other.service", "system"), [HOST, PUMA], "5.3.1", HOST),
        (Place("php.service", "system"), [HOST, LIST, OUT], "", OUT),
        (Place("job@2.service", "system"), [JOB, JOB_ONE], "5.3.1", JOB),
        (Place("job@1.service", "system"), [JOB_ONE], "5.1.0", JOB_ONE),
        (Place("puma.service", "user", "", 1000), [PUMA, USER], "5.3.1", USER),
        (Place("puma.service", "user", "", 1000), [PUMA], "", None),
        (Place("own.service", "user", "", 1000), [HOST], "5.3.1", HOST),
        (Place("session-1.scope", "system"), [HOST], "", None),
        (Place("session-1.scope", "system"), [LIST], "5.3.1", LIST),
        (Place(), [LIST], "5.3.1", LIST),
        (Place(), [HOST], "", None),
        (Place("puma.service", "container", "1" * 12), [HOST, LIST, PUMA], "", None),
        (Place("redis.service", "system"), [FOREIGN], "", None),
        (Place("redis.service", "system"), [FOREIGN, HOST], "5.3.1", HOST),
    ],
)
def test_wish_of(place: cgroups.Place, found: t.Sequence[Scope], release: str, scope: t.Optional[Scope]) -> None:
    wish = scopes.wish_of(place, found, PREFIX, "5.3.1")
    assert (wish.release, wish.scope) == (release, scope)


def test_since_when(tmp_path: pathlib.Path) -> None:
    (tmp_path / "current").symlink_to("5.3.1")
    os.utime(str(tmp_path / "current"), (2000, 2000), follow_symlinks=False)
    following = Scope("/a", "host", "", True, (f"{tmp_path}/current/lib/libjemalloc.so",), changed=1000)
    fixed = Scope("/b", "host", "", True, (f"{tmp_path}/5.3.1/lib/libjemalloc.so",), changed=1000)
    for scope, since in ((following, 2000), (fixed, 1000), (following._replace(changed=3000), 3000)):
        assert scopes.wish_of(Place("a.service", "system"), [scope], str(tmp_path), "5.3.1").since == since


def test_since_when_without_the_link(tmp_path: pathlib.Path) -> None:
    scope = Scope("/f", "service", "a.service", True, (f"{tmp_path}/current/lib/libjemalloc.so",))
    assert scopes.wish_of(Place("a.service", "system"), [scope], str(tmp_path), "5.3.1").since == 0
