# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes of images: what a name and a label may be, what makes an image another one, Containerfile and layer."""

from __future__ import annotations

import io
import json
import pathlib
import tarfile
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _image as image
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.module_utils._image_engine import Image

OPTIONS = {"cxx": False, "prof": False, "lg_page": None}
PARAMS: t.Dict[str, t.Any] = {
    "base": "debian:12",
    "prefix": "/opt/jemalloc",
    "options": OPTIONS,
    "enabled": False,
    "entrypoint": False,
    "labels": {},
}
RECEIPT = {
    "release": "5.3.1",
    "library": "libjemalloc.so.2",
    "library_sha256": "1" * 64,
    "source": {"sha256": "2" * 64},
    "platform": {"architecture": "x86_64", "libc": "glibc", "libc_lowest": "2.17", "lg_page": 12},
    "options": OPTIONS,
}


def base(**more: t.Any) -> Image:
    return Image(**{"id": "b" * 64, "architecture": "amd64", "digest": "sha256:d", **more})


def recipe(found: t.Optional[Image] = None, conf: str = "", **params: t.Any) -> image.Recipe:
    return image.recipe(found or base(), "b" * 64, {**PARAMS, **params}, "5.3.1", conf)


@pytest.mark.parametrize(
    ("tag", "whole"),
    [
        ("app", "app:latest"),
        ("team/app:1.0", "team/app:1.0"),
        ("registry.example.com:5000/team/app", "registry.example.com:5000/team/app:latest"),
        ("localhost/a__b-c.d:X_1", "localhost/a__b-c.d:X_1"),
    ],
)
def test_tag(tag: str, whole: str) -> None:
    assert image.check_tag(tag, "debian:12") == whole


@pytest.mark.parametrize("tag", ["", "App", "a b", "a:", "a@sha256:0", "-a", "a:b:c", "--help", "a:-b", "a\n"])
def test_tag_that_is_no_name(tag: str) -> None:
    with pytest.raises(JemallocError) as caught:
        image.check_tag(tag, "debian:12")
    assert str(caught.value) == (
        f"tag: {tag!r} is not the name of an image; write it like team/app:1.0, in small letters."
    )


@pytest.mark.parametrize(("tag", "named"), [("a:1", "a:1"), ("a", "a"), ("a", "a:latest")])
def test_tag_that_is_the_base(tag: str, named: str) -> None:
    with pytest.raises(JemallocError, match=r"^tag: a(:1)? is the base itself, which the next run could not find"):
        image.check_tag(tag, named)


def test_labels() -> None:
    assert image.check_labels({"a.b/c-d": 1, "x": "y z"}) == {"a.b/c-d": "1", "x": "y z"}


@pytest.mark.parametrize("name", ["", "a b", "a=b", ".a", "preload.jemalloc.recipe"])
def test_label_with_a_wrong_name(name: str) -> None:
    with pytest.raises(JemallocError, match=r"^labels: .* cannot be set; take letters, digits and"):
        image.check_labels({name: "x"})


def test_label_with_a_wrong_value() -> None:
    with pytest.raises(JemallocError) as caught:
        image.check_labels({"a": "x\ny"})
    assert str(caught.value) == "labels: the value of a holds a line break or control character; leave it out."


@pytest.mark.parametrize(
    ("environment", "params", "ld_preload"),
    [
        ({}, {}, ""),
        ({"LD_PRELOAD": "/usr/lib/other.so"}, {}, ""),
        ({}, {"enabled": True}, "/opt/jemalloc/current/lib/libjemalloc.so"),
        (
            {"LD_PRELOAD": "/usr/lib/a.so /opt/jemalloc/5.1.0/lib/libjemalloc.so:b.so"},
            {"enabled": True},
            "/opt/jemalloc/current/lib/libjemalloc.so:/usr/lib/a.so:b.so",
        ),
        ({}, {"enabled": True, "prefix": "/srv/j"}, "/srv/j/current/lib/libjemalloc.so"),
    ],
)
def test_preload(environment: t.Dict[str, str], params: t.Dict[str, t.Any], ld_preload: str) -> None:
    assert recipe(base(environment=environment), **params)["ld_preload"] == ld_preload


def test_entrypoint_and_command() -> None:
    started = base(entrypoint=("/entry.sh", "-x"), command=("serve",))
    assert (recipe(started)["entrypoint"], recipe(started)["command"]) == ([], [])
    found = recipe(started, entrypoint=True)
    assert found["entrypoint"] == ["/usr/local/bin/jemalloc.sh", "/entry.sh", "-x"]
    assert found["command"] == ["serve"]


def whole(**params: t.Any) -> image.Recipe:
    return image.with_library(recipe(**params), RECEIPT, "3" * 64, "x86_64-glibc2.17")


