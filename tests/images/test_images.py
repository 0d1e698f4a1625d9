# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images with jemalloc, of bases with glibc and with musl: what runs in them, what is refused, what stays."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import typing as t
from pathlib import Path

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundle
from tests.checkout import ROOT
from tests.conftest import Run
from tests.images import lab

LIBRARY = "/opt/jemalloc/9.9.9/lib/libjemalloc.so.2"
# A program by its path: a shell of busybox has what it needs no program for.
WRAPPER = ("jemalloc.sh", "/bin/cat", lab.MAPS)

#: What our layer may add, in bytes.
MOST = 1_500_000

Release = t.Callable[[str], dict[str, t.Any]]


def layers(found: dict[str, t.Any]) -> list[str]:
    return list(found["RootFS"]["Layers"])


def kept(directory: Path, cache: Path, libc: str, lowest: str = "") -> tuple[str, str]:
    """Return the bundle of 9.9.9 for a C library that a cache has, as a file, and its checksum.

    With a lowest version it is one that says so of itself.
    """
    entries = json.loads((cache / "index.json").read_text())
    entry = next(each for each in entries if (each["release"], each["platform"]["libc"]) == ("9.9.9", libc))
    data = (cache / "bundles" / entry["sha256"]).read_bytes()
    path = directory / "jemalloc-9.9.9.tar.gz"
    path.write_bytes(data)
    if lowest:
        tree, receipt = bundle.unpack(str(path), str(directory / "tree"))
        receipt["platform"]["libc_lowest"] = lowest
        path.write_bytes(bundle.pack(tree, receipt))
    return str(path), f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_every_command_has_it(images: lab.Images, debian: t.Callable[[str], str], release: Release, run: Run) -> None:
    base, wanted = debian("bookworm"), {**release("9.9.9"), "jemalloc_enabled": True}
    wanted.update(jemalloc_image_malloc_conf={"narenas": 2}, jemalloc_image_labels={"maker": 'says "$HOME\\"'})
    predicted = images.play(base, "all", "--check", "--diff", **wanted)
    assert predicted.changed
    made = images.play(base, "all", "--diff", **wanted)
    assert (made.changed, made.diff) == (True, predicted.diff)

    image = images.name("all")
    assert images.mapped(image, "cat", lab.MAPS) == {LIBRARY}
    name = "preload-jemalloc-image-test"
    run("podman", "run", "--detach", "--replace", f"--name={name}", "--network=none", image)
    try:
        for command in (("cat", lab.MAPS), ("cat", "/proc/1/maps")):
            assert LIBRARY in run("podman", "exec", name, *command)
    finally:
        run("podman", "rm", "--force", "--time=0", name)
    assert images.mapped(image, "no-jemalloc.sh", "cat", lab.MAPS) == set()

    found, before = images.inspect(image), images.inspect(base)
    assert layers(found)[:-1] == layers(before)
    history = run("podman", "history", "--format={{.Size}} {{.CreatedBy}}", image).splitlines()
    assert len([line for line in history if not line.startswith("0 B ")]) == 2
    assert "MALLOC_CONF=narenas:2" in found["Config"]["Env"]
    labels = found["Config"]["Labels"]
    assert (labels["maker"], labels["preload.jemalloc.release"]) == ('says "$HOME\\"', "9.9.9")
    assert labels["org.opencontainers.image.base.name"] == base
    assert labels["preload.jemalloc.platform"] == "x86_64-glibc"
    assert labels["preload.jemalloc.library-sha256"] in images.run(image, "sha256sum", LIBRARY)

    # What has it is only rebuilt for what is different.
    assert not images.play(base, "all", **wanted).changed
    assert images.inspect(image)["Id"] == found["Id"]
    wanted["jemalloc_image_malloc_conf"] = {"narenas": 3}
    made = images.play(base, "all", "--diff", **wanted)
    assert made.changed
    assert '-ENV LD_PRELOAD="/opt/jemalloc/current/lib/libjemalloc.so" MALLOC_CONF="narenas:2"' in made.diff
    # byte for byte the same layer, from the builder's cache
    assert layers(images.inspect(image)) == layers(found)


