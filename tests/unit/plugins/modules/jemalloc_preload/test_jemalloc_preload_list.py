# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc_preload and the list of the dynamic linker."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places

Call = t.Callable[..., t.Dict[str, t.Any]]
Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Any]]
OWN = "etc/systemd/system/{}.d/zz-preload-jemalloc.conf"


@pytest.mark.parametrize("before", [None, "", "/foreign.so\n", "/foreign.so"])
def test_the_list_of_the_dynamic_linker(
    scopes: Call, root: pathlib.Path, prefix: str, watched: t.Any, before: t.Optional[str]
) -> None:
    path, without = root / "etc/ld.so.preload", root / "etc/ld.so.preload.without-jemalloc"
    if before is not None:
        path.write_text(before)
    arguments = {"host": True, "via": "ld_so_preload", "services": ["puma"], "exclude": ["cron"]}
    predicted = scopes(_check=True, **arguments)
    assert watched == []
    found = scopes(**arguments)
    assert found == predicted
    assert found["files"][-1] == str(path)
    ours = f"{prefix}/current/lib/libjemalloc.so::"
    note = ":" if before is None else ""
    assert path.read_text() == f"{ours}{note}\n{before or ''}"
    assert watched == [(str(path), path.read_text())]
    assert without.read_text() == (before or "")
    bind = f"InaccessiblePaths=-{path}" if before is None else f"BindReadOnlyPaths=-{without}:{path}"
    assert (root / OWN.format("cron.service")).read_text().splitlines()[2:] == ["UnsetEnvironment=LD_PRELOAD", bind]
    assert not scopes(**arguments)["changed"]
    assert places.references(f"{prefix}")[-1] == str(path)
    assert not scopes()["changed"]
    gone = scopes(host=False, services=[], exclude=[])
    assert gone["files"][0] == str(path)
    assert (path.read_text() if path.exists() else None) == before
    assert not without.exists()


def test_a_watchdog_that_comes_too_late(scopes: Call, root: pathlib.Path, watched: t.Any) -> None:
    (root / "etc/ld.so.preload").write_text("/late.so\n")
    found = scopes(host=True, via="ld_so_preload")
    assert found["msg"] == "The watchdog was not ready within 30 s, so all files are as before."


def test_a_library_that_the_watchdog_refuses(
    scopes: Call, root: pathlib.Path, watched: t.Any, snapshot: Snapshot
) -> None:
    (root / "etc/ld.so.preload").write_text("/bad.so\n")
    scopes(services=["cron"])
    before = snapshot(root)
    found = scopes(host=True, via="ld_so_preload", services=["puma"])
    assert found["msg"] == (
        f"{root}/etc/ld.so.preload: new processes do not start with the library (a shell: exit status 1); all files "
        "are as before."
    )
    after = snapshot(root)
    assert {name: entry[:2] for name, entry in after.items()} == {name: entry[:2] for name, entry in before.items()}
