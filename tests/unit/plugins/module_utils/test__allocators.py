# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which allocator a process uses, told from maps and programs as they are on servers."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.preload.jemalloc.plugins.module_utils import _allocators as allocators
from tests.unit.conftest import maps_of

OURS = "/opt/jemalloc/5.3.1/lib/libjemalloc.so.2"
LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6"
LOADER = "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"


def own(library: allocators.Library) -> bool:
    """Whether a library is in the store, for a process that sees what we see."""
    return library.path.startswith("/opt/jemalloc/")


@pytest.mark.parametrize(
    ("paths", "brought", "expected"),
    [
        (["/usr/sbin/nginx", LIBC, LOADER], "", "glibc"),
        (["/usr/sbin/mariadbd", "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", LIBC], "", "jemalloc (other)"),
        (["/usr/bin/redis-server", LIBC, LOADER], allocators.BUILT_IN, "jemalloc (built in)"),
        (["/usr/bin/redis-server", OURS, LIBC], allocators.BUILT_IN, "jemalloc (built in)"),
        (
            ["/usr/bin/redis-check-rdb", "/usr/lib64/libjemalloc.so.2", "/usr/lib64/libc-2.28.so"],
            "",
            "jemalloc (other)",
        ),
        (["/usr/lib/postgresql/15/bin/postgres", LIBC], "", "glibc"),
        (["/usr/local/bin/node_exporter"], "", "static"),
        (["/usr/bin/ceph-osd", "/usr/lib64/libtcmalloc.so.4.5.9", LIBC], "", "tcmalloc"),
        (["/usr/bin/x", "/usr/lib64/libtcmalloc_minimal.so.4", LIBC], "", "tcmalloc"),
        (["/usr/bin/x", "/usr/lib/libmimalloc.so.2.1", LIBC], "", "mimalloc"),
        (["/usr/bin/mongod", LIBC], allocators.TCMALLOC, "tcmalloc"),
        (["/usr/bin/ruby3.1", OURS, LIBC, LOADER], "", "jemalloc 5.3.1"),
        (["/usr/bin/ruby", OURS, "/usr/lib64/libjemalloc.so.2", LIBC], "", "jemalloc 5.3.1"),
        (["/usr/bin/ruby", "/usr/lib64/libtcmalloc.so.4", OURS, LIBC], "", "jemalloc 5.3.1"),
        (["/usr/bin/python3.11", LIBC], "", "glibc"),
        (["/usr/bin/python3.11", OURS + " (deleted)", LIBC], "", "jemalloc 5.3.1"),
        (["/usr/bin/python3.11", "/usr/lib/libjemalloc.so.2 (deleted)", LIBC], "", "jemalloc (other)"),
        (["/usr/bin/python3.11", f"{LIBC} (deleted)"], "", "glibc"),
        (["/bin/busybox", "/lib/ld-musl-x86_64.so.1"], "", "musl"),
        (["/bin/true", LOADER], "", "glibc"),
        (["/usr/bin/x", "/srv/my libs/libjemalloc.so", LIBC], "", "jemalloc (other)"),
        (["/srv/libjemalloc.so.2/data", "/srv/notlibjemalloc.so", "/srv/libjemalloc.txt", LIBC], "", "glibc"),
        (["/srv/libcrypto.so"], "", "static"),
    ],
)
def test_programs(paths: t.Sequence[str], brought: str, expected: str) -> None:
    maps = maps_of(*paths).encode("utf-8")
    found = allocators.classify(allocators.libraries(maps), own, brought, allocators.libc(maps))
    if found.kind == allocators.OURS:
        found = found._replace(release=allocators.release_in(found.path))
    assert found.label == expected
    assert found.deleted == ("jemalloc.so.2 (deleted)" in maps.decode())


def test_a_library_that_is_only_read_is_not_in_use() -> None:
    assert allocators.libraries(maps_of(OURS, access="r--p").encode()) == []


def test_a_library_of_ours_that_is_there_goes_before_one_that_is_gone() -> None:
    maps = maps_of("/opt/jemalloc/5.2.1/lib/libjemalloc.so.2 (deleted)", OURS).encode()
    found = allocators.classify(allocators.libraries(maps), own, "", "glibc")
    assert found == allocators.Allocator("jemalloc", "", OURS)
    assert found.label == "jemalloc unknown"


def test_the_end_of_maps_can_be_cut_off() -> None:
    maps = maps_of(LIBC, OURS).encode()
    assert [library.path for library in allocators.libraries(maps[:-1])] == [OURS]
    assert allocators.libraries(maps[:-30]) == []


