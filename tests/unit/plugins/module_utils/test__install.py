# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a plan to an installation: a real build of a small source on a host that is made of callables."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archive
from ansible_collections.preload.jemalloc.plugins.module_utils import _build as build
from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundle
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _install as install
from ansible_collections.preload.jemalloc.plugins.module_utils import _package as package
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.module_utils import _source as source
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError


class Host:
    """Runs commands for real, but for those that a test answers; fetches from files."""

    def __init__(self, **answers: t.Tuple[int, str]) -> None:
        self.answers = {name.replace("_", "-"): answer for name, answer in answers.items()}
        self.calls: t.List[t.List[str]] = []
        self.warnings: t.List[str] = []

    def run(
        self, arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
    ) -> t.Tuple[int, str]:
        """Run a command."""
        self.calls.append(list(arguments))
        for name, answer in self.answers.items():
            if name in arguments:
                return answer
        done = subprocess.run(
            arguments,
            cwd=directory,
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def warn(self, message: str) -> None:
        """Remember a warning."""
        self.warnings.append(message)

    def archive_roots(self) -> t.List[str]:
        """Return no archive."""
        return []

    def fetch(self, candidate: source.Candidate, path: str) -> None:
        """Copy a file."""
        if candidate.kind != "file" or not os.path.exists(candidate.location):
            raise JemallocError("it is not there")
        shutil.copyfile(candidate.location, path)


Tarball = t.Callable[[str], t.Tuple[str, str]]


@pytest.fixture
def request_of(tmp_path: pathlib.Path, tarball: Tarball) -> t.Callable[..., install.Request]:
    """Ask for a release that builds in no time."""

    def make(version: str = "9.9.9", build_packages: bool = False, **options: t.Any) -> install.Request:
        path, checksum = tarball(version)
        release = catalogue.find_release(version, checksum)
        chosen = build.Options(**options)
        wish = store.Wish(version, chosen.as_dict(), source=release.sha256)
        origins = ["/missing.tar.gz", path]
        return install.Request(str(tmp_path / "store"), release, wish, chosen, origins, build_packages=build_packages)

    return make


def plan(request: install.Request, make_current: bool = True) -> store.Plan:
    """Plan what a request takes."""
    return store.plan_present(store.read(request.prefix), request.wish, make_current)


def carry_out(host: Host, request: install.Request) -> t.Dict[str, t.Any]:
    """Install as the module does."""
    with publish.locked(request.prefix) as undo:
        return install.carry_out(host, request, plan(request), undo)  # type: ignore[arg-type]  # as much of a Host as this takes


def test_from_source_to_current(request_of: t.Callable[..., install.Request]) -> None:
    request, host = request_of(lg_page=14), Host()
    origin = request.origins[1]
    assert carry_out(host, request) == {"origin": origin, "builder": None, "packages": []}
    assert host.warnings == [
        f"The source came from {origin}, as others did not have it: /missing.tar.gz: it is not there."
    ]
    assert not plan(request).changes
    assert sorted(os.listdir(request.prefix)) == [".lock", "9.9.9", "current"]
    top = pathlib.Path(request.prefix, "9.9.9")
    assert sorted(str(path.relative_to(top)) for path in top.rglob("*")) == [
        "bin",
        "bin/jemalloc-config",
        "bin/jemalloc.sh",
        "bin/no-jemalloc.sh",
        "lib",
        "lib/libjemalloc.so",
        "lib/libjemalloc.so.2",
        "receipt.json",
    ]
    receipt = dict(store.read(request.prefix).installations["9.9.9"].receipt)
    assert re.fullmatch(
        r"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z", receipt.pop("installed_at")
    )
    assert receipt.pop("library_sha256") == receipt.pop("files")["lib/libjemalloc.so.2"]
    assert receipt.pop("platform")["lg_page"] == 14
    assert receipt == {
        "format": 1,
        "release": "9.9.9",
        "library": "libjemalloc.so.2",
        "source": {"sha256": request.release.sha256},
        "origin": origin,
        "method": "source",
        "home": str(top),
        "options": {"cxx": False, "prof": False, "lg_page": 14},
        "configure": [f"--prefix={top}", "--with-lg-page=14", "--disable-cxx", "CFLAGS=-g0", "CXXFLAGS=-g0"],
        "by": "preload.jemalloc",
        "packages": [],
    }


def test_another_build_takes_the_place_of_the_one_before(request_of: t.Callable[..., install.Request]) -> None:
    host = Host()
    carry_out(host, request_of())
    carry_out(host, request_of(prof=True))
    found = store.read(request_of().prefix)
    assert found.installations["9.9.9"].receipt["options"]["prof"] is True
    assert not found.installations["9.9.9"].damage
    assert found.describe() == {"installations": ["9.9.9"], "current": "9.9.9", "previous": None}
    # What is right already is not touched; only the wrapper and the link are brought back.
    pathlib.Path(found.prefix, "9.9.9", "bin", "jemalloc.sh").write_text("old")
    pathlib.Path(found.prefix, "current").unlink()
    host.calls.clear()
    assert carry_out(host, request_of(prof=True)) == {}
    assert host.calls == []
    assert store.read(found.prefix) == found


FAILURES = [
    (
        "6.6.6",
        {},
        r"jemalloc 6\.6\.6 does not build here, make ended with 2: .* error: .* / make: \*\*\* .* Error 1; "
        r"all that it printed is in .*/preload-jemalloc-6\.6\.6-build\.log\.",
    ),
    (
        "7.7.7",
        {},
        r"The library .*/libjemalloc\.so\.2 is not fit for this host, /bin/true fails .*; nothing refers to it\.",
    ),
    ("9.9.9", {"strip": (1, "no space")}, r"The library could not be stripped: no space\."),
]


@pytest.mark.parametrize(("version", "answers", "message"), FAILURES)
def test_what_fails_leaves_nothing(
    request_of: t.Callable[..., install.Request], version: str, answers: t.Dict[str, t.Any], message: str
) -> None:
    request = request_of(version)
    with pytest.raises(JemallocError, match=f"^{message}$"):
        carry_out(Host(**answers), request)
    assert not os.path.exists(request.prefix)
    log = pathlib.Path(install.log_path(install.LOGS[0], version))
    assert log.exists() == (version == "6.6.6")
    if log.exists():
        assert log.stat().st_mode & 0o777 == 0o600
        assert "no C at all" in log.read_text()


def test_what_fails_leaves_the_old_one(request_of: t.Callable[..., install.Request]) -> None:
    carry_out(Host(), request_of())
    before = store.read(request_of().prefix)
    with pytest.raises(JemallocError):
        carry_out(Host(strip=(1, "no")), request_of(prof=True))
    with pytest.raises(JemallocError):
        carry_out(Host(), request_of("7.7.7"))
    assert store.read(before.prefix) == before


def test_a_build_that_works_takes_away_the_log_of_the_one_that_did_not(
    request_of: t.Callable[..., install.Request], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a directory that takes no file is passed over
    monkeypatch.setattr(install, "LOGS", (str(tmp_path / "none"), str(tmp_path)))
    run = Host.run
    monkeypatch.setattr(Host, "run", lambda *a, **k: (2, "no") if "install_lib_shared" in a[1] else run(*a, **k))
    with pytest.raises(JemallocError, match=f"all that it printed is in {tmp_path}/preload-jemalloc-9.9.9-build.log"):
        carry_out(Host(), request_of())
    monkeypatch.setattr(Host, "run", run)
    carry_out(Host(), request_of())
    assert not os.path.exists(install.log_path(str(tmp_path), "9.9.9"))


@pytest.fixture
def bundled(request_of: t.Callable[..., install.Request], tmp_path: pathlib.Path) -> t.Callable[..., install.Request]:
    """Ask for a release from a bundle."""

    def make(method: str = "auto", spoil: bool = False, **options: t.Any) -> install.Request:
        request = request_of()
        carry_out(Host(), dataclasses.replace(request, prefix=str(tmp_path / "elsewhere")))
        receipt = store.read(str(tmp_path / "elsewhere")).installations["9.9.9"].receipt
        data = bundle.pack(str(tmp_path / "elsewhere" / "9.9.9"), receipt)
        path = tmp_path / bundle.file_name("9.9.9")
        path.write_bytes(b"x" if spoil else data)
        chosen = build.Options(**options)
        place = bundle.find(str(path), "9.9.9", f"sha256:{files.sha256(str(path))}")
        wish = store.Wish("9.9.9", chosen.as_dict(), method, bundle=place.sha256)
        return dataclasses.replace(request, wish=wish, options=chosen, bundle=place)

    return make


@pytest.mark.parametrize("builder", ["", "web1"])
def test_from_a_bundle(bundled: t.Callable[..., install.Request], tmp_path: pathlib.Path, builder: str) -> None:
    host, request = Host(), dataclasses.replace(bundled("bundle"), builder=builder)
    assert request.bundle
    done: t.Dict[str, t.Any] = {"origin": request.bundle.location, "builder": builder or None, "packages": []}
    assert carry_out(host, request) == done
    assert not any("make" in call for call in host.calls)
    found = store.read(request.prefix).installations["9.9.9"]
    assert not found.damage
    assert (found.receipt["method"], found.receipt["bundle"]) == ("bundle", request.bundle.sha256)
    assert found.receipt["home"] == f"{request.prefix}/9.9.9"
    config = pathlib.Path(request.prefix, "9.9.9", "bin", "jemalloc-config").read_text()
    assert str(tmp_path / "elsewhere") not in config
    assert not plan(request).changes
    assert found.receipt.get("builder", "") == builder
    # packed again it only differs in where it was at home, and does not name who built it
    again = bundle.pack(f"{request.prefix}/9.9.9", found.receipt)
    assert "builder" not in bundle.portable(found.receipt)
    assert bundle.read_manifest(again)["home"] == f"{request.prefix}/9.9.9"


def test_a_bundle_that_does_not_do(bundled: t.Callable[..., install.Request]) -> None:
    cases: t.List[t.Tuple[t.Dict[str, t.Any], str]] = [
        ({"spoil": True}, "is refused: it is not packed by"),
        ({"prof": True}, "does not fit: it was built with other options"),
    ]
    for arguments, reason in cases:
        request, host = bundled(**arguments), Host()
        with pytest.raises(JemallocError, match=reason):
            carry_out(Host(), dataclasses.replace(request, wish=dataclasses.replace(request.wish, method="bundle")))
        assert carry_out(host, request)["origin"] == request.origins[1]
        assert "It is built from source, as the bundle does not do: " in host.warnings[0]
        assert reason in host.warnings[0]
        shutil.rmtree(request.prefix)


def test_from_a_package(
    request_of: t.Callable[..., install.Request], library: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = dataclasses.replace(request_of(), wish=store.Wish("9.9.9", method="package"))
    there = iter([None, str(library), str(library), None, None])
    monkeypatch.setattr(package, "library", lambda _run, _manager: next(there))
    monkeypatch.setattr(build, "package_manager", lambda: "apk")
    host = Host(apk=(0, ""))
    assert carry_out(host, request) == {"origin": str(library), "builder": None, "packages": ["jemalloc"]}
    assert host.calls[0] == ["apk", "add", "jemalloc"]
    receipt = store.read(request.prefix).installations["9.9.9"].receipt
    assert (receipt["method"], receipt["options"], receipt["library"]) == ("package", None, "libjemalloc.so.2")
    assert receipt["packages"] == ["jemalloc"]
    assert os.path.realpath(f"{request.prefix}/current/lib/libjemalloc.so").endswith("/9.9.9/lib/libjemalloc.so.2")
    shutil.rmtree(request.prefix)
    assert carry_out(host, request)["packages"] == []
    shutil.rmtree(request.prefix)
    with pytest.raises(JemallocError, match="the package jemalloc holds no libjemalloc"):
        carry_out(host, request)


def test_what_is_too_many_goes(request_of: t.Callable[..., install.Request]) -> None:
    for version in ("9.9.8", "9.9.7", "9.9.9"):
        carry_out(Host(), request_of(version))
    request = request_of("9.9.9")
    planned = store.plan_present(store.read(request.prefix), request.wish, True, 0)
    with publish.locked(request.prefix) as undo:
        install.carry_out(Host(), request, planned, undo)  # type: ignore[arg-type]  # as much of a Host as this takes
    assert store.read(request.prefix).describe() == {
        "installations": ["9.9.7", "9.9.9"],
        "current": "9.9.9",
        "previous": "9.9.7",
    }


def test_a_source_that_cannot_be_configured(
    request_of: t.Callable[..., install.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    unpack = archive.unpack

    def bare(path: str, directory: str, holds: str) -> str:
        top = unpack(path, directory, holds)
        os.unlink(f"{top}/configure")
        return top

    monkeypatch.setattr(archive, "unpack", bare)
    request = request_of()
    with pytest.raises(JemallocError) as caught:
        carry_out(Host(), request)
    assert str(caught.value) == (
        f"The archive {request.origins[1]} is refused: it holds neither configure nor configure.ac."
    )


def test_a_snapshot_needs_autoconf(
    request_of: t.Callable[..., install.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: t.List[t.Sequence[str]] = []

    def missing(_run: build.Run, needed: t.Sequence[str]) -> t.List[str]:
        asked.append(needed)
        return [tool for tool in needed if tool == "autoconf"]

    unpack = archive.unpack

    def snapshot(path: str, directory: str, holds: str) -> str:
        top = unpack(path, directory, holds)
        os.rename(f"{top}/configure", f"{top}/configure.ac")
        return top

    monkeypatch.setattr(build, "missing_tools", missing)
    monkeypatch.setattr(build, "package_manager", lambda: "apk")
    monkeypatch.setattr(archive, "unpack", snapshot)
    host = Host(apk=(0, ""), autoconf=(1, "configure.ac: bad"))
    with pytest.raises(JemallocError) as caught:
        carry_out(host, request_of(build_packages=True))
    assert (
        str(caught.value)
        == "jemalloc 9.9.9 does not build here, autoconf ended with 1: $ autoconf / configure.ac: bad; all that it "
        f"printed is in {install.log_path(install.LOGS[0], '9.9.9')}."
    )
    assert [list(tools) for tools in asked] == [["gcc", "make", "headers"], ["autoconf"]]
    assert host.calls[0] == ["apk", "add", "autoconf"]


@pytest.mark.parametrize(
    ("missing", "manager", "allowed", "expected"),
    [
        ([], None, False, []),
        (["gcc", "headers"], "apt-get", True, ["gcc", "libc6-dev"]),
        (
            ["gcc", "headers"],
            "apt-get",
            False,
            "jemalloc 9.9.9 cannot be built here, this host lacks gcc, libc6-dev; install them (apt-get -o "
            "DPkg::Lock::Timeout=300 install -y --no-install-recommends gcc libc6-dev) or allow it "
            "(build_packages: true).",
        ),
        (
            ["make", "headers"],
            None,
            True,
            "jemalloc 9.9.9 cannot be built here, this host lacks make, the C library's headers; install them (the "
            "host's own means) or allow it (build_packages: true).",
        ),
    ],
)
def test_check_tools(
    request_of: t.Callable[..., install.Request],
    monkeypatch: pytest.MonkeyPatch,
    missing: t.List[str],
    manager: t.Optional[str],
    allowed: bool,
    expected: t.Union[str, t.List[str]],
) -> None:
    monkeypatch.setattr(build, "missing_tools", lambda _run, _needed: missing)
    monkeypatch.setattr(build, "package_manager", lambda: manager)
    request = request_of(build_packages=allowed)
    host: t.Any = Host()
    if isinstance(expected, list):
        assert install.check_tools(host, request) == expected
        return
    with pytest.raises(JemallocError) as caught:
        install.check_tools(host, request)
    assert str(caught.value) == expected
