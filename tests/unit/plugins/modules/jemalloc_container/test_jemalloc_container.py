# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc_container, run as a whole on quadlets."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes
from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from tests.unit.plugins.modules.jemalloc_container.conftest import DROP_IN, HEADER, World, libc

Call = t.Callable[..., t.Dict[str, t.Any]]
Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Any]]


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
    (difference,) = done["diff"]
    assert (difference["before"], difference["after"]) == ("", path.read_text())
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


def test_settings_alone_and_the_way_back(containers: Call, world: World, snapshot: Snapshot) -> None:
    world.quadlet("web")
    before = snapshot(world.root)
    assert containers({"quadlet": "web", "malloc_conf": {"narenas": 2}})["proved"] == ["web.service"]
    changed = containers({"quadlet": "web", "malloc_conf": {"narenas": 3}})
    assert changed["containers"][0]["reason"] == "its settings are going to differ"
    assert world.environment("web.service")["MALLOC_CONF"] == "narenas:3"

    gone = containers()
    assert gone["proved"] == ["web.service"]
    assert gone["containers"][0]["reason"] == "1 of its 1 processes still map jemalloc"
    assert world.mapped("web.service") == set()
    assert snapshot(world.root).keys() == before.keys()
    assert containers(state="absent")["changed"] is False


def test_without_purge_containers_are_added(containers: Call, world: World) -> None:
    for name in ("web", "later"):
        world.quadlet(name)
    assert containers({"quadlet": "web"})["changed"]
    before = (world.root / DROP_IN.format("web")).read_text()
    for check in (True, False):
        assert containers(purge=False, _check=check)["changed"] is False
    done = containers({"quadlet": "later"}, purge=False)
    assert done["files"] == [str(world.root / DROP_IN.format("later"))]
    assert (world.root / DROP_IN.format("web")).read_text() == before
    assert containers({"quadlet": "web"}, purge=False)["changed"] is False
    assert [each["name"] for each in containers(state="absent", purge=False)["containers"]] == [
        "later.service",
        "web.service",
    ]


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
    assert "web.service is active, but not verified with jemalloc 9.9.9 as before" in failed["msg"]
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
    assert containers(state="restored", restore=done["before"], written=done["written"])["files"] == []
    for name, text in (("/etc/passwd", None), (next(iter(done["before"])), "x")):
        assert containers(state="restored", restore={name: text})["msg"] == (
            f"restore: {name} is not a file of this module; hand on what it returned as before."
        )


def test_what_another_run_changed_since_is_not_restored(
    containers: Call, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: t.List[str] = []
    monkeypatch.setattr(host.Host, "warn", lambda _self, message: warnings.append(message))
    world.quadlet("web")
    world.quadlet("db")
    done = containers({"quadlet": "web"}, {"quadlet": "db"})
    path = next(path for path in done["written"] if "web" in path)
    containers({"quadlet": "web", "malloc_conf": {"narenas": 2}}, {"quadlet": "db"})
    restored = containers(state="restored", restore=done["before"], written=done["written"])
    assert restored["files"] == [each for each in done["files"] if each != path]
    assert warnings == [f"{path}: changed since by another run, or by hand; left as it is."]
    assert (world.mapped("web.service"), world.mapped("db.service")) == ({"9.9.9"}, set())