def test_musl_has_a_library_of_its_own(
    images: lab.Images, musl: str, debian: t.Callable[[str], str], release: Release, run: Run, tmp_path: Path
) -> None:
    wanted = release("9.9.9")
    assert images.play(musl, "musl", **wanted).changed
    image = images.name("musl")
    assert images.mapped(image, *WRAPPER) == {LIBRARY}
    assert images.mapped(image, "cat", lab.MAPS) == set()
    assert "libc.so.6" not in images.run(image, "busybox", "strings", LIBRARY)

    # The command of the base stays behind an entry point of ours, and exec is not for it.
    assert images.play(musl, "entry", **wanted, jemalloc_image_entrypoint=True).changed
    assert images.mapped(images.name("entry")) == {LIBRARY}

    # Neither gets the bundle of the other, which the cache has by now.
    images.play(debian("bookworm"), "glibc", **wanted)
    for base, other, here in ((musl, "glibc", "musl"), (debian("bookworm"), "musl", "glibc")):
        (tmp_path / other).mkdir()
        path, checksum = kept(tmp_path / other, images.cache, other)
        refused = {"jemalloc_bundle": path, "jemalloc_bundle_checksum": checksum, "jemalloc_method": "bundle"}
        failed = images.play(base, "other", **wanted, **refused, fails=True)
        assert f"does not fit: it is for x86_64 with {other}, {base} is x86_64 with {here}." in failed.sentence
    # By the cache alone, what comes is the right one: nothing is built.
    assert "building" not in images.play(musl, "cached", **wanted, jemalloc_method="bundle").output
    assert images.mapped(images.name("cached"), *WRAPPER) == {LIBRARY}


def test_a_libc_that_is_too_old_gets_a_library_built_for_it(
    images: lab.Images, debian: t.Callable[[str], str], release: Release, tmp_path: Path
) -> None:
    images.play(debian("bookworm"), "new", **release("9.9.9"))
    path, checksum = kept(tmp_path, images.cache, "glibc", "2.38")
    shutil.rmtree(images.cache)
    wanted = {**release("9.9.9"), "jemalloc_bundle": path, "jemalloc_bundle_checksum": checksum}
    base = debian("bullseye")
    failed = images.play(base, "old", **wanted, jemalloc_method="bundle", fails=True)
    assert f"does not fit: it needs glibc 2.38, {base} has 2.31." in failed.sentence
    made = images.play(base, "old", **wanted, jemalloc_enabled=True)
    assert "It is built from source, as the bundle does not do" in re.sub(r"\s+", " ", made.output)
    assert images.mapped(images.name("old"), "cat", lab.MAPS) == {LIBRARY}


def test_what_fails_in_the_image_gets_no_name(
    images: lab.Images, debian: t.Callable[[str], str], release: Release, run: Run
) -> None:
    base = debian("bookworm")
    images.play(base, "kept", **release("9.9.9"))
    ours = ("podman", "images", "--quiet", "--no-trunc", "--filter=label=preload.jemalloc.release")
    before = images.inspect(images.name("kept"))["Id"], run(*ours)
    assert before[1]
    failed = images.play(base, "kept", **release("7.7.7"), jemalloc_enabled=True, fails=True)
    assert failed.sentence.startswith(f"The library is not fit for {base}: ")
    assert failed.sentence.endswith("; no image has got the name.")
    assert (images.inspect(images.name("kept"))["Id"], run(*ours)) == before
    container = f"preload-jemalloc-{hashlib.sha256(images.name('kept').encode()).hexdigest()[:12]}"
    assert container not in run("podman", "ps", "--all", "--format={{.Names}}")


