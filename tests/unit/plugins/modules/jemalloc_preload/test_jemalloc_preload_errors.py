# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module jemalloc_preload refuses, and errors of the system."""

from __future__ import annotations

import os
import pathlib
import typing as t
from unittest import mock

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _preload as preload
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.module_utils import _scoping as scoping
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

Call = t.Callable[..., t.Dict[str, t.Any]]
Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Any]]


def test_what_cannot_preload_is_said_before_it_is_tried(
    scopes: Call, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    warnings: t.List[str] = []
    monkeypatch.setattr(host.Host, "warn", lambda _self, message: warnings.append(message))
    reason = f"hidden.service: RootDirectory=/srv/root hides {prefix} from it; add BindReadOnlyPaths={prefix}"
    assert scopes(services=["puma", "hidden"])["msg"] == (
        f"services: {reason}; take it off the list, or set force: true for it to try all the same."
    )
    assert warnings == []
    assert scopes(services=["puma", {"name": "hidden", "force": True}])["changed"]
    assert warnings == [f"{reason}."]


REFUSED: t.List[t.Tuple[t.Dict[str, t.Any], str]] = [
    (
        {"services": [{"name": "puma", "verison": "9.9.8"}]},
        "services: {'name': 'puma', 'verison': '9.9.8'}: an entry has no key verison; it is a name or has name, "
        "version, malloc_conf, environment, scope, must_exist, force.",
    ),
    (
        {"services": [["puma"]]},
        "services: ['puma']: an entry needs a name; it is a name or has name, version, malloc_conf, environment, "
        "scope, must_exist, force.",
    ),
    ({"services": [{"name": "puma", "scope": "x"}]}, "services: puma.service: scope is 'x'; it is system or user."),
    ({"services": [{"name": "puma", "force": 1}]}, "services: puma.service: force is 1; it is true or false."),
    (
        {"services": [{"name": "puma", "malloc_conf": 2}]},
        "services: puma.service: malloc_conf: it is to have names and values, as {narenas: 2} or narenas:2.",
    ),
    (
        {"services": [{"name": "puma", "malloc_conf": "narenas:2,tcache:"}]},
        "services: puma.service: malloc_conf: 'tcache' has no value; write it as in narenas:2,background_thread:true.",
    ),
    (
        {"services": [{"name": "puma", "environment": ["A=1"]}]},
        "services: puma.service: environment is to have names and values, as {MALLOC_ARENA_MAX: 2}.",
    ),
    (
        {"services": [{"name": "puma", "environment": {"A-B": 1}}]},
        "services: puma.service: environment: 'A-B' is no name of a variable; it has letters, digits and _.",
    ),
    (
        {"services": [{"name": "puma", "environment": {"LD_PRELOAD": "/a.so"}}]},
        "services: puma.service: environment: LD_PRELOAD is set by other means, such as malloc_conf; leave it out.",
    ),
    (
        {"services": [{"name": "puma", "environment": {"A": "1\n2"}}]},
        "services: puma.service: environment: the value of A is to be one line of text.",
    ),
    (
        {"host": True, "via": "ld_so_preload", "malloc_conf": "narenas:2"},
        "malloc_conf: it needs via: environment; for one service write it in its entry of services.",
    ),
    (
        {"host": True, "malloc_conf": "narena:2"},
        "malloc_conf: jemalloc has no option 'narena'; did you mean narenas, which is there in 3.6.0 on?",
    ),
    (
        {"services": [{"name": "puma", "malloc_conf": {"narena": 2}}]},
        "services: puma.service: malloc_conf: jemalloc has no option 'narena'; did you mean narenas, which "
        "is there in 3.6.0 on?",
    ),
    (
        {"services": ["puma", {"name": "puma", "force": True}]},
        "services: puma.service is listed twice, with different settings; keep one of them.",
    ),
    (
        {"services": ["puma"], "exclude": ["puma"]},
        "exclude: puma.service is in services too; take it off one of the lists.",
    ),
    (
        {"exclude": ["/usr/bin/top"]},
        "exclude: '/usr/bin/top' is the name of no service and no command; take it off the list.",
    ),
    (
        {"host": True, "via": "ld_so_preload", "services": [{"name": "puma", "version": "9.9.8"}]},
        "services: puma.service wants jemalloc 9.9.8, but with via: ld_so_preload every process has 9.9.9; leave out "
        "its version, or use via: environment.",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_is_refused(
    scopes: Call, root: pathlib.Path, snapshot: Snapshot, arguments: t.Dict[str, t.Any], message: str
) -> None:
    before = snapshot(root)
    for check in (True, False):
        assert scopes(_check=check, **arguments)["msg"] == message
    assert snapshot(root) == before


def test_what_is_refused_for_what_stands_there(
    scopes: Call, root: pathlib.Path, prefix: str, program: t.Callable[[str, str], pathlib.Path], monkeypatch: t.Any
) -> None:
    program("tool", "")
    (root / "usr/local/bin").mkdir(parents=True)
    (root / "usr/local/bin/tool").write_text("#!/bin/sh\n")
    path = f"{root}/usr/local/bin/tool"
    assert scopes(exclude=["tool"])["msg"] == (
        f"exclude: {path} is there and not ours; call tool there by no-jemalloc.sh."
    )
    message = scopes(services=[{"name": "puma", "version": "9.9.7"}])["msg"]
    assert message.startswith(f"{prefix}/9.9.7 cannot be preloaded: no such release is installed there; run ")
    monkeypatch.setattr(platform, "libc", lambda: "musl")
    assert scopes(host=True, via="ld_so_preload")["msg"] == (
        "via: only glibc reads /etc/ld.so.preload, which this host does not have; use environment."
    )


def test_pages_that_are_too_large(call: Call, scopes: Call, installed: t.Callable[..., None], prefix: str) -> None:
    installed(prefix, "9.9.7", platform={"lg_page": 9})
    publish.switch(prefix, "9.9.7", publish.Undo())
    message = scopes(services=["puma"])["msg"]
    assert message == (
        f"{prefix}/9.9.7 was built for pages of 512 bytes, this host uses {os.sysconf('SC_PAGE_SIZE')}; build it here "
        "by method: source."
    )


def test_a_service_that_an_earlier_task_would_make(scopes: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: t.List[str] = []
    monkeypatch.setattr(host.Host, "warn", lambda _self, message: warnings.append(message))
    message = "services: systemd on this host knows no such service: missing; "
    assert scopes(services=["puma", "missing"])["msg"].startswith(message)
    forecast = scopes(_check=True, services=["puma", "missing"])
    drop_ins = [path.split("/")[-2] for path in forecast["files"] if ".service.d/" in path]
    assert drop_ins == ["puma.service.d", "missing.service.d"]
    (warning,) = warnings
    message = message.partition(": ")[2]
    assert (warning.startswith(message), warning.endswith("Without check mode this is an error.")) == (True, True)


def test_errors(
    call: Call, scopes: Call, root: pathlib.Path, tmp_path: pathlib.Path, snapshot: Snapshot, prefix: str
) -> None:
    install_first = "run preload.jemalloc.jemalloc with this prefix first."
    cases: t.List[t.Tuple[t.Dict[str, t.Any], str]] = [
        (
            {"services": ["a b"]},
            "services: 'a b' is not the name of a service; write it as in systemctl status NAME.",
        ),
        (
            {"prefix": f"{tmp_path}/other"},
            f"{tmp_path}/other/current cannot be preloaded: no such release is installed there; {install_first}",
        ),
        (
            {"prefix": "/a b"},
            "prefix: '/a b' cannot hold the store; name an absolute path of letters, digits and ._+@- such as "
            "/opt/jemalloc.",
        ),
        (
            {"texts": None},
            "texts: nothing was rendered; call this module by its full name, so that its action runs.",
        ),
    ]
    before = snapshot(root)
    for arguments, message in cases:
        for check in (True, False):
            found = scopes(_check=check, **arguments)
            assert (found["msg"], found["failed"], found["files"]) == (message, True, [])
    pathlib.Path(prefix, "9.9.9", "lib", "libjemalloc.so.2").write_text("x")
    assert scopes()["msg"] == (
        f"{prefix}/current cannot be preloaded: lib/libjemalloc.so.2 is not what its receipt says; {install_first}"
    )
    assert snapshot(root) == before


FULL = "No space left on device; all files are as before; make room there."


@pytest.mark.parametrize(
    ("error", "user", "message"),
    [
        (OSError(28, "No space left on device", "/x"), 0, f"/x: {FULL}"),
        (OSError(28, "No space left on device"), 0, f"this host: {FULL}"),
        (PermissionError(13, "Permission denied", "/x"), 0, "/x: Permission denied; all files are as before."),
        (PermissionError(13, "Permission denied", "/x"), 7, "/x: Permission denied; run this as root (become: true)."),
    ],
)
def test_errors_of_the_system(
    scopes: Call, monkeypatch: pytest.MonkeyPatch, error: OSError, user: int, message: str
) -> None:
    def fail() -> t.NoReturn:
        raise error

    monkeypatch.setattr(preload, "clear_leftovers", fail)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert scopes()["msg"] == message


def test_a_container_without_capabilities_keeps_no_command_out(monkeypatch: pytest.MonkeyPatch) -> None:
    run = mock.Mock(return_value=(0, "a warning"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    scoping.check_commands(run, ["perl"])
    scoping.check_commands(run, [])
    run.assert_called_once_with(["unshare", "--mount", "true"], None, None)
    run.return_value = (1, "unshare failed")
    with pytest.raises(JemallocError) as caught:
        scoping.check_commands(run, ["perl", "awk"])
    assert str(caught.value) == (
        "exclude: awk, perl would not start any more: with via: ld_so_preload that takes the capability CAP_SYS_ADMIN, "
        "which is not to be had here; take it off the list, or use via: environment."
    )
