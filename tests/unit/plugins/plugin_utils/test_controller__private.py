# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories for their owner alone: how they are made, and which ones are refused."""

from __future__ import annotations

import os
import pathlib
import pwd

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _private as private


def test_make(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "a" / "b"
    private.make(str(directory))
    assert [path.stat().st_mode & 0o777 for path in (directory, directory.parent)] == [0o700, 0o700]
    directory.chmod(0o755)
    private.make(str(directory))
    assert directory.stat().st_mode & 0o777 == 0o755
    (tmp_path / "file").write_text("")
    private.make(str(tmp_path / "file"))
    with pytest.raises(NotADirectoryError):
        private.make(str(tmp_path / "file" / "x"))


@pytest.mark.parametrize(("mode", "fine"), [(0o700, True), (0o755, True), (0o775, False), (0o757, False)])
def test_who_can_write(tmp_path: pathlib.Path, mode: int, fine: bool) -> None:
    directory = tmp_path / "it's"
    directory.mkdir()
    directory.chmod(mode)
    if fine:
        private.check(str(directory), "cache")
        return
    with pytest.raises(JemallocError) as caught:
        private.check(str(directory), "cache")
    assert str(caught.value) == (
        f"cache: {directory} can be written by its group or by others, who could change what runs as root on your "
        f"hosts; if you trust its content, run chmod -R go-w '{tmp_path}/it'\"'\"'s', or name another directory."
    )


@pytest.mark.parametrize(("user", "name"), [(1, pwd.getpwuid(1).pw_name), (54321, "54321")])
def test_who_owns_it(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, user: int, name: str) -> None:
    own = os.stat(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)

    def status(_path: str) -> os.stat_result:
        return os.stat_result((0o040755, *own[1:4], user, *own[5:10]))

    monkeypatch.setattr(os, "stat", status)
    with pytest.raises(JemallocError) as caught:
        private.check("/srv/cache", "cache")
    assert str(caught.value) == (
        f"cache: /srv/cache belongs to the user {name}, who could change what runs as root on your hosts; if you trust "
        "its content, run chown -R 4242 /srv/cache, or name another directory."
    )
    for allowed in (0, 4242):
        user = allowed
        private.check("/srv/cache", "cache")
