# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module jemalloc refuses, in check mode and for real, before anything changed."""

from __future__ import annotations

import os
import pathlib
import shutil
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc as module
from tests.unit.plugins.modules.jemalloc.conftest import wrong

Call = t.Callable[..., t.Dict[str, t.Any]]
Install = t.Callable[..., None]
Tarball = t.Callable[[str], t.Tuple[str, str]]


#: Arguments, and what is said of them; {top} stands for a directory with a file.
ARGUMENTS: t.List[t.Tuple[t.Dict[str, t.Any], str]] = [
    (
        {"version": "5.9.0"},
        "version: jemalloc 5.9.0 is not a known release; did you mean 5.4.0? For another one give its checksum as well "
        "(sha256:...).",
    ),
    ({"keep": -1}, "keep: -1 is negative; it is the number of other installations that stay."),
    (
        {"method": "bundle"},
        "bundle: method: bundle needs a bundle; name its file or URL, or call this module by its whole name, so "
        "that the controller looks into its cache.",
    ),
    (
        {"latest": True},
        "latest: the controller's half of this module looks that up; call it by its whole name.",
    ),
    (
        {"bundle": "/srv", "bundle_checksum": "md5:1"},
        "bundle_checksum: 'md5:1' is not a SHA-256 digest; write it as sha256: and 64 hexadecimal digits.",
    ),
    (
        {"state": "absent", "version": "../9.9.9"},
        "version: '../9.9.9' is not the number of a jemalloc release; write it as in 5.3.1.",
    ),
    (
        {"version": "latest"},
        "version: 'latest' is not the number of a jemalloc release; for the newest one of upstream leave it out and "
        "set latest: true.",
    ),
    ({"version": "v5.3.1"}, "version: 'v5.3.1' is not the number of a jemalloc release; did you mean 5.3.1?"),
    (
        {"checksum": "abc"},
        "checksum: 'abc' is not a SHA-256 digest; write it as sha256: and 64 hexadecimal digits.",
    ),
    (
        {"prefix": "{top}/file"},
        "prefix: {top}/file is there and is not a directory; move it away or name another prefix.",
    ),
    (
        {"prefix": "relative"},
        "prefix: 'relative' cannot hold the store; name an absolute path of letters, digits and ._+@- such as "
        "/opt/jemalloc.",
    ),
    (
        {"prefix": "{top}/a/b"},
        "prefix: {top}/a is not a directory; make it, or name another prefix than {top}/a/b.",
    ),
    (
        {"for_services": ["a b"]},
        "services: 'a b' is not the name of a service; write it as in systemctl status NAME.",
    ),
    ({"state": "latest"}, "value of state must be one of: present, absent, got: latest"),
]


@pytest.mark.parametrize(("arguments", "message"), ARGUMENTS)
def test_errors_of_arguments(
    call: Call, tmp_path: pathlib.Path, prefix: str, arguments: t.Dict[str, t.Any], message: str
) -> None:
    (tmp_path / "file").write_text("")
    if "prefix" in arguments:
        prefix = arguments["prefix"].replace("{top}", str(tmp_path))
    before = sorted(os.listdir(str(tmp_path)))
    assert wrong(call, **{**arguments, "prefix": prefix}) == message.replace("{top}", str(tmp_path))
    assert sorted(os.listdir(str(tmp_path))) == before


def test_a_failure_has_the_keys_that_are_always_there(call: Call, prefix: str) -> None:
    found = call(module, prefix=f"{prefix}/", version="5.9.0")
    assert found["version"] == "5.9.0"
    assert found["library"] == f"{prefix}/current/lib/libjemalloc.so"


def test_a_service_that_is_not_known_is_found_before_a_build(
    call: Call, prefix: str, program: t.Callable[[str, str], pathlib.Path]
) -> None:
    log = program("systemctl", "echo LoadState=not-found")
    assert call(module, prefix=prefix, for_services=["pumma"])["msg"] == (
        "services: systemd on this host knows no such service: pumma; 'systemctl list-unit-files' lists what it has. "
        "One that comes later is named {name: pumma, must_exist: false}."
    )
    assert log.read_text().endswith(" -- pumma.service\n")
    assert not os.path.exists(prefix)


