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


DIGEST_OF_X = hashlib.sha256(b"x").hexdigest()
WHOLE: t.Dict[str, t.Any] = {
    "format": 1,
    "source": {"sha256": "a" * 64},
    "configure": ["--prefix=/build/5.3.1"],
    "home": "/build/5.3.1",
    **RECEIPT,
    "library": "libjemalloc.so.2",
    "library_sha256": DIGEST_OF_X,
    "files": {"lib/libjemalloc.so.2": DIGEST_OF_X},
}
NOT_JSON = ["", "{", "[" * 100_000, '{"format": NaN}', f'{{"format": {"1" * 21}}}']
#: What is wrong: the field as the message names it, and values of the name before its dot.
WRONG: t.Dict[str, t.List[t.Any]] = {
    "format": [2, "1", True, None, 1.0],
    "release": ["5.3", "../5.3.1", "5.3.1\n", 5, ["5.3.1"]],
    "library": ["other.so", "../libjemalloc.so.2", "libjemalloc.so.2/", None],
    "library_sha256": ["b", "b" * 64, DIGEST_OF_X.upper(), 1],
    "source": ["a", [], {"sha256": "a" * 64, "more": 1}],
    "source.sha256": [{}, {"sha256": "a"}, {"sha256": ["a" * 64]}],
    "platform": [[], None, {**MADE_FOR, "more": 1}],
    "platform.libc": [{**MADE_FOR, "libc": "uclibc"}],
    "platform.libc_lowest": [{**MADE_FOR, "libc_lowest": value} for value in ("2.x", 2.34, "2")],
    "platform.architecture": [{**MADE_FOR, "architecture": value} for value in ("..", "", "\x1b[2J", 1)],
    "platform.lg_page": [{**MADE_FOR, "lg_page": value} for value in ("12", 11, 19, 12.0, True, 1 << 60)],
    "options": [[], {**OPTIONS, "more": 1}],
    "options.cxx": [{**OPTIONS, "cxx": 0}],
    "options.prof": [{**OPTIONS, "prof": "no"}],
    "options.lg_page": [{**OPTIONS, "lg_page": value} for value in (15, "12", True, 12.0)],
    "configure": ["x", {"x": 1}, ["\x1b"], ["x"] * 101, [1]],
    "home": ["", "/", "5.3.1", "/b/../5.3.1", "/b/5.3.1/", "/b", "/b c/5.3.1", None],
    "files": [[], {"/lib": DIGEST_OF_X}, {"a": "b"}, {"a/../b": DIGEST_OF_X}],
}


def packed(tmp_path: pathlib.Path, receipt: str) -> str:
    """Return the path of a bundle of one file with a receipt."""
    members = {"j/receipt.json": (receipt.encode("ascii"), False), "j/lib/libjemalloc.so.2": (b"x", True)}
    path = tmp_path / "a.tar.gz"
    path.write_bytes(archive.pack(members))
    return str(path)


def test_unpack(tmp_path: pathlib.Path) -> None:
    path = packed(tmp_path, json.dumps({**WHOLE, "of a later version": "is dropped"}))
    tree, receipt = bundle.unpack(path, str(tmp_path))
    assert receipt == WHOLE == bundle.read_manifest(pathlib.Path(path).read_bytes())
    assert os.listdir(tree) == ["lib"]


def test_unpack_of_other_files_than_listed(tmp_path: pathlib.Path) -> None:
    path = packed(tmp_path, json.dumps({**WHOLE, "files": {**WHOLE["files"], "lib/more": "a" * 64}}))
    with pytest.raises(JemallocError) as caught:
        bundle.unpack(path, str(tmp_path))
    assert str(caught.value) == f"The archive {path} is refused: it does not hold what its receipt.json lists."


def test_unpack_of_a_manifest_that_is_a_directory(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(archive.pack({"j/receipt.json/x": (b"{}", False)}))
    with pytest.raises(JemallocError, match=r"its receipt\.json is no file of at most 256 KiB\.$"):
        bundle.unpack(str(tmp_path / "a.tar.gz"), str(tmp_path))


def test_manifest_without_the_library() -> None:
    with pytest.raises(JemallocError, match=r": library_sha256 is wrong or missing$"):
        bundle.parse_manifest(json.dumps({**WHOLE, "files": {}}))


@pytest.mark.parametrize("missing", sorted(WHOLE))
def test_manifest_without_a_field(missing: str) -> None:
    with pytest.raises(JemallocError) as caught:
        bundle.parse_manifest(json.dumps({key: value for key, value in WHOLE.items() if key != missing}))
    assert str(caught.value) == f"its receipt.json is no manifest of this collection: {missing} is wrong or missing"


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in WRONG.items() for value in values])
def test_manifest_with_a_wrong_field(tmp_path: pathlib.Path, path: str, value: t.Any) -> None:
    text = json.dumps({**WHOLE, path.partition(".")[0]: value})
    bundled = packed(tmp_path, text)
    reason = f"its receipt.json is no manifest of this collection: {path} is wrong or missing"
    for read, what in (
        (lambda: bundle.unpack(bundled, str(tmp_path)), f"The archive {bundled}"),
        (lambda: bundle.read_manifest(pathlib.Path(bundled).read_bytes()), "The bundle"),
    ):
        with pytest.raises(JemallocError) as caught:
            read()
        assert str(caught.value) == f"{what} is refused: {reason}."


@pytest.mark.parametrize("text", NOT_JSON)
def test_manifest_that_is_no_json(text: str) -> None:
    with pytest.raises(JemallocError, match=r"^its receipt\.json is no JSON$"):
        bundle.parse_manifest(text)


@pytest.mark.parametrize("text", ["[]", "null", "1", '"format"'])
def test_manifest_that_is_no_mapping(text: str) -> None:
    with pytest.raises(JemallocError, match=r"format is wrong or missing$"):
        bundle.parse_manifest(text)


def test_manifest_that_is_too_large() -> None:
    text = json.dumps({**WHOLE, "more": "x" * (1 << 18)})
    with pytest.raises(JemallocError, match=r"^its receipt\.json is larger than 256 KiB$"):
        bundle.parse_manifest(text)
    with pytest.raises(JemallocError) as caught:
        bundle.read_manifest(archive.pack({"j/receipt.json": (text.encode("ascii"), False)}))
    assert str(caught.value) == "The bundle is refused: its receipt.json is larger than 256 KiB."


def test_read_manifest_that_is_no_text() -> None:
    with pytest.raises(JemallocError, match=r"^The bundle is refused: its receipt\.json is not in UTF-8\.$"):
        bundle.read_manifest(archive.pack({"j/receipt.json": (b"\xff", False)}))


def test_pack_and_unpack(tmp_path: pathlib.Path, installed: t.Callable[..., None], library: pathlib.Path) -> None:
    more = {"format": 1, "library_sha256": "", "configure": [], "home": "/b/9.9.9", "platform": MADE_FOR}
    more = {**more, "options": OPTIONS, "source": {"sha256": "a" * 64}}
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
        f"bundle: nothing says what the digest of {path} has to be; give bundle_checksum: sha256:..., or list it in "
        f"{tmp_path}/SHA256SUMS."
    )
    with pytest.raises(JemallocError, match=r"give bundle_checksum: sha256:\.\.\.\.$"):
        bundle.find("https://example.com/b.tar.gz", "5.3.1", None)
    (tmp_path / "SHA256SUMS").write_text("AA  other\nBB *jemalloc-5.3.1.tar.gz\n")
    assert bundle.find(str(path), "5.3.1", None).sha256 == "bb"
