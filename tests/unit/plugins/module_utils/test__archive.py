# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tarballs made by somebody who means harm, and those of our own."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import pathlib
import stat
import tarfile
import tempfile
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archives
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError


class Member(t.NamedTuple):
    """A member of a tarball."""

    name: str
    content: bytes = b""
    type: bytes = tarfile.REGTYPE
    linkname: str = ""
    mode: int = 0o644
    mtime: t.Union[int, float] = 1_500_000_000


SRC = Member("jemalloc-5.9.0/src", type=tarfile.DIRTYPE, mode=0o755)


def pack(path: pathlib.Path, members: t.Iterable[Member], kind: t.Any = "w:gz") -> str:
    """Write a tarball and return its path."""
    with tarfile.open(str(path), kind, format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.linkname, info.mode = member.type, member.linkname, member.mode
            info.mtime, info.size = member.mtime, len(member.content)
            tar.addfile(info, io.BytesIO(member.content))
    return str(path)


def refusal(tmp_path: pathlib.Path, archive: str) -> str:
    """Unpack what has to be refused, see that nothing was written elsewhere, and return the message."""
    target = tmp_path / "target"
    target.mkdir()
    before = sorted(path for path in tmp_path.rglob("*") if target not in path.parents)
    with pytest.raises(JemallocError) as caught:
        archives.unpack(archive, str(target), "src")
    assert sorted(path for path in tmp_path.rglob("*") if target not in path.parents) == before
    for path in target.rglob("*"):
        assert stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR)
        assert not path.lstat().st_mode & 0o7000
    return str(caught.value)


@pytest.mark.parametrize("kind", ["w:gz", "w:bz2", "w:xz"])
def test_unpack(tmp_path: pathlib.Path, kind: str) -> None:
    members = [
        Member("jemalloc-5.9.0", type=tarfile.DIRTYPE, mode=0o2775),
        SRC,
        Member("jemalloc-5.9.0/configure", b"#!/bin/sh\n", mode=0o775),
        Member("./jemalloc-5.9.0//include/../src/jemalloc.c", b"int x;\n", mode=0o600),
        Member("jemalloc-5.9.0/doc/not announced/é", b"a", mtime=1_400_000_000),
        SRC,
    ]
    top = pathlib.Path(archives.unpack(pack(tmp_path / "a.tar", members, kind), str(tmp_path / "target"), "src"))
    assert top == tmp_path / "target" / "jemalloc-5.9.0"
    found = {str(path.relative_to(top)): path.lstat() for path in top.rglob("*") if path.is_file()}
    assert {name: (status.st_mode & 0o777, status.st_mtime) for name, status in found.items()} == {
        "configure": (0o755, 1_500_000_000),
        "src/jemalloc.c": (0o644, 1_500_000_000),
        "doc/not announced/é": (0o644, 1_400_000_000),
    }
    assert (top / "src/jemalloc.c").read_bytes() == b"int x;\n"
    assert not (top / "doc").lstat().st_mode & 0o7000


def inside(name: str, **more: t.Any) -> Member:
    """Return a member below the top directory."""
    return Member(f"jemalloc-5.9.0/{name}", **more)


