# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc_metrics where the directory of the metrics belongs to another user."""

from __future__ import annotations

import os
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host
from tests.unit.plugins.modules.jemalloc_metrics.conftest import FILES, Call, Lab, files_of


@pytest.mark.parametrize("kind", ["pipe", "link", "directory"])
def test_what_the_user_of_the_exporter_puts_in_place_of_the_metrics(run: Call, lab: Lab, kind: str) -> None:
    run()
    secret = lab.root / "secret"
    secret.write_text("kept")

    def plant() -> None:
        lab.metrics.unlink()
        if kind == "pipe":
            os.mkfifo(str(lab.metrics))
        elif kind == "link":
            lab.metrics.symlink_to(secret)
        else:
            lab.metrics.mkdir()

    plant()
    assert run()["changed"] is False
    (lab.state / "failed").touch()
    done = run()
    if kind == "directory":
        assert "Is a directory; jemalloc.prom is as it was" in done["msg"]
    else:
        assert "jemalloc_collect_duration_seconds " in lab.metrics.read_text()
        plant()
    done = run(state="absent")
    assert (done["changed"], str(lab.metrics) in done["files"]) == (True, kind != "directory")
    assert [line for line in files_of(lab) if "jemalloc" in line] == []
    assert secret.read_text() == "kept"


def test_a_directory_that_another_user_leads_elsewhere(run: Call, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: t.List[str] = []
    monkeypatch.setattr(host.Host, "warn", lambda _self, message: warnings.append(message))
    run()
    elsewhere = lab.root / "elsewhere"
    lab.directory.rename(elsewhere)
    lab.directory.symlink_to(elsewhere)
    os.chmod(str(lab.directory.parent), 0o777)
    before = files_of(lab)
    refusal = f"{lab.directory}: textfile in it is a link, and a user other than root may have made it"
    assert run()["msg"].startswith(f"directory: {refusal}")
    assert files_of(lab) == before
    (elsewhere / ".jemalloc.prom.preload-jemalloc").write_text("left")
    done = run(state="absent")
    assert done["files"] == [f"{lab.root}{FILES[place]}" for place in (3, 2, 1, 0)]
    assert {words[: len(refusal)] for words in warnings} == {refusal}
    assert sorted(os.listdir(str(elsewhere))) == [".jemalloc.prom.preload-jemalloc", "jemalloc.prom"]
