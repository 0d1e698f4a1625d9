# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc, run as a whole: check mode predicts the real run, and a second run changes nothing."""

from __future__ import annotations

import base64
import os
import pathlib
import shutil
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _build as build
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host
from ansible_collections.preload.jemalloc.plugins.module_utils import _install as install
from ansible_collections.preload.jemalloc.plugins.module_utils import _package as package
from ansible_collections.preload.jemalloc.plugins.module_utils import _preload as preload
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc as module
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_bundle as bundle_module

KNOWN = ", ".join(catalogue.RELEASES)

Call = t.Callable[..., t.Dict[str, t.Any]]
Install = t.Callable[..., None]
Tarball = t.Callable[[str], t.Tuple[str, str]]
Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Any]]


@pytest.fixture(autouse=True)
def _alone(alone: None, root: pathlib.Path) -> None:
    """Keep the tests off the network and off what this machine has."""


@pytest.fixture
def prefix(tmp_path: pathlib.Path) -> str:
    """Where the store is going to be."""
    return str(tmp_path / "store")


@pytest.fixture
def build_of(prefix: str, tarball: Tarball) -> t.Callable[[str], t.Dict[str, t.Any]]:
    """The arguments for a release that is built from a small source."""

    def arguments(version: str) -> t.Dict[str, t.Any]:
        path, checksum = tarball(version)
        return {"prefix": prefix, "version": version, "checksum": checksum, "origins": [path]}

    return arguments


def state(installations: t.List[str], current: t.Optional[str], previous: t.Optional[str]) -> t.Dict[str, t.Any]:
    """Return what a result says of the store."""
    return {"installations": installations, "current": current, "previous": previous}


#: What is done to a store with 9.9.8 and, current, 9.9.9; the arguments; what is built; the store afterwards.
SCENARIOS: t.List[t.Tuple[str, str, t.Dict[str, t.Any], t.Optional[str], t.Dict[str, t.Any]]] = [
    ("nothing", "9.9.9", {}, None, state(["9.9.8", "9.9.9"], "9.9.9", "9.9.8")),
    ("nothing", "9.9.8", {}, None, state(["9.9.8", "9.9.9"], "9.9.8", "9.9.9")),
    ("nothing", "9.9.8", {"current": False}, None, state(["9.9.8", "9.9.9"], "9.9.9", "9.9.8")),
    ("nothing", "9.9.10", {}, "9.9.10", state(["9.9.8", "9.9.9", "9.9.10"], "9.9.10", "9.9.9")),
    ("nothing", "9.9.10", {"current": False}, "9.9.10", state(["9.9.8", "9.9.9", "9.9.10"], "9.9.9", "9.9.8")),
    ("nothing", "9.9.9", {"options": {"prof": True}}, "9.9.9", state(["9.9.8", "9.9.9"], "9.9.9", "9.9.8")),
    ("damage", "9.9.9", {}, "9.9.9", state(["9.9.8", "9.9.9"], "9.9.9", "9.9.8")),
    ("receipt", "9.9.9", {}, "9.9.9", state(["9.9.8", "9.9.9"], "9.9.9", "9.9.8")),
    ("wrapper", "9.9.9", {}, None, state(["9.9.8", "9.9.9"], "9.9.9", "9.9.8")),
    ("unlink", "9.9.9", {}, None, state(["9.9.8", "9.9.9"], "9.9.9", "9.9.8")),
    ("gone", "9.9.9", {}, "9.9.9", state(["9.9.9"], "9.9.9", None)),
    ("nothing", "9.9.8", {"state": "absent"}, None, state(["9.9.9"], "9.9.9", None)),
    ("nothing", "9.9.1", {"state": "absent"}, None, state(["9.9.8", "9.9.9"], "9.9.9", "9.9.8")),
    ("nothing", "", {"state": "absent"}, None, state([], None, None)),
    ("gone", "", {"state": "absent"}, None, state([], None, None)),
    ("foreign", "", {"state": "absent"}, None, state([], None, None)),
    ("damage", "", {"state": "absent"}, None, state([], None, None)),
]


def spoil(prefix: str, how: str) -> None:
    """Do something to a store."""
    top = pathlib.Path(prefix, "9.9.9")
    if how == "damage":
        (top / "lib" / "libjemalloc.so.2").write_bytes(b"")
    elif how == "receipt":
        (top / "receipt.json").write_text("{")
    elif how == "wrapper":
        for wrapper in pathlib.Path(prefix).glob("9*/bin/jemalloc.sh"):
            wrapper.write_text("old")
    elif how == "unlink":
        pathlib.Path(prefix, "current").unlink()
    elif how == "gone":
        shutil.rmtree(prefix)
    elif how == "foreign":
        pathlib.Path(prefix, "notes").write_text("")


