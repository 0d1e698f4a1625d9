# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writers of the store that are killed at any moment."""

from __future__ import annotations

import os
import pathlib
import shutil
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store

OPTIONS = {"cxx": False, "prof": False, "lg_page": None}
Install = t.Callable[..., None]


def remove(prefix: str, version: t.Optional[str]) -> None:
    """Remove as the module does."""
    with publish.locked(prefix):
        publish.remove(prefix, store.plan_absent(store.read(prefix), version), publish.Undo())


def reinstall(prefix: str) -> None:
    """Replace 5.9.0, which is current, by another build of it."""
    with publish.locked(prefix):
        tree = f"{publish.stage(prefix)}/tree"
        shutil.copytree(f"{prefix}/5.9.0", tree, symlinks=True)
        pathlib.Path(tree, "lib", "libjemalloc.so.2").write_text("new")
        publish.complete(tree, prefix, {"library": "libjemalloc.so.2", "options": OPTIONS})
        publish.publish(prefix, tree, "5.9.0", publish.Undo())


def install_and_switch(prefix: str) -> None:
    """Install 5.10.0 from a copy of 5.9.0 and make it current."""
    with publish.locked(prefix):
        tree = f"{publish.stage(prefix)}/tree"
        shutil.copytree(f"{prefix}/5.9.0", tree, symlinks=True)
        publish.complete(tree, prefix, {"library": "libjemalloc.so.2", "options": OPTIONS})
        publish.publish(prefix, tree, "5.10.0", publish.Undo())
        publish.switch(prefix, "5.10.0", publish.Undo())


def remove_one(prefix: str) -> None:
    """Remove 5.1.0."""
    remove(prefix, "5.1.0")


def remove_all(prefix: str) -> None:
    """Remove everything."""
    remove(prefix, None)


STEPS = ("open", "mkdir", "symlink", "replace", "rename", "unlink", "rmdir", "chmod", "fchmod", "fsync")


def killed(function: t.Callable[[str], None], prefix: str, step: int) -> bool:
    """Run a function in a process that is killed before its given change to the file system; return whether it was."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    calls = iter(range(1, 9999))

    def counted(real: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        def call(*arguments: t.Any, **options: t.Any) -> t.Any:
            if next(calls) == step:
                os._exit(9)
            return real(*arguments, **options)

        return call

    try:
        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        exchange = files.exchange
        files.exchange = counted(exchange)
        function(prefix)
    except BaseException:
        os._exit(1)
    os._exit(0)


@pytest.mark.parametrize("function", [install_and_switch, reinstall, remove_one, remove_all])
def test_a_killed_writer_leaves_the_old_state_or_the_new_one(
    tmp_path: pathlib.Path, installed: Install, function: t.Callable[[str], None]
) -> None:
    template = str(tmp_path / "template")
    for version in ("5.1.0", "5.9.0"):
        installed(template, version)
        publish.switch(template, version, publish.Undo())
    prefix = str(tmp_path / "store")
    for step in range(1, 200):
        shutil.copytree(template, prefix, symlinks=True)
        before = store.read(prefix)
        if not killed(function, prefix, step):
            break
        found = store.read(prefix)
        assert set(found.installations) - set(before.installations) <= {"5.10.0"}
        assert not any(installation.damage for installation in found.installations.values())
        if function is not remove_all:
            assert found.current in found.installations
        assert not found.foreign
        if found.exists:  # then the next run can work with it, and clears what was left
            function(prefix)
        if function is remove_all:
            assert not os.path.exists(prefix)
        else:
            assert not [path for path in pathlib.Path(prefix).rglob("*") if files.TEMPORARY_SUFFIX in path.name]
            shutil.rmtree(prefix)
    else:
        pytest.fail("it never came through")
    assert step > 5
