# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quadlets as podman's generator reads them: which files count, in which order, and what they preload already."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _container as container
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_quadlet as quadlets
from ansible_collections.preload.jemalloc.plugins.module_utils._image_engine import Engine, Image

ADMIN, PACKAGE, RUN = "etc/containers/systemd", "usr/share/containers/systemd", "run/containers/systemd"


@pytest.fixture
def write(tmp_path: pathlib.Path) -> t.Callable[[str, str], None]:
    """Write a file below a root."""

    def text(name: str, lines: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"[Container]\n{lines}\n")

    return text


Write = t.Callable[[str, str], None]


def environment(tmp_path: pathlib.Path, name: str = "a-b-c.container") -> t.List[str]:
    """Return the values of Environment= in the order in which they count."""
    quadlet = quadlets.read(name, str(tmp_path))
    assert quadlet
    return [text.partition("Environment=")[2].strip() for text in quadlet.texts]


def test_which_files_count(tmp_path: pathlib.Path, write: Write) -> None:
    assert quadlets.read("a-b-c.container", str(tmp_path)) is None
    write(f"{ADMIN}/users/a-b-c.container", "Environment=users")
    assert quadlets.read("a-b-c.container", str(tmp_path)) is None
    write(f"{PACKAGE}/a-b-c.container", "Environment=package")
    write(f"{ADMIN}/deep/er/a-b-c.container", "Environment=admin")
    assert environment(tmp_path) == ["admin"]
    # those of all units come as those of its own do, in the order of their names; of one name the closest counts
    write(f"{ADMIN}/container.d/10-a.conf", "Environment=all")
    write(f"{ADMIN}/a-b-c.container.d/05-b.conf", "Environment=own")
    write(f"{PACKAGE}/a-b-c.container.d/20-c.conf", "Environment=packaged")
    write(f"{RUN}/a-.container.d/20-c.conf", "Environment=first")
    write(f"{ADMIN}/a-b-.container.d/10-a.conf", "Environment=not-all")
    write(f"{ADMIN}/a-b-c.container.d/zz-preload-jemalloc.conf", "Environment=ours")
    write(f"{ADMIN}/a-b-c.container.d/30-d.txt", "Environment=none")
    write(f"{ADMIN}/b.container.d/30-d.conf", "Environment=none")
    assert environment(tmp_path) == ["admin", "own", "not-all", "first"]
    write(f"{RUN}/a-b-c.container", "Environment=run")
    assert environment(tmp_path)[0] == "run"


@pytest.mark.parametrize(
    ("lines", "service"),
    [("", "web.service"), ("ServiceName=site", "site.service"), ("ServiceName=\n", "web.service")],
)
def test_its_service(tmp_path: pathlib.Path, write: Write, lines: str, service: str) -> None:
    write(f"{ADMIN}/web.container", lines)
    quadlet = quadlets.read("web.container", str(tmp_path))
    assert quadlet
    assert quadlet.service == service


@pytest.mark.parametrize(
    ("lines", "image"),
    [
        ("Image=app:1", "app:1"),
        ("Image=app:1\nImage=app:2", "app:2"),
        ("Image=app.image", "quay.io/app:3"),
        ("Image=app.build", "localhost/app:4"),
    ],
)
def test_its_image(tmp_path: pathlib.Path, write: Write, lines: str, image: str) -> None:
    write(f"{ADMIN}/web.container", lines)
    write(f"{ADMIN}/app.image", "[Image]\nImage=quay.io/app:3")
    write(f"{PACKAGE}/app.build", "[Build]\nImageTag=localhost/app:4")
    quadlet = quadlets.read("web.container", str(tmp_path))
    assert quadlet
    assert quadlet.image(str(tmp_path)) == image


@pytest.mark.parametrize(
    ("lines", "image", "foreign"),
    [
        ("", {}, ""),
        ("", {"LD_PRELOAD": "/lib/${LIB}/a%.so"}, "/lib/$${LIB}/a%%.so"),
        ("EnvironmentFile=env", {"LD_PRELOAD": "/image.so"}, "/file.so"),
        ("EnvironmentFile=env\nEnvironmentFile={top}/other", {}, "/other.so"),
        ("EnvironmentFile=-missing", {"LD_PRELOAD": "/image.so"}, "/image.so"),
        ("EnvironmentFile=env\nEnvironment=LD_PRELOAD=/%%own.so", {"LD_PRELOAD": "/image.so"}, "/%%own.so"),
    ],
)
def test_what_it_preloads_itself(
    tmp_path: pathlib.Path, write: Write, lines: str, image: t.Dict[str, str], foreign: str
) -> None:
    write(f"{ADMIN}/web.container", lines.format(top=tmp_path))
    write(f"{ADMIN}/env", "LD_PRELOAD=/early.so\nLD_PRELOAD=/file.so\nA=b")
    write("other", "LD_PRELOAD=/other.so")
    quadlet = quadlets.read("web.container", str(tmp_path))
    assert quadlet
    found = Image("1", "amd64", environment=image)
    assert quadlet.foreign(found) == foreign
    releases = container.Releases("/opt/jemalloc", "5.3.1", {"5.3.1": None})
    text = quadlet.text(releases, container.Wanted("web.container", malloc_conf={"prof_prefix": "/a%"}), found)
    ours = "/opt/jemalloc/current/lib/libjemalloc.so"
    assert f'\nEnvironment="LD_PRELOAD={ours}:{foreign}"\n'.replace(':"', '"') in text
    assert text.endswith('\nEnvironment="MALLOC_CONF=prof_prefix:/a%%"\n')


def test_the_end_of_a_start_that_hangs() -> None:
    calls = []

    def run(command: t.Sequence[str], _directory: t.Any, _data: t.Any) -> t.Tuple[int, str]:
        calls.append(" ".join(command))
        return 0, "ActiveState=activating\n"

    quadlets.Services(run, Engine(run, "podman")).end("web.service")
    assert calls[-1] == "timeout 5 systemctl stop -- web.service"


def test_a_container_that_ends_meanwhile(program: t.Callable[[str, str], pathlib.Path]) -> None:
    state = {"Pid": 7, "Running": False}
    config = {"Labels": {"PODMAN_SYSTEMD_UNIT": "web.service"}, "Env": None}
    inspected = json.dumps([{"Id": "1", "Image": "2", "State": state, "Config": config}])
    program("podman", "")

    def run(command: t.Sequence[str], _directory: t.Any, _data: t.Any) -> t.Tuple[int, str]:
        return (0, "1\n3\n") if "ps" in command else (125, f"{inspected}\nError: no such container 3")

    assert quadlets.Services(run, Engine(run, "podman")).running() == {}