def test_base_that_was_made_here() -> None:
    made = base(labels=image.labels(whole()))
    with pytest.raises(JemallocError, match=r"^base: debian:12 was itself made with jemalloc; name the image"):
        recipe(made)


def test_recipe_of_an_image() -> None:
    made = base(labels=image.labels(whole()))
    assert image.recipe_of(made) == whole()
    assert made.labels["preload.jemalloc.library-sha256"] == "1" * 64
    assert made.labels["preload.jemalloc.platform"] == "x86_64-glibc2.17"


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"format": 1}', "1", '{"labels": 3}'])
def test_recipe_of_an_image_of_somebody_else(text: t.Optional[str]) -> None:
    assert image.recipe_of(base(labels={} if text is None else {"preload.jemalloc.recipe": text})) == {}
    assert image.recipe_of(None) == {}


@pytest.mark.parametrize(
    ("change", "source", "bundle", "expected"),
    [
        ({}, None, None, True),
        ({}, "2" * 64, "3" * 64, True),
        ({}, "4" * 64, None, False),
        ({}, None, "4" * 64, False),
        ({"enabled": True}, None, None, False),
        ({"labels": {"a": "b"}}, None, None, False),
        ({"options": {**OPTIONS, "prof": True}}, None, None, False),
        ({"base": "debian:bookworm"}, None, None, False),
    ],
)
def test_suits(change: t.Dict[str, t.Any], source: t.Optional[str], bundle: t.Optional[str], expected: bool) -> None:
    assert image.suits(whole(), recipe(**change), source, bundle) is expected
    assert not image.suits({}, recipe(**change), source, bundle)


def test_containerfile() -> None:
    assert image.containerfile({}) == ""
    assert image.containerfile(recipe(base(digest=""))) == (
        "# debian:12 with jemalloc 5.3.1, made by the Ansible collection preload.jemalloc\n"
        f"FROM {'b' * 64}\n"
        "ADD layer.tar /\n"
        'LABEL org.opencontainers.image.base.name="debian:12" preload.jemalloc.release="5.3.1"\n'
    )
    started = base(entrypoint=("/a b", '"$x\\'), command=("c",))
    text = image.containerfile(recipe(started, "narenas:2", enabled=True, entrypoint=True, labels={"a": 'q"u\\o$te'}))
    assert text.splitlines()[3:] == [
        'ENV LD_PRELOAD="/opt/jemalloc/current/lib/libjemalloc.so" MALLOC_CONF="narenas:2"',
        'LABEL org.opencontainers.image.base.name="debian:12" org.opencontainers.image.base.digest="sha256:d" '
        'preload.jemalloc.release="5.3.1" a="q\\"u\\\\o\\$te"',
        'ENTRYPOINT ["/usr/local/bin/jemalloc.sh", "/a b", "\\"$x\\\\"]',
        'CMD ["c"]',
    ]
    assert json.loads(text.splitlines()[5][len("ENTRYPOINT ") :])[1:] == ["/a b", '"$x\\']


def test_layer(tmp_path: pathlib.Path) -> None:
    for name in ("one", "two"):
        tree = tmp_path / name
        for place, text, mode in (("lib/l.so.2", "l", 0o755), ("bin/x.sh", "x", 0o700), ("receipt.json", "{}", 0o600)):
            (tree / place).parent.mkdir(parents=True, exist_ok=True)
            (tree / place).write_text(text)
            (tree / place).chmod(mode)
        (tree / "lib" / "libjemalloc.so").symlink_to("l.so.2")
    data = image.layer(str(tmp_path / "one"), "/opt/jemalloc", "5.3.1")
    assert data == image.layer(str(tmp_path / "two"), "/opt/jemalloc", "5.3.1")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {member.name: (oct(member.mode), member.linkname, member.uid, member.mtime) for member in tar}
    assert found == {
        "opt/jemalloc": ("0o755", "", 0, 0),
        "opt/jemalloc/5.3.1": ("0o755", "", 0, 0),
        "opt/jemalloc/5.3.1/bin": ("0o755", "", 0, 0),
        "opt/jemalloc/5.3.1/bin/x.sh": ("0o755", "", 0, 0),
        "opt/jemalloc/5.3.1/lib": ("0o755", "", 0, 0),
        "opt/jemalloc/5.3.1/lib/l.so.2": ("0o755", "", 0, 0),
        "opt/jemalloc/5.3.1/lib/libjemalloc.so": ("0o777", "l.so.2", 0, 0),
        "opt/jemalloc/5.3.1/receipt.json": ("0o644", "", 0, 0),
        "opt/jemalloc/current": ("0o777", "5.3.1", 0, 0),
        "usr/local/bin/jemalloc.sh": ("0o777", "/opt/jemalloc/current/bin/jemalloc.sh", 0, 0),
        "usr/local/bin/no-jemalloc.sh": ("0o777", "/opt/jemalloc/current/bin/no-jemalloc.sh", 0, 0),
    }
