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
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc as module
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_bundle as bundle_module
from tests.unit.plugins.modules.jemalloc.conftest import wrong

KNOWN = ", ".join(catalogue.RELEASES)

Call = t.Callable[..., t.Dict[str, t.Any]]
Install = t.Callable[..., None]
Tarball = t.Callable[[str], t.Tuple[str, str]]
Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Any]]


def state(installations: t.List[str], current: t.Optional[str], previous: t.Optional[str]) -> t.Dict[str, t.Any]:
    """Return what a result says of the store."""
    return {"installations": installations, "current": current, "previous": previous}


class Scenario(t.NamedTuple):
    """What is done to a store with 9.9.8 and, current, 9.9.9; the arguments; what is built; the store afterwards."""

    how: str
    version: str
    arguments: t.Dict[str, t.Any]
    built: t.Optional[str]
    expected: t.Dict[str, t.Any]

    def result(self, prefix: str, was: t.Dict[str, t.Any], origin: t.Optional[str]) -> t.Dict[str, t.Any]:
        """Return what the real run has to return."""
        reasons = {
            "damage": "lib/libjemalloc.so.2 is not what its receipt says",
            "receipt": "its receipt cannot be read",
        }
        reason = reasons.get(self.how, "it came in another way, from another source or with other options")
        anew = {"installed anew": f"{self.built}, as {reason}"} if self.built in was["installations"] else {}
        return {
            "changed": was != self.expected or self.built is not None or self.how == "wrapper",
            "diff": {"before": was, "after": {**self.expected, **anew}},
            "version": self.version or None,
            "library": f"{prefix}/current/lib/libjemalloc.so",
            "built": self.built,
            "origin": origin,
            "builder": None,
            "packages": [],
            "missing": None,
            "scopes": None,
            **({"stays": []} if self.arguments.get("state") == "absent" else {}),
            **self.expected,
        }


SCENARIOS = [
    Scenario("nothing", "9.9.9", {}, None, state(["9.9.8", "9.9.9"], "9.9.9", "9.9.8")),
    Scenario("nothing", "9.9.8", {}, None, state(["9.9.8", "9.9.9"], "9.9.8", "9.9.9")),
    Scenario("nothing", "9.9.8", {"current": False}, None, state(["9.9.8", "9.9.9"], "9.9.9", "9.9.8")),
    Scenario("nothing", "9.9.10", {}, "9.9.10", state(["9.9.8", "9.9.9", "9.9.10"], "9.9.10", "9.9.9")),
    Scenario("nothing", "9.9.10", {"current": False}, "9.9.10", state(["9.9.8", "9.9.9", "9.9.10"], "9.9.9", "9.9.8")),
    Scenario("nothing", "9.9.9", {"options": {"prof": True}}, "9.9.9", state(["9.9.8", "9.9.9"], "9.9.9", "9.9.8")),
    Scenario("damage", "9.9.9", {}, "9.9.9", state(["9.9.8", "9.9.9"], "9.9.9", "9.9.8")),
    Scenario("receipt", "9.9.9", {}, "9.9.9", state(["9.9.8", "9.9.9"], "9.9.9", "9.9.8")),
    Scenario("wrapper", "9.9.9", {}, None, state(["9.9.8", "9.9.9"], "9.9.9", "9.9.8")),
    Scenario("unlink", "9.9.9", {}, None, state(["9.9.8", "9.9.9"], "9.9.9", "9.9.8")),
    Scenario("gone", "9.9.9", {}, "9.9.9", state(["9.9.9"], "9.9.9", None)),
    Scenario("nothing", "9.9.8", {"state": "absent"}, None, state(["9.9.9"], "9.9.9", None)),
    Scenario("nothing", "9.9.1", {"state": "absent"}, None, state(["9.9.8", "9.9.9"], "9.9.9", "9.9.8")),
    Scenario("nothing", "", {"state": "absent"}, None, state([], None, None)),
    Scenario("gone", "", {"state": "absent"}, None, state([], None, None)),
    Scenario("foreign", "", {"state": "absent"}, None, state([], None, None)),
    Scenario("damage", "", {"state": "absent"}, None, state([], None, None)),
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


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_check_mode_predicts_the_real_run_and_a_second_one_changes_nothing(
    call: Call, installed: Install, snapshot: Snapshot, tmp_path: pathlib.Path, tarball: Tarball, scenario: Scenario
) -> None:
    prefix = str(tmp_path / "store")
    for release in ("9.9.8", "9.9.9"):
        checksum = tarball(release)[1]
        installed(prefix, release, source={"sha256": checksum[len("sha256:") :]})
        publish.switch(prefix, release, publish.Undo())
    spoil(prefix, scenario.how)
    path, checksum = tarball(scenario.version) if scenario.version else ("", "")
    source = {"version": scenario.version, "checksum": checksum, "origins": [path] if path else []}
    arguments = {"prefix": prefix, **source, **scenario.arguments}
    was, before = store.read(prefix).describe(), snapshot(tmp_path)
    predicted = call(module, _check=True, **arguments)
    assert snapshot(tmp_path) == before
    done = call(module, **arguments)
    origin = path if scenario.built else None
    assert predicted["origin"] is None
    assert done == {**predicted, **({"warnings": done["warnings"]} if "warnings" in done else {}), "origin": origin}
    assert done == scenario.result(prefix, was, origin)
    assert store.read(prefix).describe() == scenario.expected
    between = snapshot(tmp_path)
    unchanged = {"before": scenario.expected, "after": scenario.expected}
    for check in (True, False):
        again = call(module, _check=check, **arguments)
        assert again == {**done, "changed": False, "built": None, "origin": None, "diff": unchanged}
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


def test_what_stays_is_said(
    call: Call,
    build_of: t.Callable[[str], t.Dict[str, t.Any]],
    prefix: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(store, "BUILD_PREFIX", f"{tmp_path}/other")
    call(module, **build_of("9.9.8"))
    receipt = pathlib.Path(prefix, "9.9.8", "receipt.json")
    receipt.write_text(receipt.read_text().replace('"packages": []', '"packages": ["make", "gcc"]'))
    for check in (True, False):
        found = call(module, prefix=prefix, state="absent", _check=check)
        assert found["stays"] == ["packages gcc and make", f"{tmp_path}/other"]
    assert call(module, prefix=prefix, state="absent")["stays"] == []


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
        f"version: there is no previous installation in {prefix} to go back to; name a release instead, or "
        "disable jemalloc: services: [] for its services, host: false for the whole host, state: absent for all."
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
