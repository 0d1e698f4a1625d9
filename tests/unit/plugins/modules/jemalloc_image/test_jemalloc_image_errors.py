# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module jemalloc_image refuses or warns about; what fails leaves the name as it was."""

from __future__ import annotations

import os
import pathlib
import shutil
import typing as t

import pytest

from tests.unit.plugins.modules.jemalloc_image.conftest import LIBRARY, LOADER, MACHINE, RELEASE, Podman, make

Call = t.Callable[..., t.Dict[str, t.Any]]
Bundle = t.Callable[..., t.Dict[str, t.Any]]


def test_what_fails_leaves_the_name(call: Call, podman: Podman, packed: Bundle) -> None:
    wanted = packed()
    before = make(call, **wanted)["image"]
    podman.shown = "7f-8f r-xp 0 0:0 1 /lib/libc.so.6\n"
    there = set(podman.images)
    failed = make(call, **wanted, enabled=True)
    assert failed["msg"] == (
        "The library is not fit for base: /bin/cat /proc/self/maps fails in it with jemalloc 9.9.9 (its "
        f"/proc/self/maps does not have {LIBRARY}); no image has got the name."
    )
    assert (podman.images["app:1"]["Id"], set(podman.images)) == (before, there)


def test_library_that_is_not_for_it(call: Call, podman: Podman, packed: Bundle, library: pathlib.Path) -> None:
    wanted = packed()
    # The loader is that of another machine, whatever the image says of itself.
    for name in (LOADER, "/lib/libc.so.6"):
        changed = library.parent / f"changed{name.replace('/', '_')}"
        whole = bytearray(pathlib.Path(os.path.realpath(podman.files[name])).read_bytes())
        whole[18:20] = (8).to_bytes(2, "little")
        changed.write_bytes(whole)
        podman.files[name] = str(changed)
    assert make(call, **wanted)["msg"].startswith("The library is not fit for base: it is for another machine (64 bits")
    assert podman.said("build") == []


def test_image_without_a_shell(call: Call, podman: Podman, packed: Bundle) -> None:
    del podman.files["/bin/sh"]
    del podman.files["/bin/cat"]
    for more, option in (({}, "enabled"), ({"entrypoint": True, "enabled": True}, "entrypoint")):
        assert make(call, **packed(), **more)["msg"] == (
            f"{option}: base has no /bin/sh, which jemalloc.sh is a script for; give enabled: true without entrypoint."
        )
    found = make(call, **packed(), enabled=True)
    assert found["mapped"] is False
    assert podman.warnings == [
        "base has no program that shows what is mapped: of the library only the loader's own look at it is known."
    ]


def test_warnings(call: Call, podman: Podman, packed: Bundle, tmp_path: pathlib.Path) -> None:
    static = tmp_path / "static.c"
    static.write_text("int main(void) { return 0; }")
    assert not os.system(f"gcc -static -o {tmp_path}/static {static}")
    podman.files["/srv/app"] = str(tmp_path / "static")
    podman.images["base"]["Config"] = {"Cmd": ["app"], "Env": ["PATH=/srv:/bin"]}
    assert make(call, **packed())["changed"]
    assert podman.warnings == [
        "/usr/local/bin, where jemalloc.sh is, is not in the PATH of base; call it by that path.",
        "What base starts with, app, is a static program: nothing can be preloaded into it.",
    ]
    podman.images["base"]["Config"] = {}
    assert make(call, **packed(), labels={"a": "b"})["changed"]
    assert len(podman.warnings) == 2


def test_profiling_and_musl(call: Call, podman: Podman) -> None:
    loader = {"x86_64": "/lib/ld-musl-x86_64.so.1", "aarch64": "/lib/ld-musl-aarch64.so.1"}[MACHINE]
    podman.files[loader] = podman.files.pop(LOADER)
    assert make(call, **RELEASE, options={"prof": True})["msg"] == (
        "options: base has musl, with which jemalloc's profiling hangs; leave prof out."
    )
    assert make(call, **RELEASE, build="never")["missing"]["libc"] == "musl"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"tag": "base"},
            "tag: base is the base itself, which the next run could not find any more; take another name.",
        ),
        ({"prefix": "/a b"}, "prefix: '/a b' cannot hold the store; name an absolute path of letters, digits and "),
        (
            {"version": "1.2.3", "checksum": None},
            "version: jemalloc 1.2.3 is not a known release; did you mean 3.6.0? ",
        ),
        ({"malloc_conf": {"narenas": "many"}}, "malloc_conf: "),
        ({"labels": {"a b": "c"}}, "labels: 'a b' cannot be set; "),
        ({"base": "--help"}, "base: '--help' is not the name of an image."),
        ({"engine": "docker"}, "engine: this host has no docker; "),
    ],
)
def test_bad_arguments(
    call: Call, monkeypatch: pytest.MonkeyPatch, arguments: t.Dict[str, t.Any], message: str
) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "docker" else which(name))
    found = make(call, **{**RELEASE, **arguments})
    assert found["failed"]
    assert found["msg"].startswith(message)
    assert "\n" not in found["msg"]


def test_disk_that_is_full(call: Call, podman: Podman, packed: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: t.Any) -> None:
        raise OSError(28, "No space left on device", "/tmp/x")

    monkeypatch.setattr(podman, "_export", full)
    assert make(call, **packed())["msg"] == "/tmp/x: No space left on device; make room there."
