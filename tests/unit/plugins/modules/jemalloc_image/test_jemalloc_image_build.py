# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc_image where no bundle does, so that the library is built."""

from __future__ import annotations

import base64
import hashlib
import json
import pathlib
import shutil
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundle
from ansible_collections.preload.jemalloc.plugins.module_utils import _image_build as image_build
from tests.unit.plugins.modules.jemalloc_image.conftest import GO, RELEASE, Podman, make, receipt_of

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
    assert podman.said("pull") == [["docker.io/library/debian:11"]]
    failed = make(call, **RELEASE, pull="never")
    assert failed["msg"] == (
        "builder: docker.io/library/debian:11 is not here, and may not be pulled (pull: never); load it."
    )


def test_builder_for_another_machine(call: Call, podman: Podman) -> None:
    podman.images["builder"]["Architecture"] = "riscv64"
    assert make(call, **RELEASE, builder="builder")["msg"] == (
        f"builder: builder is for riscv64, and base is for {GO}; name one for that."
    )


def test_builder_that_is_too_new(call: Call, builds: t.Dict[str, t.Any]) -> None:
    builds["libc_lowest"] = "2.999"
    message = make(call, **RELEASE, builder="builder")["msg"]
    assert message.startswith("builder: what builder built does not fit: it needs glibc 2.999, base has 2.")
    assert message.endswith("; name an older builder.")
