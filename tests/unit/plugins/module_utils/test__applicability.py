# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in the way of preloading, and how it is said."""

from __future__ import annotations

import os
import pathlib
import stat
import subprocess
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _applicability as applicability
from ansible_collections.preload.jemalloc.plugins.module_utils import _elf as elf
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd

PREFIX = "/opt/jemalloc"
HERE = elf.read("/bin/sh")


def verdict(
    program: t.Union[str, pathlib.Path] = "/bin/sh", root: str = "/", name: str = "a.service", **properties: str
) -> applicability.Verdict:
    """Judge a service with this program and these settings."""
    shown = {key: [value] for key, value in properties.items()}
    shown["ExecStart"] = [f"{{ path={program} ; argv[]={program} -x ; ignore_errors=no ; pid=0 }}"]
    return applicability.judge(systemd.Unit(name, "active", properties=shown), HERE, PREFIX, root)


def put(path: pathlib.Path, data: bytes, mode: int = 0o755) -> pathlib.Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_an_ordinary_service() -> None:
    assert verdict() == ([], [])
    assert applicability.judge(systemd.Unit("a.service", "active"), HERE, PREFIX) == ([], [])


def test_settings_of_the_unit() -> None:
    reason = "RootDirectory=/srv hides /opt/jemalloc from it; add BindReadOnlyPaths=/opt/jemalloc"
    assert verdict(RootDirectory="/srv") == ([reason], [])


