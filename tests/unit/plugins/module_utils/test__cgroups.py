# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where processes belong, from control groups as systemd and the runtimes of containers make them."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.preload.jemalloc.plugins.module_utils import _cgroups as cgroups
from ansible_collections.preload.jemalloc.plugins.module_utils._cgroups import Place

ONE, OTHER = "1" * 64, "abcdef0123456789" * 4
SHORT, SHORT_OTHER = "1" * 12, "abcdef012345"
USER = "/user.slice/user-1000.slice/user@1000.service"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/system.slice/puma.service", Place("puma.service", "system")),
        ("/system.slice/system-sidekiq.slice/sidekiq@1.service", Place("sidekiq@1.service", "system")),
        ("/system.slice/puma.service/workers/1", Place("puma.service", "system")),
        ("/system.slice/__hidden.service", Place("_hidden.service", "system")),
        ("/user.slice/user-0.slice/session-1.scope", Place("session-1.scope", "system")),
        ("/system.slice/tmp.mount", Place("tmp.mount", "system")),
        ("/init.scope", Place("init.scope", "system")),
        (f"{USER}/app.slice/own.service", Place("own.service", "user", "", 1000)),
        (f"{USER}/init.scope", Place("init.scope", "user", "", 1000)),
        (USER, Place("user@1000.service", "system")),
        # what a service with Delegate= makes, and moves into
        (f"{USER}/app.slice/own.service/app.service", Place("own.service", "user", "", 1000)),
        (f"{USER}/app.slice/own.service/user@0.service/app.service", Place("own.service", "user", "", 1000)),
        (f"{USER}/user@0.service/app.service", Place("user@0.service", "user", "", 1000)),
        ("/system.slice/own.service/app.slice/app.service", Place("own.service", "system")),
        ("/system.slice/own.service/user@0.service/app.service", Place("own.service", "system")),
        (
            "/system.slice/system-user.slice/capsule@own.service/app.slice/a.service",
            Place("capsule@own.service", "system"),
        ),
        ("/../../system.slice/puma.service", Place("puma.service", "system")),
        (
            f"/machine.slice/libpod-{ONE}.scope/container/system.slice/a.service/b.service",
            Place("a.service", "container", SHORT),
        ),
        ("/", Place()),
        ("/user.slice", Place()),
        # containers
        (f"/system.slice/docker-{ONE}.scope", Place("", "container", SHORT)),
        (f"/docker/{ONE}", Place("", "container", SHORT)),
        (f"/docker/{ONE}/docker/{OTHER}", Place("", "container", f"{SHORT}/{SHORT_OTHER}")),
        (
            f"/system.slice/docker-{ONE}.scope/system.slice/docker-{OTHER}.scope/init.scope",
            Place("init.scope", "container", f"{SHORT}/{SHORT_OTHER}"),
        ),
        (f"/machine.slice/libpod-{ONE}.scope/container", Place("", "container", SHORT)),
        (f"/machine.slice/libpod-{ONE}.scope/system.slice/a.service", Place("a.service", "container", SHORT)),
        (f"{USER}/user.slice/libpod-{ONE}.scope/container", Place("", "container", SHORT)),
        (f"/machine.slice/libpod-conmon-{ONE}.scope", Place(f"libpod-conmon-{ONE}.scope", "system")),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice/cri-containerd-{ONE}.scope",
            Place("", "container", SHORT),
        ),
        (f"/kubepods/burstable/podx/{ONE}", Place("", "container", SHORT)),
        (f"/kubepods.slice/crio-{ONE}.scope/container", Place("", "container", SHORT)),
        (f"/system.slice/containerd.service/kubepods-podx.slice:cri-containerd:{ONE}", Place("", "container", SHORT)),
        ("/lxc.payload.web/system.slice/puma.service", Place("puma.service", "container", "web")),
        ("/lxc/web/system.slice/puma.service", Place("puma.service", "container", "web")),
        ("/lxc.monitor.web", Place()),
        (
            "/machine.slice/systemd-nspawn@web.service/payload/system.slice/a.service",
            Place("a.service", "container", "web"),
        ),
        ("/machine.slice/systemd-nspawn@web.service/supervisor", Place("systemd-nspawn@web.service", "system")),
        ("/machine.slice/machine-web.scope/payload/init.scope", Place("init.scope", "container", "web")),
        (
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator",
            Place("machine-qemu\\x2d1\\x2dvm.scope", "system"),
        ),
    ],
)
@pytest.mark.parametrize("line", ["0::{}\n", "5:cpu:/other.service\n1:name=systemd:{}\n0::/\n"])
def test_place_of(line: str, path: str, expected: Place) -> None:
    assert cgroups.place_of(line.format(path)) == expected


@pytest.mark.parametrize("text", ["", "\n", "0:", "0::", "::", "5:cpu:/a.service\n", "x::/a.service\n"])
def test_what_says_nothing(text: str) -> None:
    assert cgroups.place_of(text) == Place()


def test_in_a_container_that_is_the_host() -> None:
    own = cgroups.containers(f"1:name=systemd:/docker/{ONE}/system.slice/ssh.service\n0::/\n")
    assert own == (SHORT,)
    beside = cgroups.place_of(f"1:name=systemd:/docker/{ONE}/system.slice/puma.service\n", own)
    assert beside == Place("puma.service", "system")
    assert cgroups.place_of(f"0::/docker/{ONE}\n", own) == Place()
    assert cgroups.place_of(f"0::/docker/{ONE}/docker/{OTHER}\n", own) == Place("", "container", SHORT_OTHER)
    assert cgroups.place_of(f"0::/docker/{OTHER}\n", own) == Place("", "container", SHORT_OTHER)


PARTS = st.sampled_from(
    ["", "lxc", f"docker-{ONE}.scope", "user@1.service", "a.service", "_b.scope", "x", "supervisor"]
)


@given(st.text() | st.lists(PARTS).map(lambda parts: f"0::/{'/'.join(parts)}\n"), st.lists(st.just(SHORT)))
def test_no_text_makes_it_fail(text: str, own: t.List[str]) -> None:
    place = cgroups.place_of(text, own)
    assert (place.scope == "container") == bool(place.container)
