# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store: reading and planning."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _wrapper as wrapper
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

OPTIONS = {"cxx": False, "prof": False, "lg_page": None}

Install = t.Callable[..., None]


@pytest.fixture
def prefix(tmp_path: pathlib.Path) -> str:
    """Where a store can be; there is none yet."""
    return str(tmp_path / "store")


@pytest.mark.parametrize(
    ("prefix", "expected"), [("/opt/", "/opt"), ("/tmp", "/tmp"), ("/nonexistent-1_2.3+4@5", "/nonexistent-1_2.3+4@5")]
)
def test_check_prefix(prefix: str, expected: str) -> None:
    assert store.check_prefix(prefix) == expected


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "/",
        "//",
        "opt",
        "/opt/a b",
        "/opt/a:b",
        "/opt/%i",
        "/opt/a'b",
        "/o\\pt",
        "/opt/..",
        "/opt/./a",
        "/ä",
        "/a\n",
    ],
)
def test_check_prefix_that_cannot_be(prefix: str) -> None:
    with pytest.raises(JemallocError) as caught:
        store.check_prefix(prefix)
    assert str(caught.value) == (
        f"prefix: {prefix.rstrip('/') or '/'!r} cannot hold the store; name an absolute path of letters, digits and "
        "._+@- such as /opt/jemalloc."
    )


@pytest.mark.parametrize("link", [True, False])
def test_check_prefix_that_is_no_directory(tmp_path: pathlib.Path, link: bool) -> None:
    path = tmp_path / "store"
    if link:
        path.symlink_to("nowhere")
    else:
        path.write_text("")
    with pytest.raises(JemallocError) as caught:
        store.check_prefix(str(path))
    assert str(caught.value) == (
        f"prefix: {path} is there and is not a directory; move it away or name another prefix."
    )


def test_check_prefix_without_parent(tmp_path: pathlib.Path) -> None:
    with pytest.raises(JemallocError) as caught:
        store.check_prefix(f"{tmp_path}/a/b/")
    assert str(caught.value) == (
        f"prefix: {tmp_path}/a is not a directory; make it, or name another prefix than {tmp_path}/a/b."
    )


def test_read_nothing(prefix: str) -> None:
    assert store.read(prefix) == store.Store(prefix)
    os.mkdir(prefix)
    assert store.read(prefix) == store.Store(prefix, exists=True)


def test_read(prefix: str, installed: Install) -> None:
    for version in ("5.10.0", "5.9.0"):
        installed(prefix, version)
    publish.switch(prefix, "5.9.0", publish.Undo())
    publish.switch(prefix, "5.10.0", publish.Undo())
    for name in ("5.1.0", "notes", "5.1"):
        os.mkdir(f"{prefix}/{name}")
    os.symlink("5.9.0", f"{prefix}/5.2.0")
    pathlib.Path(prefix, "5.3.0").write_text("a file")
    pathlib.Path(prefix, f".current{files.TEMPORARY_SUFFIX}").symlink_to("x")
    os.makedirs(f"{prefix}/5.4.0/receipt.json")
    found = store.read(prefix)
    assert found.describe() == {"installations": ["5.9.0", "5.10.0"], "current": "5.10.0", "previous": "5.9.0"}
    assert found.foreign == ("5.1", "5.1.0", "5.2.0", "5.3.0", "5.4.0", "notes")
    assert found.exists
    assert not found.stale_wrappers
    assert not any(installation.damage for installation in found.installations.values())


def damage(prefix: str) -> t.Tuple[str, t.Tuple[str, ...]]:
    """Return what is wrong with 5.9.0, and the wrappers that are not right."""
    found = store.read(prefix)
    return found.installations["5.9.0"].damage, found.stale_wrappers


