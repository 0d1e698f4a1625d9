# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images for arm64, and the role on such a host, on a machine that emulates it: fit for pages of 64 KiB."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest

from tests import emulators
from tests.conftest import Run
from tests.connections import lab as connections
from tests.images import lab

LIBRARY = "/opt/jemalloc/9.9.9/lib/libjemalloc.so.2"

_PACKAGES = (
    "autoconf,base-files,coreutils,dash,diffutils,findutils,gcc,grep,libc-bin,libc6-dev,login,make,mawk,python3,sed"
)

#: Is a builder for jemalloc itself and a host for the role. Its packages are only unpacked, as to configure them takes
#: minutes of emulation.
BUILDER = (
    "--variant=extract",
    f"--include={_PACKAGES}",
    '--extract-hook=ln -s mawk "$1"/usr/bin/awk',
    '--extract-hook=echo root:x:0:0:root:/root:/bin/sh > "$1"/etc/passwd',
    '--extract-hook=echo root:x:0: > "$1"/etc/group',
)

pytestmark = pytest.mark.full

Release = t.Callable[[str], dict[str, t.Any]]


@pytest.fixture(scope="module", autouse=True)
def emulator() -> t.Iterator[None]:
    """The emulator."""
    with emulators.arm64():
        yield


@pytest.fixture(scope="module")
def base(images: lab.Images, run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Debian for arm64, without Python and package manager."""
    return lab.debian(run, tmp_path_factory.mktemp("arm64"), "bookworm", lab.MINIMAL, "arm64")


@pytest.fixture(scope="module")
def builder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Debian for arm64 with a compiler."""
    return lab.debian(run, tmp_path_factory.mktemp("builder"), "bookworm", BUILDER, "arm64")


def receipt(images: lab.Images, image: str, version: str) -> dict[str, t.Any]:
    """Return the receipt in an image."""
    printed = images.run(image, "no-jemalloc.sh", "cat", f"/opt/jemalloc/{version}/receipt.json")
    found: dict[str, t.Any] = json.loads(printed[printed.index("{\n") :])
    return found


def check(images: lab.Images, image: str, version: str) -> None:
    """See that an image is for arm64 and its library for pages of 64 KiB."""
    assert images.inspect(image)["Architecture"] == "arm64"
    found = receipt(images, image, version)
    assert (found["platform"]["architecture"], found["platform"]["lg_page"]) == ("aarch64", 16)
    assert "--with-lg-page=16" in found["configure"]
    assert images.mapped(image, "cat", lab.MAPS) == {f"/opt/jemalloc/{version}/lib/libjemalloc.so.2"}


def test_image(images: lab.Images, base: str, builder: str, release: Release) -> None:
    wanted = {**release("9.9.9"), "jemalloc_enabled": True, "jemalloc_image_platform": "linux/arm64"}
    made = images.play(base, "arm64", **wanted, jemalloc_image_builder=builder)
    assert made.changed
    check(images, images.name("arm64"), "9.9.9")
    assert images.inspect(images.name("arm64"))["Config"]["Labels"]["preload.jemalloc.platform"] == "aarch64-glibc"
    assert not images.play(base, "arm64", **wanted, jemalloc_image_builder=builder).changed
    # The cache has the bundle by now, for this architecture alone.
    assert "building" not in images.play(base, "arm64-cached", **wanted, jemalloc_method="bundle").output


def test_what_is_for_another_architecture_is_refused(
    images: lab.Images, base: str, builder: str, debian: t.Callable[[str], str], release: Release
) -> None:
    wanted = {**release("9.9.9"), "jemalloc_enabled": True, "jemalloc_image_pull": "never"}
    failed = images.play(base, "other", **wanted, jemalloc_method="source", fails=True)
    assert failed.sentence == (
        f"builder: {images.builder} is for linux/amd64, and linux/arm64 is wanted; name one for that."
    )
    amd64 = debian("bookworm")
    failed = images.play(amd64, "other", **wanted, jemalloc_image_platform="linux/arm64", fails=True)
    message = f"base: {amd64} is for linux/amd64, and linux/arm64 is wanted; name one for that"
    assert failed.sentence == f"{message}."
    failed = images.play(amd64, "other", **release("9.9.9"), jemalloc_image_platform="linux/arm64", fails=True)
    assert failed.sentence.startswith(f"{message} (")
    with emulators.none():
        failed = images.play(base, "other", **wanted, jemalloc_image_builder=builder, fails=True)
    assert failed.sentence == (
        f"base: {base} is for linux/arm64, whose programs do not run here; install an emulator such as the package "
        "qemu-user-static, or do this on a host for that."
    )


@pytest.fixture
def host(run: Run, environment: dict[str, str], builder: str, tmp_path: Path) -> t.Iterator[connections.Container]:
    """A container for arm64 that is reached by podman's connection plugin."""
    with connections.reaching(run, tmp_path, environment) as reach:
        made = connections.Container(reach, tmp_path, "podman", "preload-jemalloc-arm64", builder)
        made.start()
        yield made
        made.remove()


def test_role_on_a_host(host: connections.Container, release: Release) -> None:
    wanted = release("9.9.9")
    # None of its packages is configured.
    host.shell("mkdir -p /opt /root /srv && chmod 700 /root && mkdir -p -m 1777 /tmp")
    host.bring(wanted["jemalloc_origins"][0], "/srv/")
    wanted.update(jemalloc_origins=["/srv"], jemalloc_method="source")
    wanted.update(jemalloc_enabled=True, jemalloc_enabled_via="ld_so_preload")
    assert host.play(**wanted)[1] == 2
    assert host.mapped("cat", lab.MAPS) == {LIBRARY}
    found = json.loads(host.start_in("cat", "/opt/jemalloc/9.9.9/receipt.json"))
    assert (found["platform"]["architecture"], found["platform"]["lg_page"]) == ("aarch64", 16)
    assert "--with-lg-page=16" in found["configure"]
    assert host.play(**wanted)[1] == 0
    assert host.play(jemalloc_state="absent")[1] == 2


def test_jemalloc_itself(images: lab.Images, base: str, builder: str, genuine: dict[str, t.Any]) -> None:
    images.play(base, "arm64-real", **genuine, jemalloc_image_builder=builder, jemalloc_enabled=True)
    image = images.name("arm64-real")
    check(images, image, "5.3.0")
    printed = images.run(image, "true", options=["--env=MALLOC_CONF=stats_print:true"])
    assert "5.3.0-" in printed
    assert 0 < images.inspect(image)["Size"] - images.inspect(base)["Size"] < 1_500_000
