# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Libraries that are fit and libraries that are not, really run."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _preflight as module
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError


def run(
    arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
) -> t.Tuple[int, str]:
    """Run a command as a module does."""
    done = subprocess.run(
        arguments,
        cwd=directory,
        input=data,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


class Host:
    """As much of a host as the pre-flight check takes; programs print and fail by what is put in front of them."""

    def __init__(self, run: t.Any = run) -> None:
        """Take what runs commands."""
        self.run = run
        self.warnings: t.List[str] = []

    def warn(self, message: str) -> None:
        """Remember a warning."""
        self.warnings.append(message)


def preflight(library: str, *more: t.Any, run: t.Any = run) -> t.List[str]:
    """Run the check; return the warnings."""
    host = Host(run)
    module.preflight(t.cast(t.Any, host), library, *more)
    return host.warnings


def compiled(tmp_path: pathlib.Path, text: str) -> str:
    """Compile a library."""
    (tmp_path / "a.c").write_text(f"#include <stdlib.h>\n#include <unistd.h>\n{text}\n")
    path = str(tmp_path / "libjemalloc.so.2")
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", path, str(tmp_path / "a.c")], check=True)
    return path


def test_a_library_that_is_fit(library: pathlib.Path) -> None:
    assert preflight(str(library)) == []


def refusal(path: str) -> str:
    """Return the message of a library that is not fit."""
    with pytest.raises(JemallocError) as caught:
        preflight(path)
    return str(caught.value)


UNFIT = [
    ("__attribute__((constructor)) void f(void) { _exit(3); }", "/bin/true", "exit status 3: no word"),
    ("__attribute__((constructor)) void f(void) { abort(); }", "/bin/true", "exit status -6: no word"),
    (
        "__attribute__((constructor)) void f(int count, char **words) { if (count == 3) _exit(4); }",
        "/bin/sh",
        "exit status 4: no word",
    ),
    ("int fork(void) { return -1; }", sys.executable, None),
    ("int pthread_create(void) { return 11; }", sys.executable, None),
]


@pytest.mark.parametrize(("text", "program", "reason"), UNFIT)
def test_a_library_that_breaks_programs(
    tmp_path: pathlib.Path, text: str, program: str, reason: t.Optional[str]
) -> None:
    path = compiled(tmp_path, text)
    message = refusal(path)
    assert message.startswith(f"The library {path} is not fit for this host, {program} fails with it preloaded (")
    assert message.endswith("); nothing refers to it.")
    if reason:
        assert f"({reason})" in message


def test_a_library_that_hangs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIME_LIMIT", 0.05)
    path = compiled(tmp_path, "__attribute__((constructor)) void f(void) { for (;;) pause(); }")
    assert refusal(path) == (
        f"The library {path} is not fit for this host, /bin/true fails with it preloaded (it took too long); nothing "
        "refers to it."
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "it is not a regular file"),
        (b"", "it is not an ELF file"),
        (b"no library", "it is not an ELF file"),
        (b"\x7fELF\x01\x01\x01" + b"\0" * 100, "it is for another machine (32 bits, e_machine 0)"),
        (b"\x7fELF\x02\x01\x01", "its ELF headers are damaged or cut off"),
    ],
)
def test_what_is_no_library(tmp_path: pathlib.Path, content: t.Optional[bytes], reason: str) -> None:
    path = tmp_path / "libjemalloc.so.2"
    if content is not None:
        path.write_bytes(content)
    assert refusal(str(path)) == f"The library {path} is not fit for this host: {reason}; nothing refers to it."