@pytest.mark.parametrize(("how", "version", "arguments", "built", "expected"), SCENARIOS)
def test_check_mode_predicts_the_real_run_and_a_second_one_changes_nothing(
    call: Call,
    installed: Install,
    snapshot: Snapshot,
    tmp_path: pathlib.Path,
    tarball: Tarball,
    prefix: str,
    how: str,
    version: str,
    arguments: t.Dict[str, t.Any],
    built: t.Optional[str],
    expected: t.Dict[str, t.Any],
) -> None:
    for release in ("9.9.8", "9.9.9"):
        checksum = tarball(release)[1]
        installed(prefix, release, source={"sha256": checksum[len("sha256:") :]})
        publish.switch(prefix, release, publish.Undo())
    spoil(prefix, how)
    if version.endswith("1"):
        assert arguments["state"] == "absent"
    path, checksum = tarball(version) if version else ("", "")
    arguments = {
        "prefix": prefix,
        "version": version,
        "checksum": checksum,
        "origins": [path] if path else [],
        **arguments,
    }
    was = store.read(prefix).describe()
    before = snapshot(tmp_path)
    predicted = call(module, _check=True, **arguments)
    assert snapshot(tmp_path) == before
    done = call(module, **arguments)
    origin = path if built else None
    assert predicted["origin"] is None
    assert done == {**predicted, **({"warnings": done["warnings"]} if "warnings" in done else {}), "origin": origin}
    reasons = {"damage": "lib/libjemalloc.so.2 is not what its receipt says", "receipt": "its receipt cannot be read"}
    reason = reasons.get(how, "it came in another way, from another source or with other options")
    anew = {"installed anew": f"{built}, as {reason}"} if built in was["installations"] else {}
    assert done == {
        "changed": was != expected or built is not None or how == "wrapper",
        "diff": {"before": was, "after": {**expected, **anew}},
        "version": version or None,
        "library": f"{prefix}/current/lib/libjemalloc.so",
        "built": built,
        "origin": origin,
        "packages": [],
        "missing": None,
        **expected,
    }
    assert store.read(prefix).describe() == expected
    between = snapshot(tmp_path)
    for check in (True, False):
        again = call(module, _check=check, **arguments)
        assert again == {
            **done,
            "changed": False,
            "built": None,
            "origin": None,
            "diff": {"before": expected, "after": expected},
        }
        assert snapshot(tmp_path) == between


def test_the_whole_way(call: Call, build_of: t.Callable[[str], t.Dict[str, t.Any]], prefix: str) -> None:
    assert call(module, **build_of("9.9.8"))["changed"]
    found = call(module, **build_of("9.9.9"))
    assert (found["current"], found["previous"], found["built"]) == ("9.9.9", "9.9.8", "9.9.9")
    assert os.path.realpath(found["library"]) == f"{prefix}/9.9.9/lib/libjemalloc.so.2"
    assert call(module, prefix=prefix, state="absent", version="9.9.8")["installations"] == ["9.9.9"]
    found = call(module, prefix=prefix, state="absent", version="9.9.9")
    assert (found["changed"], found["installations"], found["current"]) == (True, [], None)
    assert not os.path.exists(prefix)


def test_the_logs_of_failed_builds_go_with_the_rest(
    call: Call, build_of: t.Callable[[str], t.Dict[str, t.Any]], prefix: str, tmp_path: pathlib.Path
) -> None:
    log = tmp_path / "preload-jemalloc-6.6.6-build.log"
    assert str(log) in call(module, **build_of("6.6.6"))["msg"]
    call(module, **build_of("9.9.9"))
    assert log.exists()
    call(module, prefix=prefix, state="absent")
    assert not log.exists()


