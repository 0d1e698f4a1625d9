# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module jemalloc_container refuses, and errors of the system."""

from __future__ import annotations

import pathlib
import re
import subprocess
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from tests.unit.plugins.modules.jemalloc_container.conftest import DROP_IN, LOADER, World, libc

Call = t.Callable[..., t.Dict[str, t.Any]]
Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Any]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Image=app:%i\n", "names no image that can be looked at"),
        ("Rootfs=/srv\n", "names no image that can be looked at"),
        ("Image=missing.image\n", "names no image that can be looked at"),
        ("Image=app:1\nVolume=/a:/b\nVolume=/x:{prefix}:ro\n", "mounts /x:{prefix}:ro itself"),
        ("Image=app:2\n", "podman pulled app:2 and does not have it"),
    ],
)
def test_quadlets_that_do_not_do(containers: Call, world: World, text: str, words: str) -> None:
    world.quadlet("web", text.format(prefix=world.prefix), runs=False)
    assert words.format(prefix=world.prefix) in containers({"quadlet": "web"})["msg"]
    assert not (world.root / DROP_IN.format("web")).exists()


def test_an_image_is_pulled(containers: Call, world: World) -> None:
    world.quadlet("web", "Image=app.image\n")
    (world.root / "etc/containers/systemd/app.image").write_text("[Image]\nImage=app:1\n")
    world.write(registry=world.state.pop("images"), images={})
    predicted = containers({"quadlet": "web"}, _check=True)
    assert predicted["changed"]
    assert world.warnings == ["app:1 of web.container is not here, so it cannot be looked at before it is pulled."]
    assert world.calls("pull") == []
    assert containers({"quadlet": "web"})["proved"] == ["web.service"]