def test_bases_that_do_not_do(images: lab.Images, release: Release, run: Run, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    static = lab.imported(run, root, tmp_path, "static")
    wanted = release("9.9.9")
    assert f"base: {static} has no dynamic loader" in images.play(static, "x", **wanted, fails=True).sentence

    # Without a shell nothing but the environment does.
    bare = tmp_path / "bare"
    (bare / "lib").mkdir(parents=True)
    (loader,) = Path("/lib").glob("ld-musl-*.so.1")
    shutil.copy(loader, bare / "lib" / loader.name)
    without = lab.imported(run, bare, tmp_path, "bare", "[]")
    assert "has no /bin/sh" in images.play(without, "x", **wanted, fails=True).sentence
    made = images.play(without, "bare", **wanted, jemalloc_enabled=True)
    assert "has no program that shows what is mapped" in re.sub(r"\s+", " ", made.output)


def containerfile() -> str:
    """Return the Containerfile of the README, which is that of docs/containers.md."""
    found = {
        t.cast("re.Match[str]", re.search(r"```dockerfile\n(.*?)```", (ROOT / name).read_text(), re.DOTALL))[1]
        for name in ("README.md", "docs/containers.md")
    }
    assert len(found) == 1
    return found.pop()


def test_three_lines_of_a_containerfile(
    images: lab.Images, debian: t.Callable[[str], str], release: Release, run: Run, tmp_path: Path
) -> None:
    base = debian("bookworm")
    images.play(base, "three", **release("9.9.9"))
    (tmp_path / "dist" / "x86_64-glibc2.17").mkdir(parents=True)
    kept(tmp_path / "dist" / "x86_64-glibc2.17", images.cache, "glibc")
    text = containerfile()
    assert len(text.splitlines()) == 3
    assert "debian:12-slim" in text
    (tmp_path / "Containerfile").write_text(text.replace("5.3.1", "9.9.9").replace("debian:12-slim", base))
    run("podman", "build", "--pull=false", f"--tag={images.name('lines')}", str(tmp_path))
    library = "/opt/jemalloc-9.9.9/lib/libjemalloc.so.2"
    assert images.mapped(images.name("lines"), "cat", lab.MAPS) == {library}


@pytest.mark.full
@pytest.mark.parametrize("what", ["bullseye", "bookworm", "trixie", "forky", "musl"])
def test_jemalloc_itself(
    images: lab.Images, debian: t.Callable[[str], str], musl: str, genuine: dict[str, t.Any], what: str, run: Run
) -> None:
    base, suite = (musl, "bookworm") if what == "musl" else (debian(what), "bullseye")
    wanted = {**genuine, "jemalloc_image_builder": lab.debian(run, images.cache.parent, suite, lab.BUILDER_IN_FULL)}
    images.play(base, f"real-{what}", **wanted, jemalloc_enabled=True, jemalloc_image_malloc_conf={"preset": "ruby"})
    image = images.name(f"real-{what}")
    assert images.mapped(image, "cat", lab.MAPS) == {"/opt/jemalloc/5.3.0/lib/libjemalloc.so.2"}
    # coreutils' cat closes what it would print to, before jemalloc does.
    program = ["cat", "/dev/null"] if what == "musl" else ["true"]
    printed = images.run(image, *program, options=["--env=MALLOC_CONF=stats_print:true"])
    assert re.search(r"Version: \"?5\.3\.0-", printed)
    assert 0 < images.inspect(image)["Size"] - images.inspect(base)["Size"] < MOST


@pytest.mark.full
def test_a_builder_that_gets_its_compiler(
    images: lab.Images, debian: t.Callable[[str], str], release: Release, run: Run
) -> None:
    builder = run(str(ROOT / ".ci" / "build-image"), "bullseye").splitlines()[-1]
    shutil.rmtree(images.cache, ignore_errors=True)
    more: dict[str, t.Any] = {
        "jemalloc_image_builder": builder,
        "jemalloc_build_packages": True,
        "jemalloc_enabled": True,
    }
    assert "building" in images.play(debian("bullseye"), "packages", **release("9.9.9"), **more).output
    assert images.mapped(images.name("packages"), "cat", lab.MAPS) == {LIBRARY}
