# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of others in shared files stay, and stand in no result of the module jemalloc_preload."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from tests.unit.plugins.modules.jemalloc_preload.test_jemalloc_preload import contents

Call = t.Callable[..., t.Dict[str, t.Any]]
Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Any]]

SECRET = "http_proxy=http://svc:S3cretPw@proxy:3128"


@pytest.mark.parametrize("via", ["environment", "ld_so_preload"])
@pytest.mark.parametrize("end", ["\n", ""])
def test_lines_of_others_stand_in_no_result(
    scopes: Call, root: pathlib.Path, snapshot: Snapshot, watched: t.Any, via: str, end: str
) -> None:
    (root / "etc/environment").write_text(f"{SECRET}{end}")
    (root / "etc/ld.so.preload").write_text(f"/srv/theirs.so{end}")
    for wanted in ({"host": True, "via": via, "services": ["puma"], "exclude": ["cron"]}, {"state": "absent"}):
        before = snapshot(root)
        predicted = scopes(_check=True, **wanted)
        done = scopes(**wanted)
        after = snapshot(root)
        restored = scopes(state="restored", restore=done["before"], written=done["written"])
        assert restored["files"]
        assert contents(snapshot(root), "") == contents(before, "")
        scopes(**wanted)
        assert contents(snapshot(root), "") == contents(after, "")
        for result in (predicted, done, restored):
            assert "S3cretPw" not in json.dumps(result)
            assert "theirs" not in json.dumps({key: value for key, value in result.items() if key != "files"})


def test_a_diff_in_diff_mode_only(scopes: Call) -> None:
    assert "diff" not in scopes(_check=True, _diff=False, services=["puma"])
    assert "diff" in scopes(services=["puma"])
