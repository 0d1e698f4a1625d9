# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles: what makes one fit a host, and what makes one be refused."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import tarfile
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archive
from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundle
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

OPTIONS = {"cxx": False, "prof": False, "lg_page": None}
MADE_FOR = {"architecture": "x86_64", "libc": "glibc", "libc_lowest": "2.34", "lg_page": 12}
RECEIPT = {"release": "5.3.1", "platform": MADE_FOR, "options": OPTIONS}
HERE = platform.Here("x86_64", "glibc", "2.36", 12)
MUSL = {**MADE_FOR, "libc": "musl", "libc_lowest": ""}


@pytest.mark.parametrize(
    ("change", "here", "reason"),
    [
        ({}, HERE, ""),
        ({}, platform.Here("x86_64", "glibc", "2.34", 12), ""),
        ({}, platform.Here("x86_64", "glibc", "2.100", 12), ""),
        ({"release": "5.3.0"}, HERE, "it holds jemalloc 5.3.0, not 5.3.1"),
        (
            {},
            platform.Here("aarch64", "glibc", "2.36", 12),
            "it is for x86_64 with glibc, this host is aarch64 with glibc",
        ),
        ({}, platform.Here("x86_64", "musl", "", 12), "it is for x86_64 with glibc, this host is x86_64 with musl"),
        ({"platform": MUSL}, platform.Here("x86_64", "musl", "", 12), ""),
        ({}, platform.Here("x86_64", "glibc", "2.31", 12), "it needs glibc 2.34, this host has 2.31"),
        (
            {},
            platform.Here("x86_64", "glibc", "2.36", 16),
            "it is for pages of 4096 bytes, this host uses 65536",
        ),
        ({"options": {**OPTIONS, "prof": True}}, HERE, "it was built with other options"),
    ],
)
def test_misfit(change: t.Dict[str, t.Any], here: platform.Here, reason: str) -> None:
    assert bundle.misfit({**RECEIPT, **change}, catalogue.Release("5.3.1", ""), OPTIONS, here) == reason


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({}, "x86_64-glibc2.34"),
        ({"platform": MUSL}, "x86_64-musl"),
        ({"platform": {**MADE_FOR, "architecture": "aarch64"}}, "aarch64-glibc2.34-page4096"),
        ({"options": {"cxx": True, "prof": True, "lg_page": None}}, "x86_64-glibc2.34-cxx-prof"),
    ],
)
def test_name_of_a_platform(change: t.Dict[str, t.Any], name: str) -> None:
    assert platform.name({**RECEIPT, **change}) == name


def test_here() -> None:
    here = platform.here()
    assert here.lg_page in (12, 14, 16)
    assert bool(here.libc_version) == (here.libc == "glibc")


WHOLE = {
    "format": 1,
    "source": {"sha256": "a"},
    "configure": [],
    "home": "/build/5.3.1",
    **RECEIPT,
    "library": "libjemalloc.so.2",
    "library_sha256": hashlib.sha256(b"x").hexdigest(),
    "files": {"lib/libjemalloc.so.2": hashlib.sha256(b"x").hexdigest()},
}
NO_BUNDLES: t.List[t.Any] = [
    "{",
    "[]",
    "null",
    "{}",
    {"format": 2},
    {"files": {}},
    {"files": []},
    {"library_sha256": "b"},
    {"library": "other.so"},
]


def packed(tmp_path: pathlib.Path, receipt: str) -> str:
    """Return the path of a bundle of one file with a receipt."""
    members = {"j/receipt.json": (receipt.encode("ascii"), False), "j/lib/libjemalloc.so.2": (b"x", True)}
    path = tmp_path / "a.tar.gz"
    path.write_bytes(archive.pack(members))
    return str(path)


def test_unpack(tmp_path: pathlib.Path) -> None:
    tree, receipt = bundle.unpack(packed(tmp_path, json.dumps(WHOLE)), str(tmp_path))
    assert receipt == WHOLE
    assert os.listdir(tree) == ["lib"]