def test_a_static_program(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.c").write_text("int main(void) { return 0; }")
    subprocess.run(["gcc", "-static", "-o", str(tmp_path / "a"), str(tmp_path / "a.c")], check=True)
    assert verdict(tmp_path / "a").refused == [f"{tmp_path}/a is linked statically, so that nothing can be preloaded"]
    script = put(tmp_path / "script", f"#!{tmp_path}/a -x\n".encode())
    assert verdict(script).refused == verdict(tmp_path / "a").refused


def test_another_machine(tmp_path: pathlib.Path) -> None:
    data = bytearray(pathlib.Path("/bin/sh").read_bytes())
    data[18:20] = b"\x08\x00"
    path = put(tmp_path / "a", bytes(data))
    assert verdict(path).refused == [f"{path} is a program of 64 bits for another machine than the library is for"]


def test_another_c_library(tmp_path: pathlib.Path) -> None:
    data = pathlib.Path("/bin/sh").read_bytes()
    loader = elf.parse(data).interpreter.encode()
    path = put(tmp_path / "a", data.replace(loader, b"/lib/ld-musl.so.1".ljust(len(loader), b"\0"), 1))
    assert verdict(path).refused == [f"{path} runs with another C library than the library is for"]


def test_privileges_of_files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a", pathlib.Path("/bin/sh").read_bytes(), stat.S_ISUID | 0o755)
    reason = f"{path} is set-user-ID or set-group-ID, for which the dynamic linker ignores LD_PRELOAD"
    assert verdict(path, User="app").refused == [reason]
    assert verdict(path, User="root").refused == verdict(path).refused == []
    path.chmod(0o755)
    monkeypatch.setattr(os, "getxattr", lambda _path, _name: b"caps")
    reason = f"{path} has file capabilities, for which the dynamic linker ignores LD_PRELOAD"
    assert verdict(path, User="app").refused == [reason]
    assert verdict(path).refused == []


@pytest.mark.parametrize(
    ("name", "version", "refused"),
    [("php-fpm8.2", "8.2.29", True), ("php-fpm", "8.5.0", False), ("php", "8.2.1", False)],
)
def test_php(tmp_path: pathlib.Path, name: str, version: str, refused: bool) -> None:
    data = pathlib.Path("/bin/sh").read_bytes() + f"X-Powered-By: PHP/{version}\0".encode()
    found = verdict(put(tmp_path / name, data)).refused
    assert bool(found) == refused
    if refused:
        assert found[0].startswith(f"{tmp_path}/php-fpm8.2 is PHP 8.2, which crashes")


@pytest.mark.parametrize(
    ("mark", "name"),
    [("<jemalloc>: %s", "jemalloc of its own"), ("TCMALLOC_RELEASE_RATE", "tcmalloc"), ("mimalloc: x", "mimalloc")],
)
def test_an_allocator_of_its_own(tmp_path: pathlib.Path, mark: str, name: str) -> None:
    path = put(tmp_path / "a", pathlib.Path("/bin/sh").read_bytes() + mark.encode())
    note = f"{path} brings {name}, which the library may or may not take the place of"
    assert verdict(path) == ([], [note])


def test_scripts(tmp_path: pathlib.Path) -> None:
    assert verdict(put(tmp_path / "a", b"#!/usr/bin/env -S A=1 sh\n")) == ([], [])
    assert verdict(put(tmp_path / "b", b"#!/usr/bin/env\n")) == ([], [])
    assert verdict(put(tmp_path / "c", f"#!{tmp_path}/c\n".encode())) == ([], [])
    assert verdict(put(tmp_path / "d", b"#!/missing/ruby\n")) == ([], ["/missing/ruby is not there (yet)"])
    assert verdict("missing-program").noted == ["missing-program is not there (yet)"]
    assert verdict(put(tmp_path / "e", b"")) == ([], [])
    assert verdict(put(tmp_path / "f", b"\x7fELF damaged")) == ([], [])
    path = put(tmp_path / "mysqld_safe", b"#!/bin/sh\n")
    assert verdict(path).noted == [
        f"{path} takes libraries of its own only from system directories; the drop-in is not its way"
    ]


def test_postgresql(tmp_path: pathlib.Path) -> None:
    def found(name: str) -> t.List[str]:
        return verdict(program, str(tmp_path), name).refused

    program = "/usr/bin/pg_ctlcluster"
    (tmp_path / "usr/bin").mkdir(parents=True)
    put(tmp_path / program[1:], b"#!/bin/sh\n")
    template, old, new = "postgresql@.service", "postgresql@13-main.service", "postgresql@15-my-own.service"
    assert found(template) == found(old) == []
    for directory in ("13/main", "15/my-own"):
        (tmp_path / "etc/postgresql" / directory).mkdir(parents=True)
    first, second = (tmp_path / "etc/postgresql" / name / "environment" for name in ("13/main", "15/my-own"))
    line = "LD_PRELOAD = '/opt/jemalloc/current/lib/libjemalloc.so'"
    reason = f"/usr/bin/pg_ctlcluster gives it no environment but that of {{}}; add {line} there"
    assert found(template) == [reason.format(f"{first}, {second}")]
    assert found(old) == [reason.format(first)]
    first.write_text(f"# ours\n{line}\n")
    second.write_text("LD_PRELOAD = '/other.so'\n")
    assert found(template) == found(new) == [reason.format(second)]
    assert found(old) == []


def test_apparmor(tmp_path: pathlib.Path) -> None:
    profiles = tmp_path / "sys/kernel/security/apparmor/profiles"
    profiles.parent.mkdir(parents=True)
    profiles.write_text("/usr/sbin/mysqld (enforce)\n/usr/sbin/nginx (complain)\nown (enforce)\n")
    rule = "if it may not read the library, add '/opt/jemalloc/** mr,' to /etc/apparmor.d/local/"
    missing = "is not there (yet)"
    assert verdict("/usr/sbin/mysqld", str(tmp_path)).noted == [
        f"AppArmor confines it by /usr/sbin/mysqld; {rule}usr.sbin.mysqld",
        f"/usr/sbin/mysqld {missing}",
    ]
    assert verdict("/usr/sbin/nginx", str(tmp_path)).noted == [f"/usr/sbin/nginx {missing}"]
    found = verdict("/usr/sbin/x", str(tmp_path), AppArmorProfile="-own").noted
    assert found == [f"AppArmor confines it by own; {rule}own", f"/usr/sbin/x {missing}"]


def test_what_is_no_elf_file_has_no_format_that_is_in_the_way() -> None:
    assert applicability._unfit("/script", b"#!/bin/sh\n", HERE) == ""