@pytest.mark.parametrize("check", [True, False])
def test_what_needs_systemd_is_refused_before_a_build(
    call: Call, prefix: str, root: pathlib.Path, installed: t.Callable[..., None], check: bool
) -> None:
    (root / "run/systemd/system").rmdir()
    services = call(module, _check=check, prefix=prefix, for_services=["puma"])
    assert services["msg"] == (
        "services: puma.service cannot be looked up, systemd is not the init of this host; run the command by "
        "jemalloc.sh instead."
    )
    metrics = (
        "metrics: systemd is not the init of this host, and metrics need its timers; leave them out for it "
        "(jemalloc_metrics: false)."
    )
    assert call(module, _check=check, prefix=prefix, for_metrics=True)["msg"] == metrics
    assert not os.path.exists(prefix)
    installed(prefix, "9.9.9")
    wanted = {"version": "9.9.9", "checksum": f"sha256:{'0' * 64}", "current": False}
    assert call(module, _check=check, prefix=prefix, for_metrics=True, **wanted)["msg"] == metrics


def test_no_compiler_is_found_in_check_mode_too(call: Call, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/apk" if name == "apk" else None)
    assert wrong(call, prefix=prefix, version="5.1.0", build_packages=False) == (
        "jemalloc 5.1.0 cannot be built here, this host lacks gcc, make, musl-dev; install them (apk add gcc make "
        "musl-dev) or allow it (build_packages: true)."
    )


def test_no_source_is_found(call: Call, prefix: str, tarball: Tarball) -> None:
    path, checksum = tarball("9.9.9")
    found = call(module, prefix=prefix, version="5.1.0", origins=[path, "/missing.tar.gz"])
    wanted, got = catalogue.RELEASES["5.1.0"].sha256, checksum[len("sha256:") :]
    assert found["msg"] == (
        f"No origin has the source of this release; tried 3: {path}: SHA-256 is {got} where {wanted} was expected; "
        "/missing.tar.gz: No such file or directory; http://127.0.0.1:1/jemalloc-5.1.0.tar.bz2: Connection "
        "refused (tried 3 times). Name a mirror or a local tarball in origins."
    )
    assert not os.path.exists(prefix)


def test_origins_that_are_none(call: Call, prefix: str) -> None:
    found = call(module, prefix=prefix, version="5.1.0", origins=["mirror.example.com"])
    assert found["msg"] == (
        "origins: 'mirror.example.com' is neither an absolute path on the host nor a file://, http:// or https:// URL."
    )
    assert not os.path.exists(prefix)


def test_a_release_that_is_current_cannot_be_removed(call: Call, installed: Install, prefix: str) -> None:
    for version in ("9.9.8", "9.9.9"):
        installed(prefix, version)
        publish.switch(prefix, version, publish.Undo())
    assert wrong(call, prefix=prefix, state="absent", version="9.9.9") == (
        f"jemalloc 9.9.9 is what {prefix}/current leads to and cannot be removed; make another release current first "
        "(9.9.8 are installed)."
    )


def test_what_a_scope_refers_to_cannot_be_removed(call: Call, installed: Install, prefix: str) -> None:
    for version in ("9.9.8", "9.9.9"):
        installed(prefix, version)
        publish.switch(prefix, version, publish.Undo())
    path = pathlib.Path(places.drop_in_path("puma.service"))
    path.parent.mkdir(parents=True)
    path.write_text(f"# preload.jemalloc\nEnvironment=LD_PRELOAD={prefix}/9.9.8/lib/libjemalloc.so\n")
    take_away = (
        f"cannot be removed while it is named in {path}; "
        "take that scope away first with preload.jemalloc.jemalloc_preload."
    )
    assert wrong(call, prefix=prefix, state="absent") == f"{prefix} {take_away}"
    assert wrong(call, prefix=prefix, state="absent", version="9.9.8") == f"{prefix}/9.9.8 {take_away}"
    # In check mode of a play that is going to take the scope away it is still there.
    arguments = {"prefix": prefix, "state": "absent", "released": [str(path)]}
    assert call(module, _check=True, **arguments)["changed"]
    assert call(module, **arguments)["msg"] == f"{prefix} {take_away}"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            PermissionError(13, "Permission denied", "/x/.lock"),
            "/x/.lock: Permission denied; run this as root (become: true).",
        ),
        (OSError(28, "No space left on device", "/x/y"), "/x/y: No space left on device; make room there."),
        (OSError(30, "Read-only file system"), "{prefix}: Read-only file system."),
    ],
)
def test_errors_of_the_system(
    call: Call, prefix: str, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
) -> None:
    def fail(*_given: t.Any) -> t.NoReturn:
        raise error

    monkeypatch.setattr(store, "read", fail)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert wrong(call, prefix=prefix) == message.format(prefix=prefix)
