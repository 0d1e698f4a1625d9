# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Libraries that are fit and libraries that are not, really run."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _preflight as module
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.module_utils._preflight import preflight


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


def compiled(tmp_path: pathlib.Path, text: str) -> str:
    """Compile a library."""
    (tmp_path / "a.c").write_text(text)
    path = str(tmp_path / "libjemalloc.so.2")
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", path, str(tmp_path / "a.c")], check=True)
    return path


def test_a_library_that_is_fit(library: pathlib.Path) -> None:
    preflight(run, str(library))


def refusal(path: str) -> str:
    """Return the message of a library that is not fit."""
    with pytest.raises(JemallocError) as caught:
        preflight(run, path)
    return str(caught.value)


UNFIT = [
    ("__attribute__((constructor)) void f(void) { _exit(3); }", "/bin/true", "exit status 3: no word"),
    ("__attribute__((constructor)) void f(void) { abort(); }", "/bin/true", "exit status -6: no word"),
    # the shell's own child is the first that has a PWD
    ('__attribute__((constructor)) void f(void) { if (getenv("PWD")) _exit(4); }', "/bin/sh", "exit status 4: no word"),
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


@pytest.mark.parametrize("content", [None, b"", b"no library", b"\x7fELF\x01\x01\x01" + b"\0" * 100])
def test_what_is_no_library(tmp_path: pathlib.Path, content: t.Optional[bytes]) -> None:
    path = tmp_path / "libjemalloc.so.2"
    if content is not None:
        path.write_bytes(content)
    message = refusal(str(path))
    start = (
        f"The library {path} is not fit for this host, /bin/true fails with it preloaded (exit status 0: ERROR: ld.so: "
    )
    assert message.startswith(start)


def test_a_library_that_is_ignored_without_a_word(tmp_path: pathlib.Path) -> None:
    def deaf(
        arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
    ) -> t.Tuple[int, str]:
        return run([word for word in arguments if not word.startswith("LD_PRELOAD=")], directory, data)

    with pytest.raises(JemallocError) as caught:
        preflight(deaf, "/opt/jemalloc/lib.so")
    assert str(caught.value) == (
        f"The library /opt/jemalloc/lib.so is not fit for this host, {sys.executable} fails with it preloaded (exit "
        "status 0: not mapped); nothing refers to it."
    )