def test_whoever_had_the_lock_before_did_it_already(
    call: Call, build_of: t.Callable[[str], t.Dict[str, t.Any]], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(module, **build_of("9.9.9"))
    read, first = store.read, iter([store.Store(prefix)])
    monkeypatch.setattr(store, "read", lambda *given: next(first, None) or read(*given))
    monkeypatch.setattr(build, "build", lambda *_arguments: pytest.fail("it was built again"))
    assert call(module, **build_of("9.9.9"))["current"] == "9.9.9"


def test_the_previous_one(call: Call, build_of: t.Callable[[str], t.Dict[str, t.Any]], prefix: str) -> None:
    for version in ("9.9.8", "9.9.9"):
        call(module, **build_of(version))
    for expected in ("9.9.8", "9.9.9"):
        predicted = call(module, _check=True, prefix=prefix, version="previous")
        done = call(module, prefix=prefix, version="previous")
        assert predicted == done
        assert (done["changed"], done["built"], done["version"], done["current"]) == (True, None, expected, expected)
        assert os.readlink(f"{prefix}/current") == expected
    # it was built with options of its own, and that is no reason to build it anew
    call(module, **{**build_of("9.9.8"), "options": {"prof": True}, "current": False})
    assert call(module, prefix=prefix, version="previous")["built"] is None


def test_there_is_no_previous_one(call: Call, prefix: str) -> None:
    assert wrong(call, prefix=prefix, version="previous") == (
        f"version: there is no previous installation in {prefix} to go back to; name a release instead."
    )


def test_verify(
    call: Call, build_of: t.Callable[[str], t.Dict[str, t.Any]], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("9.9.7", "9.9.8", "9.9.9"):
        call(module, **build_of(version))
    ran: t.List[str] = []
    said: t.List[str] = []
    monkeypatch.setattr(host.Host, "warn", lambda _self, message: said.append(message))
    monkeypatch.setattr(install, "preflight", lambda _run, library: ran.append(library))
    pathlib.Path(prefix, "9.9.7", "bin", "jemalloc-config").write_text("bent")
    assert not call(module, **build_of("9.9.9"))["changed"]
    assert (ran, said) == ([], [])
    assert not call(module, **build_of("9.9.9"), verify=True)["changed"]
    assert ran == [f"{prefix}/9.9.9/lib/libjemalloc.so.2"]
    assert said == [
        f"Damaged in {prefix}: 9.9.7 (bin/jemalloc-config is not what its receipt says); name such a release as "
        "version to have it repaired, or remove it."
    ]
    assert call(module, **build_of("9.9.7"), verify=True)["built"] == "9.9.7"
    assert not call(module, **build_of("9.9.7"), verify=True)["changed"]
    assert ([path for path in ran if "/.staging/" not in path], len(said)) == (
        [f"{prefix}/9.9.9/lib/libjemalloc.so.2", f"{prefix}/9.9.7/lib/libjemalloc.so.2"],
        1,
    )


@pytest.fixture
def packaged(monkeypatch: pytest.MonkeyPatch, library: pathlib.Path) -> t.Dict[str, t.Any]:
    """A distribution whose package holds a library; what tests may change of it."""
    there = {"library": str(library), "candidate": "9.9.9", "manager": "apt-get"}
    monkeypatch.setattr(package, "library", lambda _run, _manager: there["library"])
    monkeypatch.setattr(package, "candidate", lambda _run, _manager: there["candidate"])
    monkeypatch.setattr(build, "package_manager", lambda: there["manager"])
    return there


def test_package(
    call: Call, packaged: t.Dict[str, t.Any], prefix: str, program: t.Callable[[str, str], pathlib.Path]
) -> None:
    log = program("apt-get", "exit 0")
    assert call(module, _check=True, prefix=prefix, method="package")["built"] == "9.9.9"
    done = call(module, prefix=prefix, method="package")
    assert (done["version"], done["built"], done["origin"]) == ("9.9.9", "9.9.9", packaged["library"])
    assert not call(module, prefix=prefix, method="package", version="9.9.9")["changed"]
    # a package that is taken away later leaves its copy in use
    packaged["library"] = None
    assert not call(module, prefix=prefix, method="package")["changed"]
    packaged["candidate"] = None
    assert call(module, prefix=prefix, method="package")["msg"] == (
        "method: apt-get finds no package libjemalloc2 with jemalloc; use method: source."
    )
    assert log.read_text() == "update\n"


def test_a_package_that_does_not_do(call: Call, packaged: t.Dict[str, t.Any], prefix: str) -> None:
    assert wrong(call, prefix=prefix, method="package", version="5.1.0") == (
        "version: the package libjemalloc2 of this host holds jemalloc 9.9.9, not 5.1.0; leave out version, or use "
        "method: source."
    )
    packaged["manager"] = None
    assert wrong(call, prefix=prefix, method="package") == (
        "method: this host has no package manager that this collection knows; use method: source."
    )


def test_bundle(
    call: Call, build_of: t.Callable[[str], t.Dict[str, t.Any]], prefix: str, tmp_path: pathlib.Path
) -> None:
    call(module, **build_of("9.9.9"))
    assert call(bundle_module, prefix=prefix, dist="/x", version="9.9.9") == call(
        bundle_module, prefix=prefix, dist="/x"
    )
    packed = call(bundle_module, prefix=prefix, dist="/x")
    path = tmp_path / "jemalloc-9.9.9.tar.gz"
    path.write_bytes(base64.b64decode(packed["content"]))
    arguments = {
        "prefix": f"{prefix}-2",
        "version": "9.9.9",
        "checksum": build_of("9.9.9")["checksum"],
        "method": "bundle",
        "bundle": str(tmp_path),
        "bundle_checksum": f"sha256:{packed['sha256']}",
    }
    done = call(module, **arguments)
    assert done == {**call(module, _check=True, **{**arguments, "prefix": f"{prefix}-2"}), **done}
    assert (done["built"], done["origin"]) == ("9.9.9", str(path))
    assert not call(module, **arguments)["changed"]
    assert not call(module, **{**arguments, "method": "auto"})["changed"]


def test_bundles_that_cannot_be_packed(call: Call, prefix: str, installed: Install) -> None:
    def no_bundle(**arguments: t.Any) -> str:
        message: str = call(bundle_module, prefix=prefix, dist="/x", **arguments)["msg"]
        return message

    assert no_bundle() == (
        f"version: jemalloc (current) is not installed in {prefix}; install it first, or name one of those that are."
    )
    installed(prefix, "9.9.8", method="package")
    assert no_bundle(version="9.9.9").endswith("install it first, or name one of 9.9.8.")
    assert no_bundle(version="9.9.8").startswith(f"version: {prefix}/9.9.8 is a copy from the distribution's package ")
    spoil(prefix, "nothing")
    pathlib.Path(prefix, "9.9.8", "lib", "libjemalloc.so.2").write_bytes(b"")
    assert no_bundle(version="9.9.8").endswith(
        "(lib/libjemalloc.so.2 is not what its receipt says); install it again first."
    )


def wrong(call: Call, **arguments: t.Any) -> str:
    """Run what has to fail, in check mode and for real; return the message, which is one line."""
    found = [call(module, _check=check, **arguments) for check in (True, False)]
    assert found[0] == found[1]
    assert found[0]["failed"]
    message: str = found[0]["msg"]
    assert "\n" not in message
    return message


def test_errors_of_arguments(call: Call, tmp_path: pathlib.Path, prefix: str) -> None:
    (tmp_path / "file").write_text("")
    cases: t.List[t.Tuple[t.Dict[str, t.Any], str]] = [
        (
            {"version": "5.9.0"},
            f"version: jemalloc 5.9.0 is not a known release; known are {KNOWN}; for another one give its checksum as "
            "well (sha256:...).",
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
            f"version: '../9.9.9' is not the number of a jemalloc release; known are {KNOWN}.",
        ),
        ({"version": "latest"}, f"version: 'latest' is not the number of a jemalloc release; known are {KNOWN}."),
        (
            {"checksum": "abc"},
            "checksum: 'abc' is not a SHA-256 digest; write it as sha256: and 64 hexadecimal digits.",
        ),
        (
            {"prefix": f"{tmp_path}/file"},
            f"prefix: {tmp_path}/file is there and is not a directory; move it away or name another prefix.",
        ),
        (
            {"prefix": "relative"},
            "prefix: 'relative' cannot hold the store; name an absolute path of letters, digits and ._+@- such as "
            "/opt/jemalloc.",
        ),
        (
            {"prefix": f"{tmp_path}/a/b"},
            f"prefix: {tmp_path}/a is not a directory; make it, or name another prefix than {tmp_path}/a/b.",
        ),
        (
            {"for_services": ["a b"]},
            "services: 'a b' is not the name of a service; write it as in systemctl status NAME.",
        ),
        ({"state": "latest"}, "value of state must be one of: present, absent, got: latest"),
    ]
    before = sorted(os.listdir(str(tmp_path)))
    for arguments, message in cases:
        assert wrong(call, **{"prefix": prefix, **arguments}) == message
    assert sorted(os.listdir(str(tmp_path))) == before


def test_a_failure_has_the_keys_that_are_always_there(call: Call, prefix: str) -> None:
    found = call(module, prefix=f"{prefix}/", version="5.9.0")
    assert found["version"] == "5.9.0"
    assert found["library"] == f"{prefix}/current/lib/libjemalloc.so"


def test_a_service_that_is_not_known_is_found_before_a_build(
    call: Call, prefix: str, program: t.Callable[[str, str], pathlib.Path]
) -> None:
    log = program("systemctl", "echo LoadState=not-found")
    assert wrong(call, prefix=prefix, for_services=["pumma"]) == (
        "services: systemd on this host knows no such service: pumma; 'systemctl list-unit-files' lists what it has, "
        "and one that comes later is named with must_exist: false."
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
    path = pathlib.Path(preload.drop_in_path("puma.service"))
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
        (OSError(28, "No space left on device", "/x/y"), "/x/y: No space left on device."),
        (OSError(30, "Read-only file system"), "{prefix}: Read-only file system."),
    ],
)
def test_errors_of_the_system(
    call: Call, prefix: str, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
) -> None:
    def fail(*_given: t.Any) -> t.NoReturn:
        raise error

    monkeypatch.setattr(store, "read", fail)
    assert wrong(call, prefix=prefix) == message.format(prefix=prefix)


def test_the_documentation_names_the_arguments() -> None:
    for name in module.ARGUMENTS:
        assert f"\n  {name}:\n" in module.DOCUMENTATION
