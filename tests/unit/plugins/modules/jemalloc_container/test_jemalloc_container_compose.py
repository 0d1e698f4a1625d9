# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc_container, run as a whole on compose files."""

from __future__ import annotations

import pathlib
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from tests.unit.plugins.modules.jemalloc_container.conftest import HEADER, World

Call = t.Callable[..., t.Dict[str, t.Any]]
Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Any]]


def test_a_compose_file(containers: Call, world: World, snapshot: Snapshot) -> None:
    path = world.compose("shop-1", "shop-2", "cache", LD_PRELOAD="/lib/$a.so")
    before = snapshot(world.root)
    wanted: t.List[t.Dict[str, t.Any]] = [{"compose": path, "service": name} for name in ("shop", "cache")]
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


def test_a_compose_file_again_and_the_way_back(containers: Call, world: World, snapshot: Snapshot) -> None:
    path = world.compose("shop-1", "shop-2", "cache", LD_PRELOAD="/lib/$a.so")
    wanted = [{"compose": path, "service": name} for name in ("shop", "cache")]
    assert containers(*wanted)["proved"] == ["cache", "shop"]
    override = world.shop / "compose.override.yaml"
    library = f"{world.prefix}/current/lib/libjemalloc.so:/lib/$a.so"

    # Its own part of what is preloaded by now is not taken for somebody else's.
    for name in ("shop-1", "shop-2", "cache"):
        assert world.environment(name)["LD_PRELOAD"] == library
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


def test_without_purge_services_are_added(containers: Call, world: World) -> None:
    path = world.compose("shop-1", "cache")
    wanted = [{"compose": path, "service": name} for name in ("shop", "cache")]
    assert containers(wanted[0])["proved"] == ["shop"]
    assert containers(wanted[1], purge=False)["proved"] == ["cache"]
    assert (world.mapped("shop-1"), world.mapped("cache")) == ({"9.9.9"}, {"9.9.9"})
    for again in (wanted, wanted[:1], []):
        assert containers(*again, purge=False)["changed"] is False
    assert containers(wanted[1])["proved"] == ["shop"]


def test_the_settings_of_one_service_alone(containers: Call, world: World) -> None:
    path = world.compose("shop-1", "cache")
    wanted: t.List[t.Dict[str, t.Any]] = [{"compose": path, "service": name} for name in ("shop", "cache")]
    assert containers(*wanted)["proved"] == ["cache", "shop"]
    wanted[0]["malloc_conf"] = {"narenas": 2}
    changed = containers(*wanted)
    assert changed["proved"] == ["shop"]
    assert [each["reason"] for each in changed["containers"]] == ["", "its settings are going to differ"]


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
