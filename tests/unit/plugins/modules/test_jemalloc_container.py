# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc_container, run as a whole: its containers are processes of this machine, which really map it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes
from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_container as module

Call = t.Callable[..., t.Dict[str, t.Any]]
Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Any]]

ENGINES = pathlib.Path(__file__).parents[2] / "engines.py"
LOADER = "/lib64/ld-linux-x86-64.so.2"
LIBC = b"\0GNU C Library (Debian GLIBC) stable release version %s.\n"
HEADER = "# Managed by the Ansible collection preload.jemalloc; changes made here are lost.\n"
DROP_IN = "etc/containers/systemd/{}.container.d/zz-preload-jemalloc.conf"


def libc(version: str) -> t.List[int]:
    """Return a C library that says it has a version."""
    return list(pathlib.Path("/bin/true").read_bytes() + LIBC % version.encode())


class World:
    """A host with containers."""

    def __init__(self, root: pathlib.Path, directory: pathlib.Path, prefix: str) -> None:
        self.root, self.prefix, self._directory = root, prefix, directory
        self.warnings: t.List[str] = []
        files = {name.lstrip("/"): name for name in ("/bin/true", "/bin/sh", "/bin/cat", LOADER)}
        image = {"Id": "image1", "RepoTags": ["app:1"], "Architecture": "amd64", "Config": {"Env": ["PATH=/bin"]}}
        self.state: t.Dict[str, t.Any] = {
            "root": str(root),
            "version": "5.4.2",
            "program": "/bin/sleep",
            "files": {**files, "lib/libc.so.6": libc("2.99")},
            "images": {"app": image},
            "containers": {},
        }
        directory.mkdir()
        for name in ("podman", "docker", "podman-compose", "systemctl"):
            (directory / name).write_text(f"#!{sys.executable} -IS\n{ENGINES.read_text()}")
            (directory / name).chmod(0o755)
        self.write()

    @property
    def shop(self) -> pathlib.Path:
        """The directory of a compose file."""
        return self.root / "srv" / "shop"

    def write(self, **more: t.Any) -> None:
        """Let the programs know what there is."""
        if more:
            self.read()
        self.state.update(more)
        (self._directory / "state.json").write_text(json.dumps(self.state))

    def read(self) -> t.Dict[str, t.Any]:
        """Return what there is by now."""
        self.state = json.loads((self._directory / "state.json").read_text())
        return self.state

    def quadlet(self, name: str, text: str = "Image=app:1\n", unit: str = "", runs: bool = True, **env: str) -> None:
        """Add a quadlet, and its container."""
        path = self.root / "etc/containers/systemd" / f"{name}.container"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"[Container]\n{text}")
        self.container(unit or f"{name}.service", {"PODMAN_SYSTEMD_UNIT": unit or f"{name}.service"}, runs, env)

    def compose(self, *containers: str, name: str = "compose.yaml", files: str = "compose.yaml", **env: str) -> str:
        """Add a compose file with these containers."""
        self.shop.mkdir(parents=True, exist_ok=True)
        (self.shop / name).write_text("services: {}\n")
        for each in containers:
            labels = {
                "project": "shop",
                "service": each.split("-")[0],
                "project.working_dir": str(self.shop),
                "project.config_files": files,
            }
            self.container(each, {f"com.docker.compose.{key}": value for key, value in labels.items()}, True, env)
        return str(self.shop / name)

    def container(self, key: str, labels: t.Dict[str, str], runs: bool, env: t.Dict[str, str]) -> None:
        """Add a container."""
        self.read()
        pid = subprocess.Popen([self.state["program"], "1000"], start_new_session=True).pid if runs else 0
        self.state["containers"][key] = {"pid": pid, "env": env, "labels": labels}
        self.write()

    def mapped(self, key: str) -> t.Optional[t.Set[str]]:
        """Return the releases that a container maps, None when it does not run."""
        pid = self.read()["containers"][key]["pid"]
        if not pid:
            return None
        maps = pathlib.Path(f"/proc/{pid}/maps").read_text()
        return set(re.findall(rf"{re.escape(self.prefix)}/([^/]+)/lib", maps))

    def environment(self, key: str) -> t.Dict[str, str]:
        """Return the environment that a container was started with."""
        return dict(self.read()["containers"][key]["seen"])

    def calls(self, pattern: str = "") -> t.List[str]:
        """Return the calls of the programs since the last time that match a pattern."""
        log = self._directory / "calls.log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.write_text("")
        return [line for line in lines if re.search(pattern, line)]

    def end(self) -> None:
        """End all containers."""
        for each in self.read()["containers"].values():
            if each["pid"]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each["pid"], signal.SIGKILL)

    def switch(self, version: str) -> None:
        """Make a release the current one."""
        with publish.locked(self.prefix):
            publish.switch(self.prefix, version, publish.Undo())


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A shared library that needs the C library, and says that it is jemalloc 9.9.9."""
    directory = tmp_path_factory.mktemp("library")
    text = '#include <stdio.h>\nconst char version[] = "9.9.9-0-g0123abc";\nint say(void) { return puts(version); }\n'
    (directory / "version.c").write_text(text)
    path = directory / "libjemalloc.so.2"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O0", "-o", str(path), str(directory / "version.c")], check=True)
    return path


@pytest.fixture
def prefix(tmp_path: pathlib.Path) -> str:
    """Where the store is."""
    return str(tmp_path / "store")


@pytest.fixture
def world(
    root: pathlib.Path,
    tmp_path: pathlib.Path,
    prefix: str,
    installed: t.Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> t.Iterator[World]:
    """A host with a store and no containers yet."""
    installed(prefix, "9.9.9")
    made = World(root, tmp_path / "programs", prefix)
    made.switch("9.9.9")
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}:{os.environ['PATH']}")
    monkeypatch.setattr(restarts, "INTERVAL", 0.01)
    monkeypatch.setattr(host.Host, "warn", lambda _this, words: made.warnings.append(words))
    yield made
    made.end()


@pytest.fixture
def containers(call: Call, world: World) -> Call:
    """Run the module."""

    def run(*entries: t.Any, **arguments: t.Any) -> t.Dict[str, t.Any]:
        return call(module, **{"prefix": world.prefix, "containers": list(entries), **arguments})

    return run


def test_a_quadlet(containers: Call, world: World, snapshot: Snapshot) -> None:
    world.quadlet("web", 'Image=app:1\nEnvironment="LD_PRELOAD=/lib/%%a.so" B=c\n')
    world.quadlet("other")
    before = snapshot(world.root)
    wanted = {"quadlet": "web", "malloc_conf": {"narenas": 2}}
    predicted = containers(wanted, _check=True)
    assert snapshot(world.root) == before
    done = containers(wanted)
    assert done["proved"] == ["web.service"]
    assert {**done, "proved": []} == predicted

    path = world.root / DROP_IN.format("web")
    library = f"{world.prefix}/current/lib/libjemalloc.so"
    assert path.read_text() == (
        f"{HEADER}[Container]\nVolume={world.prefix}:{world.prefix}:ro\n"
        f'Environment="LD_PRELOAD={library}:/lib/%%a.so"\nEnvironment="MALLOC_CONF=narenas:2"\n'
    )
    assert (done["files"], done["before"]) == ([str(path)], {str(path): None})
    assert done["diff"] == [
        {"before_header": str(path), "after_header": str(path), "before": "", "after": path.read_text()}
    ]
    reason = "1 of its 1 processes do not map jemalloc 9.9.9"
    listed = {"name": "web.service", "of": "web.container", "version": "9.9.9", "reason": reason}
    assert done["containers"] == [listed]
    assert world.mapped("web.service") == {"9.9.9"}
    assert world.mapped("other.service") == set()
    trials = world.calls(r"^podman run ")
    assert len(trials) == 4
    assert all(f"--volume={world.prefix}:{world.prefix}:ro" in each for each in trials)

    between = snapshot(world.root)
    for check in (True, False):
        again = containers(wanted, _check=check)
        assert (again["changed"], again["files"], again["proved"]) == (False, [], [])
        assert again["containers"] == [{**listed, "reason": ""}]
        assert snapshot(world.root) == between
    assert world.calls(r"^podman (run|export) |^systemctl (restart|daemon-reload)") == []

    # settings alone
    changed = containers({"quadlet": "web", "malloc_conf": {"narenas": 3}})
    assert changed["containers"][0]["reason"] == "its settings are going to differ"
    assert world.environment("web.service")["MALLOC_CONF"] == "narenas:3"

    gone = containers()
    assert gone["proved"] == ["web.service"]
    assert gone["containers"][0]["reason"] == "1 of its 1 processes still map jemalloc"
    assert world.mapped("web.service") == set()
    assert snapshot(world.root).keys() == before.keys()
    assert containers(state="absent")["changed"] is False


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"refuses": "own"}, "web.service: it did not start: Job for web.service failed."),
        ({"ends": True}, "web.service: it is failed"),
        ({"ignores": True}, "web.service: 1 of its 1 processes do not map jemalloc 9.9.9"),
    ],
)
def test_what_is_not_proved_goes_back(
    containers: Call, world: World, snapshot: Snapshot, trouble: t.Dict[str, t.Any], words: str
) -> None:
    for name in ("web", "later"):
        world.quadlet(name)
    before = snapshot(world.root)
    world.write(**trouble)
    failed = containers({"quadlet": "web"}, timeout=1)
    assert failed["msg"].startswith(f"web.container: {words}; ")
    assert failed["msg"].endswith("web.service runs again without the library as before.")
    assert failed["changed"]
    assert snapshot(world.root).keys() == before.keys()
    assert (world.mapped("web.service"), world.mapped("later.service")) == (set(), set())


def test_one_that_fails_keeps_no_other_from_it(containers: Call, world: World) -> None:
    world.quadlet("a", unit="a.service", runs=False)
    world.quadlet("b")
    world.write(fails={"daemon-reload": "No space"})
    failed = containers({"quadlet": "a"}, {"quadlet": "b"})
    assert failed["msg"] == (
        "a.container: systemctl daemon-reload ended with 4: No space; it is as before | "
        "b.container: systemctl daemon-reload ended with 4: No space; it is as before."
    )
    world.write(fails={})
    done = containers({"quadlet": "a"}, {"quadlet": "b"})
    assert done["proved"] == ["b.service"]  # the other one does not run
    assert [each["name"] for each in done["containers"]] == ["b.service"]


def test_one_that_does_not_come_back_at_all(containers: Call, world: World) -> None:
    world.quadlet("web")
    world.write(refuses="all")
    failed = containers({"quadlet": "web"}, timeout=1)
    assert failed["msg"].endswith(
        "; web.service does not run without the library as before either (it did not start: Job for web.service "
        "failed.)."
    )


def test_one_that_is_started_again_and_again(containers: Call, world: World) -> None:
    world.quadlet("web")
    world.write(again=3)
    failed = containers({"quadlet": "web"}, timeout=0)
    assert "web.service: it does not stay up, systemd started it 3 times again" in failed["msg"]


def test_a_template_stands_for_its_instances(containers: Call, world: World) -> None:
    world.quadlet("db@", unit="db@1.service")
    world.quadlet("db@", unit="db@2.service")
    assert containers({"quadlet": "db@"})["proved"] == ["db@1.service", "db@2.service"]
    assert world.mapped("db@2.service") == {"9.9.9"}


def test_without_a_restart(containers: Call, world: World) -> None:
    world.quadlet("web")
    done = containers({"quadlet": "web"}, restart=False)
    assert (done["changed"], done["proved"]) == (True, [])
    assert done["containers"][0]["reason"] == "1 of its 1 processes do not map jemalloc 9.9.9"
    assert world.calls("^systemctl restart") == []
    again = containers({"quadlet": "web"}, restart=False)
    assert (again["changed"], again["containers"]) == (False, done["containers"])


def test_another_release(containers: Call, world: World, installed: t.Callable[..., None]) -> None:
    world.quadlet("web")
    wanted = {"quadlet": "web"}
    predicted = containers({**wanted, "version": "9.9.8"}, releases=["9.9.8"], version="9.9.9", _check=True)
    assert predicted["containers"][0]["version"] == "9.9.8"
    message = containers({**wanted, "version": "9.9.8"})["msg"]
    assert message.startswith(f"{world.prefix}/9.9.8 cannot be preloaded: no such release is installed there; run ")
    installed(world.prefix, "9.9.8")
    assert containers({**wanted, "version": "9.9.8"})["proved"] == ["web.service"]
    assert world.mapped("web.service") == {"9.9.8"}
    # the store keeps what a drop-in names
    assert places.references(f"{world.prefix}/9.9.8") == [str(world.root / DROP_IN.format("web"))]
    assert containers(wanted)["containers"][0]["version"] == "9.9.9"
    assert world.mapped("web.service") == {"9.9.9"}

    # an upgrade changes no file, and where it fails the file names the release from before
    world.switch("9.9.8")
    assert containers(wanted, rebuilt="9.9.8", _check=True)["changed"]
    world.write(ignores=True)
    failed = containers(wanted, timeout=1)
    assert failed["files"] == []
    assert "web.service does not run with jemalloc 9.9.9 as before either" in failed["msg"]
    drop_in = (world.root / DROP_IN.format("web")).read_text()
    assert f"LD_PRELOAD={world.prefix}/9.9.9/lib/libjemalloc.so" in drop_in
    world.read().pop("ignores")
    world.write()
    assert containers(wanted)["proved"] == ["web.service"]
    assert world.mapped("web.service") == {"9.9.8"}
    # in check mode a release that was built anew counts as not mapped
    rebuilt = containers(wanted, rebuilt="9.9.8", _check=True)
    assert rebuilt["containers"][0]["reason"] == "1 of its 1 processes do not map jemalloc 9.9.8"


def test_a_new_release_that_does_not_fit_the_image(
    containers: Call, world: World, installed: t.Callable[..., None]
) -> None:
    world.quadlet("web")
    containers({"quadlet": "web"})
    installed(world.prefix, "9.9.8")
    world.switch("9.9.8")
    world.write(files={**world.state["files"], "lib/libc.so.6": libc("2.1")})
    path = world.root / DROP_IN.format("web")
    before = path.read_text()
    message = containers({"quadlet": "web"}, _check=True)["msg"]
    assert path.read_text() == before
    world.calls()
    # at its next restart it would have got a library that is not for it
    assert containers({"quadlet": "web"})["msg"] == f"{message} From now on {path} names 9.9.9, which runs there."
    assert path.read_text() == before.replace("/current/", "/9.9.9/")
    assert world.calls("^systemctl") == ["systemctl daemon-reload"]
    assert world.mapped("web.service") == {"9.9.9"}


def test_a_run_that_was_killed_before_the_restart(containers: Call, world: World, snapshot: Snapshot) -> None:
    world.quadlet("web")
    before = snapshot(world.root)
    containers({"quadlet": "web"}, restart=False)
    leftover = world.root / f"{DROP_IN.format('web')}.kept"
    leftover = leftover.with_name(f".{changes.DROP_IN}.kept.preload-jemalloc")
    leftover.write_text("")
    world.write(ignores=True)
    failed = containers({"quadlet": "web"}, timeout=1)
    assert failed["msg"].endswith("web.service runs again without the library as before.")
    assert not leftover.exists()
    assert snapshot(world.root).keys() == before.keys()


def test_restored(containers: Call, world: World, snapshot: Snapshot) -> None:
    world.quadlet("web")
    world.quadlet("db")
    path = world.compose("shop")
    containers({"quadlet": "db"}, {"compose": path, "service": "shop"})
    between = snapshot(world.root)
    done = containers({"quadlet": "web"})
    assert (world.mapped("web.service"), world.mapped("db.service")) == ({"9.9.9"}, set())
    assert world.mapped("shop") == set()
    restored = containers({"quadlet": "missing"}, state="restored", restore=done["before"])
    assert sorted(restored["proved"]) == ["db.service", "shop", "web.service"]
    assert (world.mapped("web.service"), world.mapped("db.service")) == (set(), {"9.9.9"})
    assert world.mapped("shop") == {"9.9.9"}
    assert {name: value[1] for name, value in snapshot(world.root).items()} == {
        name: value[1] for name, value in between.items()
    }
    for name, text in (("/etc/passwd", None), (next(iter(done["before"])), "x")):
        assert containers(state="restored", restore={name: text})["msg"] == (
            f"restore: {name} is not a file of this module; hand on what it returned as before."
        )


def test_a_compose_file(containers: Call, world: World, snapshot: Snapshot) -> None:
    path = world.compose("shop-1", "shop-2", "cache", LD_PRELOAD="/lib/$a.so")
    before = snapshot(world.root)
    wanted = [{"compose": path, "service": name} for name in ("shop", "cache")]
    wanted[0]["malloc_conf"] = {"narenas": 2}
    predicted = containers(*wanted, _check=True)
    assert snapshot(world.root) == before
    done = containers(*wanted)
    assert done["proved"] == ["cache", "shop"]
    assert {**done, "proved": []} == predicted
    override = world.shop / "compose.override.yaml"
    library = f"{world.prefix}/current/lib/libjemalloc.so:/lib/$$a.so"
    service = '  "{}":\n    volumes:\n      - "{}:{}:ro"\n    environment:\n      LD_PRELOAD: "{}"\n'
    part = (world.prefix, world.prefix, library)
    assert override.read_text() == (
        f"{HEADER}services:\n{service.format('cache', *part)}{service.format('shop', *part)}"
        '      MALLOC_CONF: "narenas:2"\n'
    )
    assert done["files"][0] == str(override)
    assert done["before"] == {str(override): None}
    for name in ("shop-1", "shop-2", "cache"):
        assert world.mapped(name) == {"9.9.9"}
    assert "podman-compose -p shop up -d --no-deps shop" in world.calls("^podman-compose")
    assert places.references(world.prefix) == [str(override)]

    # Its own part of what is preloaded by now is not taken for somebody else's.
    for name in ("shop-1", "shop-2", "cache"):
        assert world.environment(name)["LD_PRELOAD"] == library.replace("$$", "$")
    between = snapshot(world.root)
    for check in (True, False):
        again = containers(*wanted, _check=check)
        assert (again["changed"], again["files"]) == (False, [])
        assert snapshot(world.root) == between

    assert containers(wanted[1])["proved"] == ["shop"]
    assert (world.mapped("shop-1"), world.mapped("cache")) == (set(), {"9.9.9"})
    assert containers()["proved"] == ["cache"]
    assert world.mapped("cache") == set()
    assert not override.exists()
    assert places.references(world.prefix) == []
    assert containers(state="absent")["changed"] is False
    assert sorted(path.name for path in (world.root / "var/lib").iterdir()) == []


def test_a_compose_file_that_goes_back(containers: Call, world: World, installed: t.Callable[..., None]) -> None:
    wanted = {"compose": world.compose("shop"), "service": "shop"}
    world.write(refuses="own")
    failed = containers(wanted, timeout=1)
    assert failed["msg"] == (
        f"{wanted['compose']}: shop: it did not start: Error: it does not start; its last words are: what it / wrote "
        "last; shop runs again without the library as before."
    )
    assert world.mapped("shop") == set()
    assert sorted(path.name for path in world.shop.iterdir()) == ["compose.yaml"]
    world.write(refuses="", ends=True)
    assert "shop: it has no container that runs" in containers(wanted, timeout=1)["msg"]
    world.write(ends=False, hangs=True)
    assert "shop: it did not start within 1 s" in containers(wanted, timeout=1)["msg"]
    world.write(hangs=False)
    assert containers(wanted)["proved"] == ["shop"]
    installed(world.prefix, "9.9.8")
    world.switch("9.9.8")
    world.calls()
    assert containers(wanted)["proved"] == ["shop"]
    assert "podman-compose -p shop restart shop" in world.calls("^podman-compose")


def test_a_compose_file_that_is_gone(containers: Call, world: World) -> None:
    path = world.compose("shop")
    containers({"compose": path, "service": "shop"})
    for each in world.shop.iterdir():
        each.unlink()
    world.write(no_compose=True)
    gone = containers()
    assert (gone["changed"], gone["proved"], len(gone["files"])) == (True, [], 1)
    assert containers()["changed"] is False


def test_an_override_of_ours_that_somebody_made_his_own(containers: Call, world: World) -> None:
    path = world.compose("shop")
    containers({"compose": path, "service": "shop"})
    (world.shop / "compose.override.yaml").write_text("services: {}\n")
    assert containers(state="absent")["changed"]
    assert (world.shop / "compose.override.yaml").read_text() == "services: {}\n"


def test_what_compose_does_not_do(containers: Call, world: World) -> None:
    path = world.compose("shop")
    wanted = {"compose": path, "service": "shop"}
    assert containers({**wanted, "service": "missing"})["msg"] == (
        f"containers: there is no container of missing of {path}, by which its image is known; start it once, and "
        "look that the service is called so."
    )
    other = world.compose(name="stack.yaml")
    assert containers({**wanted, "compose": other})["msg"].startswith(
        f"containers: the compose file {other} is none of compose.yaml, "
    )
    (world.shop / "docker-compose.yml").mkdir()
    assert containers({**wanted, "compose": f"{world.shop}/docker-compose.yml"})["msg"] == (
        f"containers: the compose file {world.shop}/docker-compose.yml is not there; name one that is there."
    )
    foreign = world.shop / "docker-compose.override.yml"
    foreign.write_text("services: {}\n")
    assert containers(wanted)["msg"].startswith(f"containers: {foreign} is there and not ours; write ")
    foreign.unlink()
    world.compose("shop", files="compose.yaml,/srv/shop/prod.yaml")
    assert containers(wanted)["msg"] == (
        f"containers: {path}: its containers were started with compose.yaml, prod.yaml, and compose finds only its "
        "own file and its override by itself; start them without -f, or take it off the list."
    )
    world.write(no_compose=True)
    assert containers(wanted)["msg"] == (
        f"containers: this host has neither podman-compose nor docker compose, which {path} is for; install one."
    )


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
        patch.setattr(module.changes_util.files, "write_new", full)
        failed = containers({"quadlet": "web"})
    path = world.root / "etc/containers/systemd/web.container.d/zz-preload-jemalloc.conf"
    assert failed["msg"] == f"web.container: {path}: No space left on device; it is as before."
    assert not path.parent.exists()
    monkeypatch.setattr(module.changes_util, "LOCK", "/proc/nowhere/lock")
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
        ([{"quadlet": "x", "malloc_conf": "narenas:2"}], "malloc_conf is to have names and values, as narenas: 2."),
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