@pytest.mark.parametrize(
    ("path", "release"),
    [
        (OURS, "5.3.1"),
        ("/opt/jemalloc/.staging/tmpab12/5.2.1/lib/libjemalloc.so.2", "5.2.1"),
        ("/opt/jemalloc/.staging/tmpab12/tree/lib/libjemalloc.so.2", ""),
    ],
)
def test_release_in(path: str, release: str) -> None:
    assert allocators.release_in(path) == release


HEAP = (
    "7f1230000000-7f1230421000 rw-p 00000000 00:00 0 {name}\n7f1230421000-7f1234000000 ---p 00000000 00:00 0 {name}\n"
)


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        ("", (0, 0)),
        (HEAP.format(name=""), (1, 0x421000)),
        (HEAP.format(name="[anon: glibc: malloc arena]"), (1, 0x421000)),
        (
            f"7f11-7f12 rw-p 0 0:0 0 \n{HEAP.format(name='')}{HEAP.format(name='').replace('f123', 'f12f')}",
            (2, 0x842000),
        ),
        # a full heap and the next one
        (
            "7f1230000000-7f1234421000 rw-p 00000000 00:00 0 \n7f1234421000-7f1238000000 ---p 00000000 00:00 0 \n",
            (2, 0x4421000),
        ),
        # not at a multiple of 64 MiB, not beside each other, of a file, no memory that is kept
        (HEAP.format(name="").replace("7f1230000000", "7f1231000000"), (0, 0)),
        (HEAP.format(name="").replace("\n7f1230421000", "\n7f1230422000"), (0, 0)),
        (HEAP.format(name="").replace("00000000 00:00 0 \n7f", "00000000 08:01 12 /x\n7f"), (0, 0)),
        (HEAP.format(name="").replace("---p", "r--p"), (0, 0)),
        ("7f1234000000 ---p 00000000 00:00 0 ", (0, 0)),
    ],
)
def test_heaps(maps: str, expected: t.Tuple[int, int]) -> None:
    assert allocators.heaps(maps.encode()) == expected


@given(st.binary() | st.text(alphabet="0123456789abcdef -:/rwxp\nmalloc.so(deleted)").map(lambda text: text.encode()))
def test_no_maps_make_it_fail(maps: bytes) -> None:
    for library in allocators.libraries(maps):
        assert "malloc" in library.path
    allocators.heaps(maps)
    allocators.libc(maps)


@given(st.lists(st.sampled_from([HEAP.format(name=""), maps_of(OURS), maps_of(LIBC), "000000 ---p", "\n", "malloc"])))
def test_nor_do_pieces_of_real_ones(pieces: t.List[str]) -> None:
    maps = "".join(pieces).encode()
    assert allocators.heaps(maps).number <= maps.count(b"---p")
    assert len(allocators.libraries(maps)) <= 1


@pytest.fixture(scope="module")
def compile_program(tmp_path_factory: pytest.TempPathFactory) -> t.Callable[..., str]:
    """Compile a program that holds a text; return its path."""

    def make(text: str, *options: str) -> str:
        directory = tmp_path_factory.mktemp("program")
        source = f'#include <stdio.h>\nint main(int n, char **v) {{ return n > 9 ? puts("{text}") : 0; }}\n'
        (directory / "a.c").write_text(source)
        subprocess.run(["gcc", *options, "-o", str(directory / "a"), str(directory / "a.c")], check=True)
        return str(directory / "a")

    return make


@pytest.mark.parametrize("options", [[], ["-static"], ["-s", "-O2"]])
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<jemalloc>: Error in malloc()", "jemalloc (built in)"),
        ("MALLOC: %12d Bytes in use by application", "tcmalloc"),
        ("mimalloc: warning: no", "mimalloc"),
        ("PYTHONMALLOC mimalloc: warning: no", ""),
        ("see jemalloc, tcmalloc and mimalloc", ""),
    ],
)
def test_built_in(compile_program: t.Callable[..., str], text: str, kind: str, options: t.Sequence[str]) -> None:
    assert allocators.built_in(compile_program(text, *options)) == kind


def test_python_brings_none() -> None:
    assert allocators.built_in(sys.executable) == ""


@pytest.mark.parametrize("at", [0, 5, allocators._BLOCK - 3, allocators._BLOCK, 2 * allocators._BLOCK - 11])
def test_a_text_between_two_blocks(tmp_path: pathlib.Path, at: int) -> None:
    (tmp_path / "packed").write_bytes(b"x" * at + b"<jemalloc>: " + b"y" * 99)
    assert allocators.built_in(str(tmp_path / "packed")) == "jemalloc (built in)"


def test_an_empty_program(tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert allocators.built_in(str(tmp_path / "empty")) == ""


def test_the_texts_fit_between_blocks() -> None:
    assert max(map(len, [*allocators._TEXTS, allocators._PYTHON])) <= allocators._LONGEST
