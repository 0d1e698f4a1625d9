# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers that a host runs, by quadlets and by compose: enabled, proved, restarted, taken back, refused."""

from __future__ import annotations

import re
import typing as t

import pytest

from tests.fleet.lab import Fleet

LIBRARY = "/opt/jemalloc/9.9.9/lib/libjemalloc.so.2"
DROP_IN = "/etc/containers/systemd/{}.container.d/zz-preload-jemalloc.conf"
OVERRIDE = "/srv/shop/compose.override.yaml"

_QUADLET = """[Container]
Image={image}
Exec={command}
StopTimeout=1
[Service]
TimeoutStartSec=30
"""

_COMPOSE = """services:
  shop:
    image: localhost/app:1
    command: ["sleep", "1000"]
    network_mode: host
    stop_grace_period: 1s
    environment: [A=b]
  cache:
    image: localhost/app:1
    command: ["sh", "-c", "unset LD_PRELOAD; exec sleep 1000"]
    network_mode: host
    stop_grace_period: 1s
"""


def write(host: Fleet, path: str, text: str) -> None:
    """Write a file on the host."""
    host.shell(host.hosts[0], f"mkdir -p $(dirname {path}) && cat > {path} <<'END'\n{text}END\n")


def quadlet(
    host: Fleet, name: str, image: str = "localhost/app:1", command: str = "sleep 1000", start: str = "restart"
) -> None:
    """Let the host have a quadlet, and start it."""
    write(host, f"/etc/containers/systemd/{name}.container", _QUADLET.format(image=image, command=command))
    host.shell(host.hosts[0], f"systemctl daemon-reload && systemctl {start} {name}.service")


def mapped(host: Fleet, container: str) -> set[str]:
    """Return the libraries of ours that the main process of a container maps, as the container sees itself."""
    maps = host.shell(host.hosts[0], f"cat /proc/$(podman inspect --format '{{{{.State.Pid}}}}' {container})/maps")
    return set(re.findall(r"/opt/\S*jemalloc\S*", maps))


def sentence(printed: str) -> str:
    """Return why a play failed."""
    return " ".join(re.findall(r'"msg": "((?:[^"\\]|\\.)*)"', printed) + re.findall(r"Task failed: (.*)", printed))


Play = t.Callable[..., str]


@pytest.fixture
def play(host: Fleet, tarball: t.Callable[[str], tuple[str, str]]) -> t.Iterator[Play]:
    """Play the role with containers; what they were is so again afterwards."""
    path, checksum = tarball("9.9.9")
    host.run("podman", "cp", path, f"{host.hosts[0]}:/root/")
    release = {"jemalloc_version": "9.9.9", "jemalloc_checksum": checksum, "jemalloc_origins": ["/root"]}

    def run(*containers: dict[str, t.Any], fails: bool = False, check: bool = False, **more: t.Any) -> str:
        wanted = {**release, "jemalloc_containers": list(containers), "jemalloc_timeout": 20, **more}
        wanted = {key: value for key, value in wanted.items() if value is not None}
        printed = host.play("site", *(["--check"] if check else []), "--diff", check=False, **wanted)
        assert ("failed=1" in printed) == fails, printed
        assert "Traceback" not in printed
        return printed

    yield run
    host.play("site", jemalloc_state="absent")
    host.shell(host.hosts[0], "systemctl stop web worker; rm -rf /etc/containers/systemd/*; systemctl daemon-reload")


def test_a_quadlet(host: Fleet, play: Play) -> None:
    name = host.hosts[0]
    quadlet(host, "web")
    play()  # installed, and nobody has it
    assert "changed=1" in play({"quadlet": "web"}, check=True)
    assert mapped(host, "systemd-web") == set()
    printed = play({"quadlet": "web"})
    assert "+Volume=/opt/jemalloc:/opt/jemalloc:ro" in printed
    assert mapped(host, "systemd-web") == {LIBRARY}
    assert "changed=0" in play({"quadlet": "web"})
    host.shell(name, "systemctl restart web.service")
    assert mapped(host, "systemd-web") == {LIBRARY}
    assert LIBRARY in host.shell(name, "podman exec systemd-web cat /proc/self/maps")

    # what is not listed any more is as it was
    assert "changed=1" in play()
    assert mapped(host, "systemd-web") == set()
    assert host.shell(name, "cd /etc/containers/systemd && ls -d *.*").split() == ["web.container"]


