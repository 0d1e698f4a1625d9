# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role on a container that runs, and on an image under construction: what applies works, what does not is said."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import typing as t
from pathlib import Path

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _sandbox as sandbox
from tests.connections.lab import Container
from tests.fleet.lab import wait_until

LIBRARY = "/opt/jemalloc/9.9.9/lib/libjemalloc.so.2"
MAPS = ("cat", "/proc/self/maps")

Release = t.Callable[..., dict[str, t.Any]]


def test_installed_and_removed(container: Container, release: Release) -> None:
    wanted = release(container)
    before = container.picture()
    assert container.play("--check", **wanted, jemalloc_method="source")[1] == 2
    assert container.picture() == before
    printed, changed = container.play(**wanted, jemalloc_method="source")
    assert (changed, "building jemalloc 9.9.9 for" in printed) == (2, True)
    assert "systemd" not in printed  # nothing that needs it was asked for
    assert container.mapped("jemalloc.sh", *MAPS) == {LIBRARY}
    assert container.mapped(*MAPS) == set()
    assert container.play(**wanted, jemalloc_method="source")[1] == 0
    assert container.play(jemalloc_state="absent")[1] == 2
    assert container.picture() == before

    # The bundle that came of it is in the controller's cache.
    printed, changed = container.play(**wanted, jemalloc_method="bundle")
    assert (changed, "installing jemalloc 9.9.9, built on" in printed, "building" in printed) == (2, True, False)
    assert container.mapped("jemalloc.sh", *MAPS) == {LIBRARY}
    container.play(jemalloc_state="absent")
    assert container.picture() == before


@pytest.mark.parametrize("container", ["docker"], indirect=True)
def test_by_docker(container: Container, release: Release) -> None:
    wanted = release(container)
    assert container.play(**wanted)[1] == 2
    assert container.mapped("jemalloc.sh", *MAPS) == {LIBRARY}
    assert container.play(**wanted)[1] == 0


def test_enabled(container: Container, release: Release) -> None:
    wanted = {**release(container), "jemalloc_enabled": True}
    before = container.picture()
    predicted = container.play("--check", **wanted)
    assert predicted[1] == 2
    assert container.picture() == before
    printed, changed = container.play(**wanted)
    assert changed == 2
    for said in (predicted[0], printed):
        assert said.count("systemd is not the init of this host: logins, ssh and cron preload") == 1
    login = ("sh", "-lc", " ".join(MAPS))
    assert container.mapped("su", "-l", "root", "-c", " ".join(MAPS)) == {LIBRARY}
    assert container.mapped(*login) == {LIBRARY}
    assert container.mapped("env", "JEMALLOC_ENABLED=false", *login) == set()
    assert container.mapped(*MAPS) == set()
    assert container.shell("ls -d /etc/systemd/system.conf.d || true").startswith("ls: cannot access")
    assert container.play(**wanted)[1] == 0
    assert container.play(jemalloc_state="absent")[1] == 2
    assert container.picture() == before


def test_enabled_for_every_process(container: Container, release: Release) -> None:
    wanted = {**release(container), "jemalloc_enabled": True, "jemalloc_enabled_via": "ld_so_preload"}
    before = container.picture()
    assert container.play("--check", **wanted)[1] == 2
    assert container.picture() == before
    printed, changed = container.play(**wanted)
    assert (changed, "systemd" in printed) == (2, False)
    assert container.mapped(*MAPS) == container.mapped("env", "-i", *MAPS) == {LIBRARY}
    assert container.play(**wanted)[1] == 0
    refused = container.play(**wanted, jemalloc_exclude=["perl"], fails=True)
    assert "exclude: perl would not start any more" in refused[0]
    assert container.mapped(*MAPS) == {LIBRARY}
    assert container.play(jemalloc_state="absent")[1] == 2
    assert container.picture() == before