REFUSED: t.List[t.Tuple[t.List[Member], str]] = [
    ([Member("/etc/passwd")], "its member '/etc/passwd' leaves the top directory"),
    ([Member("//etc/passwd")], "its member '//etc/passwd' leaves the top directory"),
    ([Member("../outside")], "its member '../outside' leaves the top directory"),
    ([Member("..")], "its member '..' leaves the top directory"),
    ([Member(".", type=tarfile.DIRTYPE)], "its member '.' leaves the top directory"),
    ([inside("..", type=tarfile.DIRTYPE)], "its member 'jemalloc-5.9.0/..' leaves the top directory"),
    ([inside("../../outside")], "its member 'jemalloc-5.9.0/../../outside' leaves the top directory"),
    ([inside("a/../../../outside")], "its member 'jemalloc-5.9.0/a/../../../outside' leaves the top directory"),
    ([SRC, Member("other/file")], "it has two top directories, 'jemalloc-5.9.0' and 'other'"),
    ([SRC, inside("../other/file")], "it has two top directories, 'jemalloc-5.9.0' and 'other'"),
    *(
        (
            [SRC, inside("x", type=kind, linkname=linkname)],
            "its member 'jemalloc-5.9.0/x' is neither a plain file nor a directory",
        )
        for kind, linkname in (
            (tarfile.SYMTYPE, "src"),
            (tarfile.SYMTYPE, "/etc"),
            (tarfile.LNKTYPE, "/etc/passwd"),
            (tarfile.LNKTYPE, "jemalloc-5.9.0/src"),
            (tarfile.CHRTYPE, ""),
            (tarfile.BLKTYPE, ""),
            (tarfile.FIFOTYPE, ""),
        )
    ),
    *(
        ([SRC, inside("x", mode=mode)], "its member 'jemalloc-5.9.0/x' has a set-user-ID, set-group-ID or sticky bit")
        for mode in (0o4755, 0o2755, 0o1644)
    ),
    (
        [SRC, inside("d/" * 40 + "x")],
        "its member 'jemalloc-5.9.0/d/d/d/d/d/d/d/d/d/d/d/d/d'... is more than 32 directories deep",
    ),
    ([SRC, inside("large", content=b"x" * (3 << 20))], "it unpacks to more than 2 MiB, too much for a release"),
    ([SRC, *(inside(str(n)) for n in range(9))], "it holds more than 6 members, too much for a release"),
]


