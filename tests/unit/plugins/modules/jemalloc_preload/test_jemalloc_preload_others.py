# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc_preload while other runs work on the same host: it leaves to them what they wrote."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _activate as activate
from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host

Call = t.Callable[..., t.Dict[str, t.Any]]
Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Any]]

PUMA = "etc/systemd/system/puma.service.d/zz-preload-jemalloc.conf"


def running(root: pathlib.Path, path: str) -> None:
    """Let puma run with a library."""
    process = root / "proc" / "100"
    process.mkdir(parents=True, exist_ok=True)
    (process / "cgroup").write_text("0::/system.slice/puma.service\n")
    (process / "maps").write_text(f"7f00-7f01 r-xp 0 08:01 12   {path}\n")


def test_a_release_that_another_run_made_current_is_not_preloaded(scopes: Call, root: pathlib.Path) -> None:
    found = scopes(services=["puma"], version="9.9.8")
    assert (found["failed"], found["files"]) == (True, [])
    assert found["msg"].endswith(
        "/current leads to 9.9.9, not to 9.9.8: another run switched it since. Nothing was changed. Run the play again "
        "when the other one ended."
    )
    assert not (root / PUMA).exists()
    assert scopes(services=["puma"], version="9.9.9")["changed"]


def test_a_service_that_another_run_restarts_meanwhile_is_restarted(
    scopes: Call, root: pathlib.Path, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(root, "/lib/libc.so.6")
    carry_out = activate.carry_out

    def restart(*arguments: t.Any) -> None:  # by the files from before
        carry_out(*arguments)
        running(root, f"{prefix}/9.9.9/lib/libjemalloc.so.2")

    scopes(services=["puma"])
    monkeypatch.setattr(activate, "carry_out", restart)
    found = scopes(state="absent")
    assert [each["reason"] for each in found["restarts"]] == ["1 of its 1 processes still map jemalloc"]
    assert found["restarts"][0]["written"] == found["written"][str(root / PUMA)] == "absent"


def test_what_another_run_changed_since_is_not_restored(
    scopes: Call, root: pathlib.Path, prefix: str, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: t.List[str] = []
    monkeypatch.setattr(host.Host, "warn", lambda _self, message: warnings.append(message))
    before = [name for name, entry in snapshot(root).items() if entry[1] is not None]
    done = scopes(services=["puma", "cron"])
    scopes(services=["puma", {"name": "cron", "version": "9.9.8"}])
    cron = str(root / PUMA).replace("puma", "cron")
    arguments = {"state": "restored", "restore": done["before"], "written": done["written"]}
    predicted = scopes(_check=True, **arguments)
    found = scopes(**arguments)
    assert found == predicted
    assert found["left"] == [cron]
    assert cron not in found["files"]
    assert warnings == [f"{cron}: changed since by another run, or by hand; left as it is."] * 2
    assert "9.9.8" in pathlib.Path(cron).read_text()
    pathlib.Path(cron).unlink()
    pathlib.Path(cron).parent.rmdir()
    assert [name for name, entry in snapshot(root).items() if entry[1] is not None] == before
    assert scopes(**arguments)["left"] == []
