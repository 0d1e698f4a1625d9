# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores that a released version of this collection left on a host: today's code reads, upgrades and removes them.

Each file in layouts/ is a store as that version wrote it, current and previous installed from source. A library would
be of one architecture, so @library@ stands for one of this machine, and @digest@ for its digest.
"""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc as module
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_info as info_module

LAYOUTS = sorted((pathlib.Path(__file__).parent / "layouts").glob("*.json"))
OLD, OLDER, NEW = "9.9.9", "9.9.8", "9.9.10"
OPTIONS = {"cxx": False, "prof": False, "lg_page": None}

Call = t.Callable[..., t.Dict[str, t.Any]]
Tarball = t.Callable[[str], t.Tuple[str, str]]


@pytest.fixture(autouse=True)
def _alone(alone: None, root: pathlib.Path) -> None:
    """Keep the tests off the network and off what this machine has."""


@pytest.fixture(params=LAYOUTS, ids=lambda path: str(path.stem))
def prefix(request: pytest.FixtureRequest, tmp_path: pathlib.Path, library: pathlib.Path) -> pathlib.Path:
    """A store as a released version wrote it."""
    prefix = tmp_path / "store"
    prefix.mkdir(mode=0o755)
    entries: t.Dict[str, t.Dict[str, t.Any]] = json.loads(request.param.read_text())
    for name, entry in entries.items():
        path = prefix / name
        if "link" in entry:
            path.symlink_to(entry["link"])
        elif "directory" in entry:
            path.mkdir(mode=int(entry["directory"], 8))
        else:
            path.write_bytes(_content(entry["lines"], prefix, library))
            path.chmod(int(entry["mode"], 8))
    return prefix


def _content(lines: t.List[str], prefix: pathlib.Path, library: pathlib.Path) -> bytes:
    if lines == ["@library@"]:
        return library.read_bytes()
    text = "".join(f"{line}\n" for line in lines)
    return text.replace("@prefix@", str(prefix)).replace("@digest@", files.sha256(str(library))).encode("ascii")


def links(prefix: pathlib.Path) -> t.List[t.Optional[str]]:
    """Return what current and previous lead to."""
    return [store.read_link(str(prefix), name) for name in store.LINKS]


def test_read(prefix: pathlib.Path) -> None:
    found = store.read(str(prefix))
    assert found.describe() == {"installations": [OLDER, OLD], "current": OLD, "previous": OLDER}
    assert [each.damage for each in found.installations.values()] == ["", ""]
    assert (found.foreign, store.leftovers(str(prefix))) == ((), [])
    for version, installation in found.installations.items():
        source = installation.receipt["source"]["sha256"]
        assert installation.suits(store.Wish(version, OPTIONS, "source", source=source))


def test_its_library_is_the_stable_path(prefix: pathlib.Path, library: pathlib.Path) -> None:
    assert pathlib.Path(store.library(str(prefix))).read_bytes() == library.read_bytes()


@pytest.mark.parametrize("name", ["lib/libjemalloc.so.2", "bin/jemalloc-config"])
def test_damage_is_noticed(prefix: pathlib.Path, name: str) -> None:
    with (prefix / OLDER / name).open("ab") as stream:
        stream.write(b"x")
    damages = {version: found.damage for version, found in store.read(str(prefix)).installations.items()}
    assert damages == {OLDER: f"{name} is not what its receipt says", OLD: ""}


def test_observed(call: Call, prefix: pathlib.Path) -> None:
    found = call(info_module, prefix=str(prefix), gather=["installations"])["installations"]
    assert [(each["version"], each["current"], each["previous"], each["damage"]) for each in found] == [
        (OLDER, False, True, ""),
        (OLD, True, False, ""),
    ]


def test_what_is_installed_is_not_installed_again(call: Call, prefix: pathlib.Path) -> None:
    done = call(module, prefix=str(prefix), version=OLD, checksum=f"sha256:{'0' * 64}", verify=True, build="never")
    assert done["missing"]["version"] == OLD  # another source is another installation
    receipt = json.loads((prefix / OLD / store.RECEIPT).read_text())
    done = call(module, prefix=str(prefix), version=OLD, checksum=f"sha256:{receipt['source']['sha256']}", verify=True)
    assert (done["built"], done["missing"], done["current"]) == (None, None, OLD)


def test_its_lock_keeps_others_out(prefix: pathlib.Path) -> None:
    descriptor = files.lock(str(prefix / store.LOCK))
    assert descriptor is not None
    with pytest.raises(JemallocError, match="Another run has been writing to"), publish.locked(str(prefix), 0):
        pass


def test_upgrade_roll_back_and_remove(call: Call, prefix: pathlib.Path, tarball: Tarball) -> None:
    path, checksum = tarball(NEW)
    arguments = {"prefix": str(prefix), "version": NEW, "checksum": checksum, "origins": [path]}
    assert call(module, **arguments)["built"] == NEW
    assert links(prefix) == [NEW, OLD]
    assert not call(module, **arguments)["changed"]

    back = call(module, prefix=str(prefix), version="previous")
    assert (back["changed"], back["built"], links(prefix)) == (True, None, [OLD, NEW])

    gone = call(module, prefix=str(prefix), version=OLDER, state="absent")
    assert (gone["changed"], gone["installations"]) == (True, [OLD, NEW])
    assert call(module, prefix=str(prefix), state="absent")["changed"]
    assert not prefix.exists()


def test_upgrade_that_keeps_none(call: Call, prefix: pathlib.Path, tarball: Tarball) -> None:
    path, checksum = tarball(NEW)
    done = call(module, prefix=str(prefix), version=NEW, checksum=checksum, origins=[path], keep=0)
    assert (done["installations"], links(prefix)) == ([OLD, NEW], [NEW, OLD])