@pytest.mark.parametrize(("members", "reason"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_unpack_refuses(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, members: t.List[Member], reason: str
) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 6)
    monkeypatch.setattr(archives, "MAX_UNPACKED", 2 << 20)
    archive = pack(tmp_path / "a.tar", members)
    assert refusal(tmp_path, archive) == f"The archive {archive} is refused: {reason}."


def test_the_limits_are_those_that_still_do(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(tmp_path / "a.tar", [SRC, *(inside(str(number)) for number in range(3))])
    with gzip.open(archive) as stream:
        whole = len(stream.read())
    monkeypatch.setattr(archives, "MAX_MEMBERS", 4)
    monkeypatch.setattr(archives, "MAX_UNPACKED", whole)
    archives.unpack(archive, str(tmp_path / "target"), "src")
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    with pytest.raises(JemallocError, match="it holds more than 3 members"):
        archives.unpack(archive, str(tmp_path / "members"), "src")


@pytest.mark.parametrize(
    "members",
    [
        [],
        [Member("jemalloc-5.9.0", type=tarfile.DIRTYPE)],
        [Member("jemalloc-5.9.0", content=b"a file")],
    ],
)
def test_unpack_refuses_what_holds_no_jemalloc(tmp_path: pathlib.Path, members: t.List[Member]) -> None:
    archive = pack(tmp_path / "a.tar", members)
    assert refusal(tmp_path, archive) == f"The archive {archive} is refused: it holds no src."


@pytest.mark.parametrize(
    "members",
    [
        [SRC, inside("twice"), inside("twice")],
        [SRC, inside("src")],
        [SRC, inside("file"), inside("file/below")],
        [SRC, inside("file"), inside("file", type=tarfile.DIRTYPE)],
        [SRC, inside("n" * 300)],
    ],
)
def test_unpack_never_overwrites(tmp_path: pathlib.Path, members: t.List[Member]) -> None:
    archive = pack(tmp_path / "a.tar", members)
    message = refusal(tmp_path, archive)
    assert message.startswith(f"The archive {archive} cannot be unpacked: [Errno ")
    assert "\n" not in message


def test_unpack_does_not_follow_a_link_that_stands_there(tmp_path: pathlib.Path) -> None:
    (tmp_path / "target" / "jemalloc-5.9.0").mkdir(parents=True)
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "target" / "jemalloc-5.9.0" / "x").symlink_to(tmp_path / "victim")
    with pytest.raises(JemallocError, match="cannot be unpacked"):
        archives.unpack(pack(tmp_path / "a.tar", [inside("x", content=b"bad")]), str(tmp_path / "target"), "src")
    assert (tmp_path / "victim").read_text() == "kept"


def test_unpack_of_a_member_without_content(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarfile.TarFile, "extractfile", lambda _self, _member: None)
    archive = pack(tmp_path / "a.tar", [SRC, inside("x")])
    reason = "its member 'jemalloc-5.9.0/x' has no content"
    assert refusal(tmp_path, archive) == f"The archive {archive} is refused: {reason}."


def test_unpack_of_a_name_with_a_nul(tmp_path: pathlib.Path) -> None:
    info = tarfile.TarInfo("x")
    info.pax_headers = {"path": "jemalloc-5.9.0/a\0b"}
    with tarfile.open(str(tmp_path / "a.tar"), "w:gz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    archive = str(tmp_path / "a.tar")
    assert refusal(tmp_path, archive) == (
        f"The archive {archive} is refused: its member 'jemalloc-5.9.0/a\\x00b' leaves the top directory."
    )


@pytest.mark.parametrize(
    "data", [b"", b"no tarball", b"\0" * 512, b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"x" * 4096]
)
def test_unpack_of_what_is_no_tarball(tmp_path: pathlib.Path, data: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    message = refusal(tmp_path, str(tmp_path / "a.tar"))
    assert message.startswith(f"The archive {tmp_path}/a.tar ")
    assert message.endswith(".")


def test_unpack_of_nothing(tmp_path: pathlib.Path) -> None:
    archive = str(tmp_path / "missing")
    assert refusal(tmp_path, archive) == (
        f"The archive {archive} cannot be unpacked: [Errno 2] No such file or directory: {archive!r}."
    )


WHOLE = [SRC, *(inside(f"src/{number}.c", content=os.urandom(700)) for number in range(5))]


@pytest.mark.parametrize("kind", ["w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("part", range(20))
def test_unpack_of_a_part(tmp_path: pathlib.Path, kind: str, part: int) -> None:
    archive = pack(tmp_path / "a.tar", WHOLE, kind)
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[: len(data) * part // 30])
    target = tmp_path / "target"
    with pytest.raises(JemallocError, match="The archive "):
        archives.unpack(archive, str(target), "src")
    for member in WHOLE[1:]:
        written = target / member.name
        assert not written.exists() or member.content.startswith(written.read_bytes())


NAMES = st.lists(st.sampled_from(["a", "b", "..", ".", "", "src", "x" * 60]), min_size=1, max_size=6).map("/".join)
TYPES = st.sampled_from(
    [tarfile.REGTYPE] * 4
    + [tarfile.DIRTYPE] * 3
    + [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
HOSTILE = st.builds(
    Member,
    name=st.tuples(st.sampled_from(["", "a/", "a/", "a/", "/", "../"]), NAMES).map("".join),
    content=st.just(b"x"),
    type=TYPES,
    linkname=NAMES,
    mode=st.sampled_from([0o644, 0o755, 0o4755, 0]),
    mtime=st.sampled_from([0, 1_500_000_000, 1.5]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(HOSTILE, max_size=5))
def test_unpack_never_leaves_its_directory(members: t.List[Member]) -> None:
    with tempfile.TemporaryDirectory() as name:
        top = pathlib.Path(name)
        target = top / "inner" / "target"
        target.mkdir(parents=True)
        archive = pack(top / "a.tar", [m if m.type == tarfile.REGTYPE else m._replace(content=b"") for m in members])
        try:
            unpacked = archives.unpack(archive, str(target), "src")
        except JemallocError:
            pass
        else:
            assert pathlib.Path(unpacked).parent == target
        outside = {path for path in top.rglob("*") if target != path and target not in path.parents}
        assert outside == {top / "a.tar", top / "inner"}
        assert len(os.listdir(str(target))) <= 1
        for path in target.rglob("*"):
            assert stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR)
            assert path.lstat().st_nlink == 1 or path.is_dir()
            assert not path.lstat().st_mode & 0o7022


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=600), st.sampled_from([bytes, gzip.compress, bz2.compress]))
def test_unpack_of_any_bytes(data: bytes, compress: t.Callable[[bytes], bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        archive = pathlib.Path(name, "a.tar")
        archive.write_bytes(compress(data))
        with pytest.raises(JemallocError):
            archives.unpack(str(archive), str(pathlib.Path(name, "target")), "src")
        assert os.listdir(name) == ["a.tar"]


def test_pack_does_not_depend_on_order_or_time() -> None:
    members = {"top/b": (b"2", True), "top/a/c": (b"1", False)}
    packed = archives.pack(members)
    assert packed == archives.pack(dict(reversed(list(members.items()))))
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        found = [(member.name, member.mode, member.mtime, member.uid, member.uname) for member in tar]
    assert found == [("top/a/c", 0o644, 0, 0, ""), ("top/b", 0o755, 0, 0, "")]


def test_pack_can_be_unpacked(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.tar").write_bytes(archives.pack({"top/b": (b"2", True)}))
    assert archives.unpack(str(tmp_path / "a.tar"), str(tmp_path), "b") == str(tmp_path / "top")
    assert (tmp_path / "top" / "b").read_bytes() == b"2"


def test_read_file(tmp_path: pathlib.Path) -> None:
    members = {"j/a": (b"x" * 3_000_000, False), "j/empty": (b"", False), "j/receipt.json": (b"{}", False)}
    packed = archives.pack(members)
    assert archives.read_file(packed, "receipt.json", 2) == b"{}"
    with pytest.raises(JemallocError, match=r"^its receipt\.json is larger than 0 KiB$"):
        archives.read_file(packed, "receipt.json", 1)
    with pytest.raises(JemallocError, match=r"^it cannot be unpacked, or holds no other\.json$"):
        archives.read_file(packed, "other.json", 1)
    with pytest.raises(JemallocError, match="it is not packed by bzip2, gzip or xz"):
        archives.read_file(b"", "receipt.json", 1)
    for cut in (1000, len(packed) // 2, 30):
        with pytest.raises(JemallocError, match="it cannot be unpacked"):
            archives.read_file(packed[:cut], "receipt.json", 2)


@pytest.mark.parametrize(
    "member",
    [
        SRC,
        inside("x", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        inside("x" * 300),
        inside("x", mtime=1.5),
        inside("receipt.json", type=tarfile.GNUTYPE_SPARSE),
    ],
)
def test_read_file_of_what_pack_does_not_write(tmp_path: pathlib.Path, member: Member) -> None:
    packed = pathlib.Path(pack(tmp_path / "a.tar", [member, inside("receipt.json", content=b"{}")])).read_bytes()
    with pytest.raises(JemallocError, match=r"^it holds something else than plain files$"):
        archives.read_file(packed, "receipt.json", 2)


def test_read_file_of_a_negative_size() -> None:
    header = tarfile.TarInfo("j/x")
    header.size = -512
    packed = gzip.compress(header.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(JemallocError, match=r"^it holds something else than plain files$"):
        archives.read_file(packed, "receipt.json", 2)


def test_read_file_within_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = archives.pack({"j/a": (b"\0" * (3 << 20), False), "j/b": (b"", False), "j/receipt.json": (b"{}", False)})
    for name, limit, message in (
        ("MAX_UNPACKED", 2 << 20, "it unpacks to more than 2 MiB, too much for a release"),
        ("MAX_MEMBERS", 2, "it holds more than 2 members, too much for a release"),
        ("MAX_PACKED", len(bomb) - 1, "it is larger than 0 MiB, too much for a release"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(archives, name, limit)
            with pytest.raises(JemallocError) as caught:
                archives.read_file(bomb, "receipt.json", 2)
        assert str(caught.value) == message


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_unpack_to_a_disk_that_does_not_take_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(*_arguments: t.Any) -> t.NoReturn:
        raise error

    path = tmp_path / "x.tar.gz"
    path.write_bytes(archives.pack({"jemalloc-5.3.1/configure": (b"x", True)}))
    monkeypatch.setattr(archives, "_extract", fail)
    with pytest.raises(type(error)) as caught:
        archives.unpack(str(path), str(tmp_path), "configure")
    assert caught.value.filename == str(tmp_path)