def test_what_needs_systemd_is_refused_before_any_change(container: Container, release: Release) -> None:
    wanted = release(container)
    before = container.picture()
    services = {**wanted, "jemalloc_services": ["cron"]}
    sentence = (
        "services: cron.service cannot be looked up, systemd is not the init of this host; run the command by "
        "jemalloc.sh instead."
    )
    for options in (["--check"], []):
        printed, changed = container.play(*options, **services, fails=True)
        assert sentence in printed, printed
        assert changed == 0
    printed, changed = container.play(**wanted, jemalloc_metrics=True, fails=True)
    assert "metrics: systemd is not the init of this host" in printed, printed
    assert changed == 0
    assert container.picture() == before
    # So it is where it is installed already.
    container.play(**wanted)
    before = container.picture()
    printed, changed = container.play(**services, fails=True)
    assert sentence in printed, printed
    assert container.picture() == before


def test_an_upgrade_and_back(container: Container, release: Release) -> None:
    container.play(**release(container, "9.9.8"), jemalloc_enabled=True)
    assert container.play(**release(container), jemalloc_enabled=True)[1] == 1
    assert container.mapped("jemalloc.sh", *MAPS) == {LIBRARY}
    printed, changed = container.play(jemalloc_version="previous", jemalloc_enabled=True)
    assert (changed, "systemd is not the init" in printed) == (1, True)
    assert container.mapped("jemalloc.sh", *MAPS) == {LIBRARY.replace("9.9.9", "9.9.8")}


MADE = f"localhost/preload-jemalloc-connections:{os.getpid()}"


@pytest.fixture
def commit(container: Container) -> t.Iterator[t.Callable[[], None]]:
    """Make an image of what buildah has."""

    def made() -> None:
        container.run("buildah", "commit", "--quiet", container.name, MADE)

    yield made
    container.run("podman", "rmi", "--force", MADE, check=False)


@pytest.mark.parametrize("container", ["buildah"], indirect=True)
def test_an_image_with_the_environment(container: Container, release: Release, commit: t.Callable[[], None]) -> None:
    container.play(**release(container), jemalloc_enabled=True)
    container.run("buildah", "config", "--env=LD_PRELOAD=/opt/jemalloc/current/lib/libjemalloc.so", container.name)
    commit()
    printed = container.run("podman", "run", "--rm", "--network=none", MADE, *MAPS)
    assert set(re.findall(r"/opt/jemalloc/\S+", printed)) == {LIBRARY}


@pytest.mark.parametrize("container", ["buildah"], indirect=True)
def test_a_container_of_such_an_image(container: Container, release: Release, commit: t.Callable[[], None]) -> None:
    wanted: dict[str, t.Any] = {"jemalloc_enabled": True, "jemalloc_enabled_via": "ld_so_preload"}
    container.play(**release(container), **wanted)
    commit()
    derived = dataclasses.replace(
        container, engine="podman", name=f"preload-jemalloc-derived-{os.getpid()}", image=MADE
    )
    derived.start()
    try:
        assert derived.mapped(*MAPS) == {LIBRARY}
        assert derived.play(**release(derived), **wanted)[1] == 0
        # Nothing of a lower layer can be renamed or exchanged.
        assert derived.play(**release(derived, "9.9.8"), **wanted)[1] == 1
        assert derived.mapped(*MAPS) == {LIBRARY.replace("9.9.9", "9.9.8")}
        assert derived.play(**release(derived), **wanted, jemalloc_verify=True)[1] == 1
        assert derived.play(jemalloc_state="absent")[1] == 2
        assert [line for line in derived.picture() if "jemalloc" in line and not line.startswith("/srv/")] == []
    finally:
        derived.remove()


@pytest.mark.parametrize("container", ["podman"], indirect=True)
def test_a_container_is_not_its_host(container: Container, tmp_path: Path) -> None:
    directory = tmp_path / "work"
    directory.mkdir()
    script = f"mkdir -p {directory} && cd {directory} && exec sleep 300"
    container.run("podman", "exec", "--detach", container.name, "sh", "-c", script)
    look = f"for each in /proc/[0-9]*/cwd; do readlink $each; done | grep -cx '{directory}' || true"
    wait_until(lambda: container.shell(look).strip() == "1")
    # What ends the build of a run that was killed must not take the container's for one of its own.
    assert sandbox.leftovers(str(tmp_path), [0]) == []
    with subprocess.Popen(["sleep", "300"], cwd=directory) as own:
        assert sandbox.leftovers(str(tmp_path), [0]) == [own.pid]
        own.kill()