def test_hosts_that_do_not_do(containers: Call, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.quadlet("web")
    wanted = {"quadlet": "web"}
    assert containers({"quadlet": "missing"})["msg"] == (
        f"containers: there is no quadlet missing.container below {world.root}/etc/containers/systemd or "
        f"{world.root}/usr/share/containers/systemd; name a file that is there."
    )
    world.write(version="4.9.3")
    assert containers(wanted)["msg"] == (
        "containers: podman 4.9 of this host reads no drop-ins of quadlets such as web.container, 5.0 does; make an "
        "image with jemalloc by preload.jemalloc.image instead."
    )
    world.write(version="of today")
    assert containers(wanted)["msg"] == "containers: podman does not say its version; look what podman it is."
    world.write(version="5.0.0", fails={"ps": "no"})
    assert containers(wanted)["msg"] == "containers: podman ps ended with 125: no."
    world.write(fails={"container": "Error: gone"})
    assert containers(wanted)["msg"] == (
        "containers: podman container inspect ended with 125 and tells of no containers; try again."
    )
    monkeypatch.setenv("PATH", "/nowhere")
    assert containers(wanted)["msg"] == "containers: this host has no podman, which web.container is for; install it."
    (world.root / "run/systemd/system").rmdir()
    assert containers(wanted)["msg"] == (
        "containers: systemd is not the init of this host, and web.container is run by that."
    )
    assert containers()["changed"] is False


def test_images_that_do_not_do(containers: Call, world: World, snapshot: Snapshot) -> None:
    world.quadlet("web")
    before, files = snapshot(world.root), world.state["files"]
    musl = {"lib/ld-musl-x86_64.so.1": "/bin/true"}
    fit = "give it a release that was built for that, or make an image with a library of its own by"
    front = f"containers: web.container: jemalloc 9.9.9 of {world.prefix} does not fit the image app:1: "
    back = f"; {fit} preload.jemalloc.image; no container was touched."
    for check in (True, False):
        world.write(files=musl)
        message = containers({"quadlet": "web"}, _check=check)["msg"]
        assert message == f"{front}it is linked to glibc, and the image has musl{back}"
        world.write(files={**files, "lib/libc.so.6": libc("2.1")})
        message = containers({"quadlet": "web"}, _check=check)["msg"]
        assert re.fullmatch(
            re.escape(front) + r"it needs glibc 2\.[0-9.]+, and the image has 2\.1" + re.escape(back), message
        )
    world.write(files={"bin/app": "/bin/true"})
    assert "containers: web.container: app:1 has no dynamic loader for x86_64" in containers({"quadlet": "web"})["msg"]
    world.write(files=files, fails={"run": "OCI runtime error"})
    assert containers({"quadlet": "web"})["msg"] == (
        f"containers: web.container: jemalloc 9.9.9 is not fit for the image app:1, {LOADER} --list "
        f"{world.prefix}/9.9.9/lib/libjemalloc.so.2 fails in it (podman cannot run it in a container: OCI runtime "
        "error); no container was touched."
    )
    world.write(fails={})
    world.read()
    world.state["images"]["app"]["Config"]["Env"] = [f"LD_PRELOAD={world.prefix}/current/lib/libjemalloc.so"]
    world.write()
    assert containers({"quadlet": "web"})["msg"] == (
        f"containers: the image app:1 of web.container preloads jemalloc below {world.prefix} itself; take it off the "
        "list."
    )
    assert snapshot(world.root) == before


def test_an_image_that_shows_nothing(containers: Call, world: World) -> None:
    world.quadlet("web")
    world.write(files={name: path for name, path in world.state["files"].items() if name.startswith("lib")})
    done = containers({"quadlet": "web"})
    assert done["proved"] == ["web.service"]
    assert world.warnings[0].startswith("app:1 has no program that shows what is mapped: ")


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A static program that sleeps."""
    directory = tmp_path_factory.mktemp("static")
    (directory / "main.c").write_text("#include <unistd.h>\nint main(void) { sleep(1000); return 0; }")
    subprocess.run(["gcc", "-static", "-o", str(directory / "main"), str(directory / "main.c")], check=True)
    return str(directory / "main")


def test_static_programs(containers: Call, world: World, static: str) -> None:
    world.write(program=static)
    world.quadlet("web")
    assert containers({"quadlet": "web"})["msg"] == (
        "containers: web.service of web.container runs static programs only, into which nothing can be preloaded; take "
        "it off the list."
    )
    world.write(program="/bin/sleep")
    world.quadlet("db")
    world.write(program=static)
    failed = containers({"quadlet": "db"}, timeout=0)
    assert "its processes are static programs, into which nothing can be preloaded" in failed["msg"]


def full(*_arguments: t.Any) -> None:
    """Write to a full disk."""
    raise OSError(28, "No space left on device")


def test_files_that_cannot_be_written(containers: Call, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.quadlet("web")
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_new", full)
        failed = containers({"quadlet": "web"})
    path = world.root / "etc/containers/systemd/web.container.d/zz-preload-jemalloc.conf"
    assert failed["msg"] == f"web.container: {path}: No space left on device; it is as before."
    assert not path.parent.exists()
    with monkeypatch.context() as patch:
        patch.setattr(changes, "standing", lambda _change: "by hand")
        failed = containers({"quadlet": "web"})
    assert failed["msg"] == (
        f"web.container: {path}: changed since by another run, or by hand, after this run had read it; all files are "
        "as before."
    )
    monkeypatch.setattr(changes, "LOCK", "/proc/nowhere/lock")
    assert "/proc/nowhere/lock: " in containers({"quadlet": "web"})["msg"]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{"service": "x"}], "an entry names a quadlet, or a compose file and its service; it has quadlet, compose, "),
        ([{"quadlet": "x", "name": "y"}], "an entry has no key name; it has quadlet, compose, "),
        ([{"quadlet": "a/b"}], "quadlet is to be the name of a file such as web.container"),
        ([{"quadlet": "x", "service": "y"}], "quadlet is to be the name of a file such as web.container"),
        ([{"compose": "x", "service": "y"}], "compose is to be the path of a compose file"),
        ([{"compose": "/x"}], "compose is to be the path of a compose file"),
        ([{"compose": "/x", "service": "y", "quadlet": "z"}], "compose is to be the path of a compose file"),
        ([{"quadlet": "x", "malloc_conf": 2}], "malloc_conf: it is to have names and values, as {narenas: 2} or nar"),
        ([{"quadlet": "x"}, {"quadlet": "x.container", "version": "5.3.0"}], "x.container is listed twice, with "),
        ([{"quadlet": "x", "version": "newest"}], "newest"),
    ],
)
def test_entries_that_are_wrong(containers: Call, entries: t.List[t.Dict[str, t.Any]], words: str) -> None:
    assert words in containers(*entries)["msg"]


def test_settings_that_are_wrong(containers: Call, world: World) -> None:
    world.quadlet("web")
    message = containers({"quadlet": "web", "malloc_conf": {"narena": 2}})["msg"]
    assert message.startswith("containers: web.container: malloc_conf: jemalloc has no option 'narena'; ")