def test_a_program_is_no_library(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.c").write_text("int main(void) { return 0; }")
    path = tmp_path / "static"
    subprocess.run(["gcc", "-static", "-o", str(path), str(tmp_path / "a.c")], check=True)
    assert "it is no shared library" in refusal(str(path))


@pytest.mark.parametrize("part", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_truncated_library(library: pathlib.Path, tmp_path: pathlib.Path, part: float) -> None:
    data = library.read_bytes()
    path = tmp_path / "libjemalloc.so.2"
    path.write_bytes(data[: int(len(data) * part)])
    refusal(str(path))


def test_of_another_c_library(library: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "here", lambda: platform.Here("x86_64", "musl", "", 12))
    assert "it is for another C library than musl" in refusal(str(library))


def test_a_newer_c_library(tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(compiled(tmp_path, 'const char needs[] = "GLIBC_2.999\\0x";'))
    assert f"it needs glibc 2.999, this host has {platform.here().libc_version}" in refusal(str(path))


def test_a_missing_dependency(tmp_path: pathlib.Path) -> None:
    (tmp_path / "b.c").write_text("int b(void) { return 0; }")
    needed = tmp_path / "libneeded.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(needed), str(tmp_path / "b.c")], check=True)
    (tmp_path / "a.c").write_text("int b(void); int a(void) { return b(); }")
    path = tmp_path / "libjemalloc.so.2"
    command = ["gcc", "-shared", "-fPIC", "-o", str(path), str(tmp_path / "a.c"), str(needed)]
    subprocess.run(command, check=True)
    needed.unlink()
    assert "libneeded.so: cannot open shared object file" in refusal(str(path))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('__attribute__((constructor)) void f(void) { write(1, "hello", 5); }', "exit status 0: hello"),
        ('__attribute__((constructor)) void f(void) { write(2, "hello", 5); }', "exit status 0: hello"),
        ("void *malloc(unsigned long size) { for (;;) pause(); }", "it took too long"),
        ("void *malloc(unsigned long size) { return 0; }", "exit status"),
        ("static int l; int fork(void) { int p = vfork(); if (!p) for (;;) pause(); return p; }", "it took too long"),
        ("void *dlopen(const char *n, int f) { abort(); }", "exit status"),
    ],
)
def test_a_library_that_behaves_badly(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    monkeypatch.setattr(module, "TIME_LIMIT", 1)
    assert reason in refusal(compiled(tmp_path, text))


def test_who_else_could_change_it(library: pathlib.Path, tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "store"
    directory.mkdir()
    path = directory / "libjemalloc.so.2"
    path.write_bytes(library.read_bytes())
    preflight(str(path))
    path.chmod(0o666)
    assert f"{path} can be written by others than root (mode 0666)" in refusal(str(path))
    path.chmod(0o644)
    directory.chmod(0o775)
    assert f"{directory} can be written by others than root (mode 0775)" in refusal(str(path))
    directory.chmod(0o1777)
    preflight(str(path))
    if os.geteuid() == 0:
        os.chown(str(path), 12345, -1)
        assert f"{path} belongs to user 12345, not to root" in refusal(str(path))


def test_a_link_out_of_the_store(library: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "store").mkdir()
    path = tmp_path / "store" / "libjemalloc.so"
    path.symlink_to(library)
    with pytest.raises(JemallocError, match="it leads out of"):
        preflight(str(path), str(tmp_path / "store"))


def test_a_directory_above_the_link(library: pathlib.Path, tmp_path: pathlib.Path) -> None:
    link = tmp_path / "open" / "closed" / "lib"
    link.parent.mkdir(parents=True)
    link.symlink_to(library.parent)
    link.parent.parent.chmod(0o777)
    with pytest.raises(JemallocError, match=f"{link.parent.parent} "):
        preflight(str(link / library.name), str(library.parent))


def test_a_library_that_is_ignored_without_a_word(library: pathlib.Path) -> None:
    def deaf(
        arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
    ) -> t.Tuple[int, str]:
        return run([word for word in arguments if not word.startswith("LD_PRELOAD=")], directory, data)

    with pytest.raises(JemallocError) as caught:
        preflight(str(library), run=deaf)
    assert str(caught.value) == (
        f"The library {library} is not fit for this host, {sys.executable} fails with it preloaded (exit "
        "status 1: the library is not mapped); nothing refers to it."
    )


def disturbed(tmp_path: pathlib.Path, script: str) -> t.Any:
    """Return what runs commands on a host on which a script precedes each program, with and without the library."""
    path = tmp_path / "disturbed"
    path.write_text(f'#!/bin/sh\n{script}\nexec "$@"\n')
    path.chmod(0o755)

    def run_disturbed(command: t.Sequence[str], *more: t.Any) -> t.Tuple[int, str]:
        at = command.index("env")
        return run([*command[:at], str(path), *command[at:]], *more)

    return run_disturbed


GONE = "ERROR: ld.so: object '/opt/gone.so' from /etc/ld.so.preload cannot be preloaded (cannot open): ignored."


def test_what_programs_print_without_the_library_too(
    library: pathlib.Path, tmp_path: pathlib.Path, root: pathlib.Path
) -> None:
    noisy = disturbed(tmp_path, f'echo "{GONE}" >&2; echo "$$: again" >&2; echo "{GONE}" >&2')
    words = f"{GONE} 0: again"
    assert [re.sub("[0-9]+: again", "0: again", each) for each in preflight(str(library), run=noisy)] == [
        f"What fails or prints without jemalloc too does not count against it: {name} ({words})."
        for name in ("/bin/true", "/bin/sh", sys.executable)
    ]


def test_what_is_to_blame_is_named(library: pathlib.Path, tmp_path: pathlib.Path, root: pathlib.Path) -> None:
    noisy = disturbed(tmp_path, f'echo "{GONE}" >&2')
    (root / "etc/ld.so.preload").write_text(f"/srv/x/current/lib/libjemalloc.so::\n{library} /opt/gone.so libm.so\n")
    (root / "etc/environment").write_text("LD_PRELOAD=/opt/old.so\n")
    assert preflight(str(library), run=noisy) == [
        f"What fails or prints without jemalloc too does not count against it: /bin/true, /bin/sh, {sys.executable} "
        f"({GONE}). {root}/etc/environment preloads /opt/old.so, which does not exist; remove it there. "
        f"{root}/etc/ld.so.preload preloads /srv/x/current/lib/libjemalloc.so, which is missing until this run "
        f"has installed it. {root}/etc/ld.so.preload preloads /opt/gone.so, which does not exist; remove it there."
    ]


def test_a_service_that_does_not_start_without_the_library_either(
    library: pathlib.Path, root: pathlib.Path, program: t.Callable[[str, str], pathlib.Path]
) -> None:
    log = program("systemd-run", "echo Failed to connect to bus >&2; exit 1")
    assert preflight(str(library), "", True) == [
        "What fails or prints without jemalloc too does not count against it: systemd-run (exit status 1: Failed to "
        "connect to bus)."
    ]
    first, second = log.read_text().splitlines()
    assert (f"--setenv=LD_PRELOAD={library} " in first, "--setenv=LD_PRELOAD= " in second) == (True, True)


def test_only_what_is_new_is_held_against_a_library(
    library: pathlib.Path, tmp_path: pathlib.Path, root: pathlib.Path
) -> None:
    noisy = disturbed(tmp_path, f'echo "{GONE}" >&2')
    path = compiled(tmp_path, '__attribute__((constructor)) void f(void) { write(2, "oops\\n", 5); }')
    with pytest.raises(JemallocError) as caught:
        preflight(path, run=noisy)
    assert "/bin/true fails with it preloaded (exit status 0: oops); nothing refers to it." in str(caught.value)


@pytest.mark.parametrize(
    ("found", "without", "reason"),
    [
        ((0, "a\n"), (0, "a\n"), ""),
        ((0, "[17] a\n[17] a\n"), (0, "[4] a\n"), ""),
        ((0, "a\nb\n"), (0, "a\n"), "exit status 0: b"),
        ((0, "\n"), (0, ""), "exit status 0: blanks"),
        ((3, "a\n"), (0, "a\n"), "exit status 3: no word"),
        ((3, "a\n"), (3, ""), ""),
        ((0, "a\n"), (1, ""), ""),
        ((124, ""), (0, ""), "it took too long"),
        ((124, ""), (124, ""), ""),
    ],
)
def test_new_failure(found: t.Tuple[int, str], without: t.Tuple[int, str], reason: str) -> None:
    assert module.new_failure(found, without) == reason
