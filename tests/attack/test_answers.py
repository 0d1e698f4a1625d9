# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root on one host of a fleet is nothing on the controller: its answers are refused, and the other host goes on."""

from __future__ import annotations

import os
import re
import shutil
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _answers as answers
from tests.attack import lab as attack
from tests.conftest import Run
from tests.fleet import lab

PLANTED = "planted"


@pytest.fixture(scope="module")
def fleet(run: Run, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[lab.Fleet]:
    """An honest host and one that is in the hands of somebody else."""
    directory = tmp_path_factory.mktemp("answers")
    place = {"name": "preload-jemalloc-answers", "network": "preload-jemalloc-answers", "subnet": "10.79.43"}
    with attack.taken_over(run, directory, 2, **place) as made:
        yield made


@pytest.fixture(scope="module")
def wanted(fleet: lab.Fleet, tarball: t.Callable[[str], tuple[str, str]]) -> dict[str, t.Any]:
    """What asks for a release; its source is on both hosts."""
    path, checksum = tarball("9.9.9")
    for host in fleet.hosts:
        fleet.run("podman", "cp", path, f"{host}:/root/")
    return {"jemalloc_version": "9.9.9", "jemalloc_checksum": checksum, "jemalloc_origins": ["/root"]}


@pytest.fixture
def clean(fleet: lab.Fleet) -> lab.Fleet:
    """The hosts without anything of ours, an empty cache, and a file of the controller that is none of theirs."""
    attack.lie(fleet)
    shutil.rmtree(fleet.cache, ignore_errors=True)
    shutil.rmtree(fleet.directory / "dist", ignore_errors=True)
    for host in fleet.hosts:
        fleet.shell(host, "rm -rf /opt/jemalloc /opt/jemalloc-build")
    (fleet.directory / PLANTED).write_text("key")
    return fleet


def names(fleet: lab.Fleet) -> list[str]:
    """Return what is in the controller's directory beside cache and dist."""
    return sorted(set(os.listdir(fleet.directory)) - {"cache", "dist"})


def play(fleet: lab.Fleet, playbook: str, wrong: str, honest: str, **variables: t.Any) -> str:
    """Play a playbook in which the last host lies; return what was printed. An honest host goes on."""
    before = names(fleet)
    printed = fleet.play(playbook, "-v", check=False, **variables)
    assert answers.plain(printed) == printed
    assert (fleet.directory / PLANTED).read_text() == "key"
    assert names(fleet) == before
    assert "Traceback" not in printed
    last, words = fleet.hosts[-1], re.sub(r"\s+", " ", printed)
    assert f"{last}: the answer of its module {wrong}" in words, printed
    assert "Nothing of it was used." in words
    assert re.search(rf"^{last}\s.*failed=1", printed, re.MULTILINE), printed
    if honest:
        assert re.search(rf"^{honest}\s.*failed=0", printed, re.MULTILINE), printed
    return printed


FORM = "is not of the form that it has to have"
OTHER = "is not what this task asks for"
LIES: dict[str, tuple[dict[str, t.Any], str]] = {
    "C1 a file of the controller": (
        {"missing": {"sources": ["{planted}"], "libc_version": "1.0"}},
        f"missing.sources {FORM}",
    ),
    "C1 a file without an end": ({"missing": {"sources": ["/dev/zero"]}}, f"missing.sources {FORM}"),
    "C1 a number": ({"missing": {"sources": [5]}}, f"missing.sources {FORM}"),
    "C1 a text": ({"missing": {"sources": "x"}}, f"missing.sources {FORM}"),
    "C1 a NUL": ({"missing": {"sources": ["\0"]}}, f"missing.sources {FORM}"),
    "C1 another digest": ({"missing": {"sources": ["0" * 64]}}, f"missing.sources {OTHER}"),
    "m2 a terminal": ({"missing": {"architecture": "\x1b[2J\x1b]0;x\a"}}, f"missing.architecture {FORM}"),
    "m3 another release": ({"missing": {"version": "5.1.0", "checksum": None}}, f"missing.version {OTHER}"),
    "m3 another checksum": ({"missing": {"checksum": f"sha256:{'0' * 64}"}}, f"missing.checksum {OTHER}"),
    "a library": ({"answer": {"library": "/etc/../x\x1b"}}, f"library {FORM}"),
}


#: The lies that a play with a build host is told as well.
NAMED = ("C1 a file of the controller", "m3 another release", "m3 another checksum")


@pytest.mark.parametrize(("name", "named"), [*((name, False) for name in LIES), *((name, True) for name in NAMED)])
def test_what_is_missing(clean: lab.Fleet, wanted: dict[str, t.Any], name: str, named: bool) -> None:
    lies, wrong = LIES[name]
    if lies.get("missing", {}).get("sources") == ["{planted}"]:
        lies = {"missing": {**lies["missing"], "sources": [str(clean.directory / PLANTED)]}}
    attack.lie(clean, **lies)
    honest, last = clean.hosts
    more = {"jemalloc_build_host": honest} if named else {}
    play(clean, "site", f"jemalloc is refused, {wrong}", honest, **wanted, **more)
    assert "9.9.9" in clean.shell(honest, "readlink /opt/jemalloc/current")
    assert clean.shell(last, "ls -d /opt/jemalloc || true").startswith("ls: ")
    assert clean.shell(honest, "ls /opt/jemalloc-build 2>/dev/null || true").split() in (
        [],
        ["9.9.9"],
        ["9.9.9", "current"],
    )


def test_an_address_is_not_asked(clean: lab.Fleet) -> None:
    with lab.serving(clean.directory) as server:
        attack.lie(clean, missing={"archives": [f"{server.address}/admin/delete?all=1&x="]})
        play(clean, "site", f"jemalloc is refused, missing {FORM}", "", jemalloc_hosts=clean.hosts[-1])
        assert server.asked == []


@pytest.mark.parametrize(
    ("lies", "wrong"),
    [
        ({"platform": "../victim/newdir"}, f"platform {FORM}"),
        ({"platform": "{victim}"}, f"platform {FORM}"),
        ({"platform": "x86_64-glibc1.0"}, "platform is not that of the bundle in content"),
        ({"version": "../../9.9.9"}, f"version {FORM}"),
        ({"version": "9.9.8"}, "version is not that of the bundle in content"),
        ({"receipt": {"release": "9.9.9"}}, "receipt is not that of the bundle in content"),
        ({"content": "\x1b[2J"}, "content is not in Base64"),
    ],
)
def test_a_bundle(clean: lab.Fleet, wanted: dict[str, t.Any], lies: dict[str, t.Any], wrong: str) -> None:
    honest, _last = clean.hosts
    clean.play("site", **wanted, jemalloc_prefix="/opt/jemalloc-build", jemalloc_method="source")
    if lies.get("platform") == "{victim}":
        lies = {"platform": str(clean.directory / "victim")}
    attack.lie(clean, packed=lies)
    dist = clean.directory / "dist"
    wrong = f"jemalloc_bundle is refused, {wrong}"
    play(clean, "bundle", wrong, honest, jemalloc_version="9.9.9", jemalloc_dist=str(dist))
    assert [str(path.relative_to(dist)) for path in sorted(dist.rglob("*")) if path.is_file()] == [
        f"{next(dist.iterdir()).name}/SHA256SUMS",
        f"{next(dist.iterdir()).name}/jemalloc-9.9.9.tar.gz",
    ]


def test_a_terminal(clean: lab.Fleet, wanted: dict[str, t.Any]) -> None:
    attack.lie(clean, answer={"origin": "\x1b[2J"}, beside="\n\x1b]0;x\a\x9b2J")
    printed = clean.play("site", "-vvv", **wanted)
    assert answers.plain(printed) == printed
    assert "Module invocation had junk after the JSON data" in printed
    attack.lie(clean, answer={"failed": True, "msg": "It burns.\x1b[2J", "more": ["\a"]})
    printed = clean.play("site", "-vvv", check=False, **wanted)
    assert answers.plain(printed) == printed
    assert "It burns.\N{REPLACEMENT CHARACTER}[2J" in printed