def test_damage(prefix: str, installed: Install) -> None:
    installed(prefix, "5.9.0")
    top = pathlib.Path(prefix, "5.9.0")
    assert damage(prefix) == ("", ())
    (top / "lib" / "libjemalloc.so.2").write_bytes(b"x")
    assert damage(prefix) == ("lib/libjemalloc.so.2 is not what its receipt says", ())
    (top / "lib" / "libjemalloc.so.2").unlink()
    assert damage(prefix) == ("lib/libjemalloc.so.2 is not what its receipt says", ())
    installed(prefix, "5.9.0")
    (top / "extra").write_text("")
    assert damage(prefix) == ("extra is not what its receipt says", ())
    (top / "extra").unlink()
    files.replace_link(str(top / "lib" / "libjemalloc.so"), "/elsewhere.so")
    assert damage(prefix) == ("lib/libjemalloc.so is not what its receipt says", ())


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "null", '{"files": 5}', '{"files": ["ab", 3]}', "\udcff", "1" * 5000]
)
def test_a_receipt_that_cannot_be_read(prefix: str, installed: Install, text: str) -> None:
    installed(prefix, "5.9.0")
    pathlib.Path(prefix, "5.9.0", "receipt.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert damage(prefix) == ("its receipt cannot be read", ())


def test_a_wrapper_of_another_time_is_no_damage(prefix: str, installed: Install) -> None:
    installed(prefix, "5.9.0")
    path = pathlib.Path(prefix, "5.9.0", "bin", "jemalloc.sh")
    path.write_text("old")
    assert damage(prefix) == ("", ("5.9.0",))
    shutil.rmtree(str(path.parent))
    assert damage(prefix) == ("", ("5.9.0",))
    publish.write_wrappers(f"{prefix}/5.9.0", prefix)
    assert damage(prefix) == ("", ())
    assert path.read_text() == wrapper.texts(prefix)["bin/jemalloc.sh"]
    assert path.stat().st_mode & 0o777 == 0o755


def installation(damage: str = "", **receipt: t.Any) -> store.Installation:
    """Return an installation that was built from the source with the digest a."""
    whole = {"options": OPTIONS, "source": {"sha256": "a"}, "method": "source", **receipt}
    return store.Installation("5.9.0", whole, damage)


def wish(version: str = "5.9.0", **more: t.Any) -> store.Wish:
    """Return a wish with the usual options."""
    return store.Wish(version, **{"options": OPTIONS, **more})


BUNDLED = installation(method="bundle", bundle="b")
PACKAGED = installation(method="package", source={"package": "x"}, options=None, library_sha256="c")
SUITED = [
    (installation(), {}, True),
    (installation(), {"source": "a"}, True),
    (installation(), {"source": "b"}, False),
    (installation(), {"options": {**OPTIONS, "prof": True}}, False),
    (installation(damage="it is bent"), {}, False),
    (store.Installation("5.9.0", {"options": OPTIONS}), {}, True),
    (store.Installation("5.9.0", {"options": OPTIONS}), {"source": "a"}, False),
    (store.Installation("5.9.0", {}), {}, False),
    (BUNDLED, {}, True),
    (BUNDLED, {"method": "source"}, True),
    (BUNDLED, {"method": "bundle"}, True),
    (BUNDLED, {"method": "bundle", "bundle": "b"}, True),
    (BUNDLED, {"method": "bundle", "bundle": "x"}, False),
    (BUNDLED, {"method": "auto", "bundle": "x"}, True),
    (installation(), {"method": "bundle", "bundle": "b"}, False),
    (PACKAGED, {}, False),
    (PACKAGED, {"method": "package", "options": {}}, True),
    (PACKAGED, {"method": "package", "packaged": "c"}, True),
    (PACKAGED, {"method": "package", "packaged": "d"}, False),
    (installation(), {"method": "package"}, False),
]


@pytest.mark.parametrize(("found", "wanted", "expected"), SUITED)
def test_suits(found: store.Installation, wanted: t.Dict[str, t.Any], expected: bool) -> None:
    assert found.suits(wish(**wanted)) is expected


def of(*versions: str, **more: t.Any) -> store.Store:
    """Return a store with these releases."""
    receipt = {"options": OPTIONS}
    found = {version: store.Installation(version, receipt) for version in versions}
    return store.Store("/p", found, exists=True, **more)


def present(before: store.Store, version: str = "5.9.0", make_current: bool = True, **options: t.Any) -> store.Plan:
    """Plan state present."""
    return store.plan_present(before, wish(version, options={**OPTIONS, **options}), make_current)


def after(installations: t.List[str], current: t.Optional[str] = None, previous: t.Optional[str] = None) -> t.Any:
    """Return what a plan says of the store after it."""
    return {"installations": installations, "current": current, "previous": previous}


NEW = "it is not installed"
OTHER = "it came in another way, from another source or with other options"

PRESENT: t.List[t.Tuple[store.Store, t.Dict[str, t.Any], store.Plan]] = [
    (store.Store("/p"), {}, store.Plan(after(["5.9.0"], "5.9.0"), "5.9.0", NEW, switch="5.9.0")),
    (store.Store("/p"), {"make_current": False}, store.Plan(after(["5.9.0"]), "5.9.0", NEW)),
    (of("5.9.0", current="5.9.0"), {}, store.Plan(after(["5.9.0"], "5.9.0"))),
    (of("5.9.0"), {}, store.Plan(after(["5.9.0"], "5.9.0"), switch="5.9.0")),
    (
        of("5.9.0", "5.10.0", current="5.10.0", previous="5.1.0"),
        {},
        store.Plan(after(["5.9.0", "5.10.0"], "5.9.0", "5.10.0"), switch="5.9.0"),
    ),
    (
        of("5.10.0", current="5.10.0", previous="5.1.0"),
        {"make_current": False},
        store.Plan(after(["5.9.0", "5.10.0"], "5.10.0", "5.1.0"), "5.9.0", NEW),
    ),
    (
        of("5.9.0", current="5.9.0", previous="5.1.0"),
        {"prof": True},
        store.Plan(after(["5.9.0"], "5.9.0", "5.1.0"), "5.9.0", OTHER),
    ),
    (of("5.9.0", current="gone"), {}, store.Plan(after(["5.9.0"], "5.9.0"), switch="5.9.0")),
    (
        of("5.9.0", "5.1.0", current="5.9.0", stale_wrappers=("5.1.0", "5.9.0")),
        {"prof": True},
        store.Plan(after(["5.1.0", "5.9.0"], "5.9.0"), "5.9.0", OTHER, wrappers=("5.1.0",)),
    ),
    (
        store.Store("/p", {"5.9.0": store.Installation("5.9.0", {}, "it is bent")}, "5.9.0"),
        {},
        store.Plan(after(["5.9.0"], "5.9.0"), "5.9.0", "it is bent"),
    ),
    (of("5.9.0", current="5.9.0", foreign=("notes",)), {}, store.Plan(after(["5.9.0"], "5.9.0"))),
]


@pytest.mark.parametrize(("before", "wanted", "expected"), PRESENT)
def test_plan_present(before: store.Store, wanted: t.Dict[str, t.Any], expected: store.Plan) -> None:
    found = present(before, **wanted)
    assert found == expected
    assert found.changes == bool(found.install or found.switch or found.wrappers)


def test_plan_present_where_something_foreign_stands() -> None:
    with pytest.raises(JemallocError) as caught:
        present(of(foreign=("5.9.0",)))
    assert str(caught.value) == (
        "/p/5.9.0 is there but has no receipt.json, so this collection did not make it; move it away."
    )


def aged(**ages: int) -> store.Store:
    """Return a store with these releases, installed in these years."""
    found = {
        name: store.Installation(name, {"options": OPTIONS, "installed_at": f"20{age}-01-01"})
        for name, age in ((f"5.{key[1:]}.0", age) for key, age in ages.items())
    }
    return store.Store("/p", found, "5.1.0", "5.2.0", exists=True)


@pytest.mark.parametrize(
    ("version", "keep", "referred", "removed"),
    [
        ("5.1.0", None, (), ()),
        ("5.1.0", 9, (), ()),
        ("5.1.0", 4, (), ()),
        ("5.1.0", 3, (), ("5.4.0",)),
        ("5.1.0", 2, (), ("5.5.0", "5.4.0")),
        ("5.1.0", 1, (), ("5.3.0", "5.5.0", "5.4.0")),
        ("5.1.0", 0, (), ("5.3.0", "5.5.0", "5.4.0")),
        ("5.1.0", 0, ("5.4.0",), ("5.3.0", "5.5.0")),
        ("5.1.0", 2, ("5.4.0",), ("5.3.0", "5.5.0")),
        ("5.9.0", 1, (), ("5.3.0", "5.2.0", "5.5.0", "5.4.0")),
        ("5.4.0", 1, (), ("5.3.0", "5.2.0", "5.5.0")),
    ],
)
def test_keep(version: str, keep: t.Optional[int], referred: t.Tuple[str, ...], removed: t.Tuple[str, ...]) -> None:
    before = aged(_1=11, _2=15, _3=19, _4=12, _5=14)
    found = store.plan_present(before, wish(version), True, keep, referred)
    assert set(found.remove) == set(removed)
    assert found.after["installations"] == sorted({*before.installations, version} - set(removed))
    assert found.changes is bool(removed or version != "5.1.0")


def test_what_goes_gets_no_new_wrapper() -> None:
    before = dataclasses.replace(aged(_1=11, _3=12, _4=13), stale_wrappers=("5.3.0", "5.4.0"))
    assert store.plan_present(before, wish("5.1.0"), True, 1).wrappers == ("5.4.0",)


def test_wish_for_installed() -> None:
    assert store.wish_for_installed(aged(_1=11, _2=12), "previous") == wish("5.2.0")
    packaged = store.Store("/p", {"5.9.0": PACKAGED}, previous="5.9.0")
    assert PACKAGED.suits(store.wish_for_installed(packaged, "previous"))


def test_wish_for_installed_that_cannot_be() -> None:
    with pytest.raises(JemallocError) as caught:
        store.wish_for_installed(store.Store("/p"), "previous")
    assert str(caught.value) == (
        "version: there is no previous installation in /p to go back to; name a release instead, or "
        "disable jemalloc: services: [] for its services, host: false for the whole host, state: absent for all."
    )
    with pytest.raises(JemallocError) as caught:
        store.wish_for_installed(store.Store("/p", {"5.9.0": installation("it is bent")}, previous="5.9.0"), "previous")
    assert str(caught.value) == (
        "version: the previous installation /p/5.9.0 is damaged (it is bent); name 5.9.0 to have it installed again, "
        "with its checksum if it is not a known release."
    )
    with pytest.raises(
        JemallocError, match=r"^version: the installation /p/5.9.0 is damaged \(it is bent\); name 5.9.0 "
    ):
        store.wish_for_installed(store.Store("/p", {"5.9.0": installation("it is bent")}), "5.9.0")


def test_is_installed(tmp_path: pathlib.Path, installed: t.Callable[..., None]) -> None:
    installed(str(tmp_path / "store"), "9.9.9")
    for version, there in (("9.9.9", True), ("9.9.8", False), ("../store/9.9.9", False), ("a\0b", False)):
        assert store.is_installed(str(tmp_path / "store"), version) is there


NOTHING = after([])

ABSENT: t.List[t.Tuple[store.Store, t.Optional[str], store.Plan]] = [
    (store.Store("/p"), None, store.Plan(NOTHING)),
    (of(), None, store.Plan(NOTHING, remove_prefix=True)),
    (of(foreign=("notes",)), None, store.Plan(NOTHING)),
    (
        of("5.9.0", "5.1.0", current="5.9.0", previous="5.1.0"),
        None,
        store.Plan(NOTHING, remove=("5.9.0", "5.1.0"), unlink=True, remove_prefix=True),
    ),
    (of("5.9.0", foreign=("notes",)), None, store.Plan(NOTHING, remove=("5.9.0",))),
    (store.Store("/p"), "5.9.0", store.Plan(NOTHING)),
    (of("5.1.0", current="5.1.0"), "5.9.0", store.Plan(after(["5.1.0"], "5.1.0"))),
    (
        of("5.9.0", "5.1.0", current="5.1.0", previous="5.9.0"),
        "5.9.0",
        store.Plan(after(["5.1.0"], "5.1.0"), remove=("5.9.0",)),
    ),
    (
        of("5.9.0", "5.1.0", "5.2.0", current="5.1.0", previous="5.2.0"),
        "5.9.0",
        store.Plan(after(["5.1.0", "5.2.0"], "5.1.0", "5.2.0"), remove=("5.9.0",)),
    ),
    (of("5.9.0", current="5.9.0"), "5.9.0", store.Plan(NOTHING, remove=("5.9.0",), unlink=True, remove_prefix=True)),
    (of("5.9.0", previous="5.1.0"), "5.9.0", store.Plan(NOTHING, remove=("5.9.0",), unlink=True, remove_prefix=True)),
]


@pytest.mark.parametrize(("before", "version", "expected"), ABSENT)
def test_plan_absent(before: store.Store, version: t.Optional[str], expected: store.Plan) -> None:
    found = store.plan_absent(before, version)
    assert found == expected
    assert found.changes == bool(found.remove or found.unlink or found.remove_prefix)


def test_plan_absent_of_what_is_in_use() -> None:
    with pytest.raises(JemallocError) as caught:
        store.plan_absent(of("5.9.0", "5.1.0", "5.10.0", current="5.9.0"), "5.9.0")
    assert str(caught.value) == (
        "jemalloc 5.9.0 is what /p/current leads to and cannot be removed; make another release current first (5.1.0, "
        "5.10.0 are installed)."
    )


def test_the_stable_path() -> None:
    assert store.library("/srv/x") == "/srv/x/current/lib/libjemalloc.so"
    assert store.library("/srv/x", "5.1.0") == "/srv/x/5.1.0/lib/libjemalloc.so"
