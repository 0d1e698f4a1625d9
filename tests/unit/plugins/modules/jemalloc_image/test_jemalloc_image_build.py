# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc_image where no bundle does, so that the library is built."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pathlib
import shutil
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundle
from ansible_collections.preload.jemalloc.plugins.module_utils import _image_build as image_build
from tests.unit.plugins.modules.jemalloc_image.conftest import GO, RELEASE, Bundle, Podman, make, receipt_of

Call = t.Callable[..., t.Dict[str, t.Any]]


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch, library: pathlib.Path) -> t.Dict[str, t.Any]:
    """Let a build succeed; what its receipt says of the platform."""
    made_for: t.Dict[str, t.Any] = {}

    def build(_host: t.Any, stage: t.Any, _request: t.Any, _here: t.Any, work: str) -> t.Tuple[str, t.Any]:
        assert stage.builder == "builder"
        tree = pathlib.Path(work, "built")
        (tree / "lib").mkdir(parents=True)
        shutil.copy(library, tree / "lib")
        receipt = receipt_of(tree, **made_for)
        del receipt["files"]
        return str(tree), {**receipt, "origin": "https://x/y"}

    monkeypatch.setattr(image_build, "make", build)
    return made_for


def test_build(call: Call, podman: Podman, builds: t.Dict[str, t.Any], tmp_path: pathlib.Path) -> None:
    found = make(call, **RELEASE, builder="builder")
    assert (found["changed"], found["built"], found["origin"]) == (True, "9.9.9", "https://x/y")
    (tmp_path / "b").write_bytes(base64.b64decode(found["content"]))
    _tree, receipt = bundle.unpack(str(tmp_path / "b"), str(tmp_path / "u"))
    assert bundle.portable(receipt) == found["receipt"]
    recipe = json.loads(podman.images["app:1"]["Config"]["Labels"]["preload.jemalloc.recipe"])
    assert recipe["library"]["bundle"] == hashlib.sha256((tmp_path / "b").read_bytes()).hexdigest()


def test_default_builder_is_pulled(call: Call, podman: Podman) -> None:
    failed = make(call, **RELEASE)
    assert failed["msg"] == "builder: podman pull ended with 125: Error: no such registry."
    assert podman.said("pull") == [[f"--platform=linux/{GO}", "docker.io/library/debian:11"]]
    failed = make(call, **RELEASE, pull="never")
    assert failed["msg"] == (
        "builder: docker.io/library/debian:11 is not here, and may not be pulled (pull: never); load it."
    )


def test_builder_for_another_machine(call: Call, podman: Podman) -> None:
    podman.images["builder"]["Architecture"] = "riscv64"
    message = f"builder: builder is for linux/riscv64, and linux/{GO} is wanted; name one for that"
    assert make(call, **RELEASE, builder="builder")["msg"] == f"{message} (Error: no such registry)."
    assert make(call, **RELEASE, builder="builder", pull="never")["msg"] == f"{message}."
    assert podman.said("run") == []


def test_base_for_another_machine(call: Call, podman: Podman, packed: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {**packed(), "platform": f"linux/{GO}"}
    podman.registry["base"] = podman.images["base"]
    podman.images["base"] = {**podman.images["base"], "Architecture": "riscv64"}
    assert make(call, **wanted, pull="never")["msg"] == (
        f"base: base is for linux/riscv64, and linux/{GO} is wanted; name one for that."
    )
    assert make(call, True, **wanted)["changed"]
    assert podman.warnings == [f"base is not here for linux/{GO}, so it cannot be looked at before it is pulled."]
    assert make(call, **wanted)["changed"]
    assert not make(call, **wanted)["changed"]
    assert podman.said("pull") == [[f"--platform=linux/{GO}", "base"]]


@pytest.mark.parametrize(
    "platform", ["arm64", "linux", "windows/arm64", "linux/pdp11", "linux/arm64/", "linux/arm64/v8/a"]
)
def test_platform_that_is_not_known(call: Call, packed: Bundle, platform: str) -> None:
    message = make(call, **packed(), platform=platform)["msg"]
    assert message.startswith(f"platform: {platform!r} is none that this collection knows; write it like linux/arm64, ")


def test_machine_that_does_not_run_here(
    call: Call, podman: Podman, packed: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = type("Names", (), {"machine": "another"})
    monkeypatch.setattr(os, "uname", lambda: other)
    assert make(call, **packed())["changed"]
    assert f"--platform=linux/{GO}" in podman.said("build")[0]
    monkeypatch.setattr(podman, "_run", lambda _words: (1, "exec /lib/ld.so: exec format error"))
    assert make(call, **packed(), enabled=True, tag="other:1")["msg"] == (
        f"base: base is for linux/{GO}, whose programs do not run here; install an emulator such as the package "
        "qemu-user-static, or do this on a host for that."
    )


def test_builder_that_is_too_new(call: Call, builds: t.Dict[str, t.Any]) -> None:
    builds["libc_lowest"] = "2.999"
    message = make(call, **RELEASE, builder="builder")["msg"]
    assert message.startswith("builder: what builder built does not fit: it needs glibc 2.999, base has 2.")
    assert message.endswith("; name an older builder.")
