# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc_image, run as a whole with an engine that only keeps books of its images."""

from __future__ import annotations

import json
import re
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _arguments as arguments
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from tests.unit.plugins.modules.jemalloc_image.conftest import MACHINE, RELEASE, Podman, make

Call = t.Callable[..., t.Dict[str, t.Any]]
Bundle = t.Callable[..., t.Dict[str, t.Any]]


def test_check_mode_says_what_a_run_does_and_a_second_run_does_nothing(
    call: Call, podman: Podman, packed: Bundle
) -> None:
    wanted = {**packed(), "enabled": True}
    predicted = make(call, True, **wanted)
    assert podman.said("build") == podman.said("tag") == []
    made = make(call, **wanted)
    different = {"image": podman.images["app:1"]["Id"], "mapped": True}
    assert made == {**predicted, **different}
    assert (predicted["image"], predicted["mapped"]) == (None, None)
    assert made == {
        "changed": True,
        "diff": {"before": "", "after": made["diff"]["after"]},
        "tag": "app:1",
        "base": "b" * 64,
        "version": "9.9.9",
        "library": "/opt/jemalloc/current/lib/libjemalloc.so",
        "platform": f"{MACHINE}-glibc2.2",
        "built": None,
        "origin": wanted["bundle"],
        "missing": None,
        **different,
    }
    assert 'ENV LD_PRELOAD="/opt/jemalloc/current/lib/libjemalloc.so"' in made["diff"]["after"]
    podman.asked.clear()
    for check in (True, False):
        again = make(call, check, **wanted)
        assert (again["changed"], again["image"], again["platform"]) == (False, made["image"], made["platform"])
        assert again["diff"] == {"before": made["diff"]["after"], "after": made["diff"]["after"]}
    assert {words[0] for words in podman.asked} == {"image"}
    # One that fits is kept whatever bundle there is; by method bundle it has to be that one.
    assert not make(call, **{**wanted, "bundle_checksum": f"sha256:{'6' * 64}"})["changed"]
    other = make(call, **{**wanted, "bundle_checksum": f"sha256:{'6' * 64}"}, method="bundle")
    assert "SHA-256 is" in other["msg"]


def test_what_a_bundle_comes_to_is_there_already(call: Call, podman: Podman, packed: Bundle) -> None:
    wanted = {**packed(), "enabled": True}
    first = make(call, **wanted)
    recipe = json.loads(podman.images["app:1"]["Config"]["Labels"]["preload.jemalloc.recipe"])
    recipe["library"]["source"] = "7" * 64
    podman.images["app:1"]["Config"]["Labels"]["preload.jemalloc.recipe"] = json.dumps(recipe)
    assert make(call, **wanted)["changed"]
    assert make(call, **wanted)["image"] == first["image"]


def test_what_is_missing(call: Call, podman: Podman) -> None:
    found = make(call, **RELEASE, build="never")
    assert not found["changed"]
    missing = found["missing"]
    assert re.fullmatch(r"2\.[0-9]+", missing.pop("libc_version"))
    assert missing == {
        "version": "9.9.9",
        "checksum": RELEASE["checksum"],
        "sources": ["5" * 64],
        "options": arguments.OPTIONS,
        "architecture": MACHINE,
        "libc": "glibc",
        "lg_page": platform.lg_page(MACHINE),
    }
    assert podman.said("build") == []


def test_pushed_bundle(call: Call, packed: Bundle) -> None:
    given = packed()
    pushed = {"kind": "bundle", "path": given["bundle"], "sha256": given["bundle_checksum"][7:], "origin": "the cache"}
    found = make(call, **RELEASE, pushed=pushed, method="bundle")
    assert (found["changed"], found["origin"]) == (True, "the cache")
    assert not make(call, **RELEASE, pushed=pushed, method="bundle")["changed"]


@pytest.mark.parametrize(
    ("made_for", "reason"),
    [
        ({"libc": "musl"}, f"it is for {MACHINE} with musl, base is {MACHINE} with glibc"),
        ({"libc_lowest": "2.999"}, "it needs glibc 2.999, base has "),
    ],
)
def test_bundle_that_does_not_fit(
    call: Call, podman: Podman, packed: Bundle, made_for: t.Dict[str, t.Any], reason: str
) -> None:
    wanted = packed(**made_for)
    failed = make(call, **wanted, method="bundle")
    assert failed["msg"].startswith(f"The bundle {wanted['bundle']} does not fit: {reason}")
    found = make(call, **wanted, build="never")
    assert found["missing"]["libc"] == "glibc"
    assert podman.warnings == [f"It is not taken, as the bundle does not do: {failed['msg']}"]
    predicted = make(call, True, **wanted)
    assert (predicted["changed"], predicted["built"], predicted["platform"]) == (True, "9.9.9", None)
    assert podman.warnings[1] == f"It is built from source, as the bundle does not do: {failed['msg']}"


def test_check_mode_before_a_build(call: Call) -> None:
    assert make(call, True, **RELEASE)["built"] == "9.9.9"


def test_method_bundle_without_one(call: Call) -> None:
    assert make(call, **RELEASE, method="bundle")["msg"].startswith("bundle: method: bundle needs a bundle; name its ")


def test_base_from_a_registry(call: Call, podman: Podman, packed: Bundle) -> None:
    podman.registry["base"] = podman.images.pop("base")
    wanted = packed()
    predicted = make(call, True, **wanted)
    assert (predicted["changed"], predicted["base"], podman.said("pull")) == (True, None, [])
    assert podman.warnings == ["base is not here, so it cannot be looked at before it is pulled."]
    assert make(call, **wanted, pull="never")["msg"] == (
        "base: base is not here, and may not be pulled (pull: never); load it first."
    )
    assert make(call, **wanted)["changed"]
    assert not make(call, **wanted, pull="always")["changed"]
    assert podman.said("pull") == [["base"], ["base"]]
    podman.registry["base"] = {**podman.registry["base"], "Id": "d" * 64}
    assert make(call, **wanted, pull="always")["changed"]