def test_a_quadlet_that_is_not_proved(host: Fleet, play: Play) -> None:
    name = host.hosts[0]
    quadlet(host, "web", command='sh -c "unset LD_PRELOAD; exec sleep 1000"')
    quadlet(host, "worker")
    printed = play({"quadlet": "web"}, {"quadlet": "worker"}, fails=True)
    assert "web.service: 1 of its 1 processes do not map jemalloc 9.9.9" in sentence(printed)
    assert "web.service runs again without the library as before" in sentence(printed)
    assert host.shell(name, "systemctl is-active web.service").strip() == "active"
    assert mapped(host, "systemd-web") == set()
    assert "LD_PRELOAD=/opt" not in host.shell(name, "systemctl show --property=ExecStart web.service")
    assert mapped(host, "systemd-worker") == {LIBRARY}  # the other one is none the worse for it
    listed = host.shell(name, "cd /etc/containers/systemd && ls -d *.*").split()
    assert listed == ["web.container", "worker.container", "worker.container.d"]


def test_a_new_release(host: Fleet, play: Play, tarball: t.Callable[[str], tuple[str, str]]) -> None:
    quadlet(host, "web")
    play({"quadlet": "web"})
    path, checksum = tarball("9.9.8")
    host.run("podman", "cp", path, f"{host.hosts[0]}:/root/")
    play({"quadlet": "web"}, jemalloc_version="9.9.8", jemalloc_checksum=checksum)
    assert mapped(host, "systemd-web") == {LIBRARY.replace("9.9.9", "9.9.8")}


def test_images_that_do_not_do(host: Fleet, play: Play) -> None:
    # jemalloc itself, as this host's distribution has it
    package = {"jemalloc_method": "package", "jemalloc_version": None, "jemalloc_checksum": None}
    quadlet(host, "web", "localhost/musl:1", start="cat")  # what it has is static, but for cat
    printed = play({"quadlet": "web"}, fails=True, **package)
    assert "it is linked to glibc, and the image has musl" in sentence(printed)
    quadlet(host, "web", "localhost/old:1")
    printed = play({"quadlet": "web"}, fails=True, **package)
    assert re.search(r"it needs glibc 2\.[34]\d, and the image has 2\.31", sentence(printed))
    assert host.shell(host.hosts[0], "systemctl is-active web.service").strip() == "active"
    assert host.shell(host.hosts[0], "cd /etc/containers/systemd && ls -d *.*").split() == ["web.container"]


def test_a_compose_file(host: Fleet, play: Play) -> None:
    name = host.hosts[0]
    write(host, "/srv/shop/compose.yaml", _COMPOSE)
    host.shell(name, "cd /srv/shop && podman-compose up -d")
    try:
        shop, cache = ({"compose": "/srv/shop/compose.yaml", "service": each} for each in ("shop", "cache"))
        play(shop)
        assert mapped(host, "shop_shop_1") == {LIBRARY}
        assert mapped(host, "shop_cache_1") == set()
        assert "A=b" in host.shell(name, "podman exec shop_shop_1 env")
        assert "changed=0" in play(shop)
        before = host.shell(name, f"cat {OVERRIDE}")
        printed = play(shop, cache, fails=True)
        assert "cache: 1 of its 1 processes do not map jemalloc 9.9.9" in sentence(printed)
        assert host.shell(name, f"cat {OVERRIDE}") == before
        assert mapped(host, "shop_shop_1") == {LIBRARY}
        assert mapped(host, "shop_cache_1") == set()
        assert "changed=1" in play()
        assert mapped(host, "shop_shop_1") == set()
        assert host.shell(name, "ls -A /srv/shop").split() == ["compose.yaml"]
        write(host, OVERRIDE, "services: {}\n")
        assert f"{OVERRIDE} is there and not ours" in sentence(play(shop, fails=True))
        assert host.shell(name, f"cat {OVERRIDE}") == "services: {}\n"
    finally:
        host.shell(name, f"rm -f {OVERRIDE}; cd /srv/shop && podman-compose down; rm -r /srv/shop")