@pytest.mark.parametrize("missing", sorted(WHOLE))
def test_unpack_of_a_receipt_that_lacks_something(tmp_path: pathlib.Path, missing: str) -> None:
    path = packed(tmp_path, json.dumps({key: value for key, value in WHOLE.items() if key != missing}))
    with pytest.raises(JemallocError, match="it is no bundle of this collection"):
        bundle.unpack(path, str(tmp_path))


@pytest.mark.parametrize("receipt", NO_BUNDLES)
def test_unpack_of_what_is_no_bundle(tmp_path: pathlib.Path, receipt: t.Any) -> None:
    path = packed(tmp_path, json.dumps({**WHOLE, **receipt}) if isinstance(receipt, dict) else receipt)
    with pytest.raises(JemallocError) as caught:
        bundle.unpack(path, str(tmp_path))
    assert str(caught.value) == f"The archive {path} is refused: it is no bundle of this collection."


def test_pack_and_unpack(tmp_path: pathlib.Path, installed: t.Callable[..., None], library: pathlib.Path) -> None:
    more = {"format": 1, "library_sha256": "", "configure": [], "home": "/b/9.9.9", "platform": MADE_FOR}
    for prefix, when in (("one", "2026"), ("two", "2027")):
        installed(str(tmp_path / prefix), "9.9.9", **more, installed_at=when, origin=prefix)
    packed = []
    for prefix, order in (("one", 1), ("two", -1)):
        receipt = dict(list(store.read(str(tmp_path / prefix)).installations["9.9.9"].receipt.items())[::order])
        receipt["options"] = dict(list(receipt["options"].items())[::order])
        receipt["library_sha256"] = receipt["files"]["lib/libjemalloc.so.2"]
        packed.append(bundle.pack(str(tmp_path / prefix / "9.9.9"), receipt))
    assert packed[0] == packed[1]
    path = tmp_path / bundle.file_name("9.9.9")
    path.write_bytes(packed[0])
    with tarfile.open(str(path)) as tar:
        modes = {member.name.partition("/")[2]: member.mode for member in tar if member.isfile()}
    assert (modes["receipt.json"], modes["lib/libjemalloc.so.2"]) == (0o644, 0o644)
    tree, portable = bundle.unpack(str(path), str(tmp_path))
    assert sorted(str(found.relative_to(tree)) for found in pathlib.Path(tree).rglob("*")) == [
        "lib",
        "lib/libjemalloc.so.2",
    ]
    assert {"installed_at", "origin"}.isdisjoint(portable)
    assert pathlib.Path(tree, "lib", "libjemalloc.so.2").read_bytes() == library.read_bytes()


def test_settle(tmp_path: pathlib.Path) -> None:
    for name in ("bin/jemalloc-config", "lib/libjemalloc.so.2"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("prefix=/build/5.3.1\n")
    names = {"bin/jemalloc-config": "", "lib/libjemalloc.so.2": ""}
    bundle.settle(str(tmp_path), {"home": "/build/5.3.1", "files": names}, "/opt/jemalloc/5.3.1")
    assert (tmp_path / "bin/jemalloc-config").read_text() == "prefix=/opt/jemalloc/5.3.1\n"
    assert (tmp_path / "lib/libjemalloc.so.2").read_text() == "prefix=/build/5.3.1\n"


DIGEST = f"sha256:{'a' * 64}"


def test_find(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "jemalloc-5.3.1.tar.gz"
    path.write_text("")
    assert bundle.find(str(tmp_path), "5.3.1", DIGEST).location == str(path)
    assert (
        bundle.find("https://example.com/b/", "5.3.1", DIGEST).location == "https://example.com/b/jemalloc-5.3.1.tar.gz"
    )
    with pytest.raises(JemallocError) as caught:
        bundle.find(str(path), "5.3.1", None)
    assert str(caught.value) == (
        f"bundle: nothing says what the digest of {path} has to be; give bundle_checksum, or list it in "
        f"{tmp_path}/SHA256SUMS."
    )
    with pytest.raises(JemallocError, match=r"give bundle_checksum\.$"):
        bundle.find("https://example.com/b.tar.gz", "5.3.1", None)
    (tmp_path / "SHA256SUMS").write_text("AA  other\nBB *jemalloc-5.3.1.tar.gz\n")
    assert bundle.find(str(path), "5.3.1", None).sha256 == "bb"
