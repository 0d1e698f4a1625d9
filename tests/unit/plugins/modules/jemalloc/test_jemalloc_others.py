# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc while other runs work on the same host: it takes nothing away that these use."""

from __future__ import annotations

import contextlib
import os
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes
from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc as module

Call = t.Callable[..., t.Dict[str, t.Any]]


@pytest.fixture(autouse=True)
def _store(prefix: str, installed: t.Callable[..., None]) -> None:
    """A store with three installations, of which 9.9.9 is current."""
    for version in ("9.9.7", "9.9.8", "9.9.9"):
        installed(prefix, version)
        publish.switch(prefix, version, publish.Undo())


def preload(prefix: str, version: str) -> str:
    """Let a service preload an installation; return its drop-in."""
    path = pathlib.Path(places.drop_in_path("puma.service"))
    path.parent.mkdir(parents=True)
    path.write_text(f"# preload.jemalloc\n[Service]\nEnvironment=LD_PRELOAD={prefix}/{version}/lib/libjemalloc.so\n")
    return str(path)


@pytest.fixture
def other(prefix: str, monkeypatch: pytest.MonkeyPatch) -> t.Callable[[str], None]:
    """Let another run preload an installation just before this one gets the lock."""
    taken = changes.scopes_kept

    def come(version: str) -> None:
        @contextlib.contextmanager
        def late() -> t.Iterator[None]:
            preload(prefix, version)
            with taken():
                yield

        monkeypatch.setattr(changes, "scopes_kept", late)

    return come


def test_what_another_run_preloads_meanwhile_stays(call: Call, prefix: str, other: t.Callable[[str], None]) -> None:
    other("9.9.7")
    found = call(module, prefix=prefix, version="9.9.9", keep=0)
    assert (found["changed"], found["installations"]) == (True, ["9.9.7", "9.9.8", "9.9.9"])
    assert os.path.isdir(f"{prefix}/9.9.7")


def test_nothing_is_removed_that_another_run_preloads_meanwhile(
    call: Call, prefix: str, other: t.Callable[[str], None]
) -> None:
    other("current")
    found = call(module, prefix=prefix, state="absent")
    path = places.drop_in_path("puma.service")
    assert found["msg"].startswith(f"{prefix} cannot be removed while it is named in {path}; ")
    assert sorted(os.listdir(prefix)) == [".lock", "9.9.7", "9.9.8", "9.9.9", "current", "previous"]


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(("only_from", "leads_to"), [("9.9.9", "9.9.7"), ("9.9.8", "9.9.9")])
def test_current_is_switched_only_from_what_the_play_left(
    call: Call, prefix: str, monkeypatch: pytest.MonkeyPatch, check: bool, only_from: str, leads_to: str
) -> None:
    warnings: t.List[str] = []
    monkeypatch.setattr(host.Host, "warn", lambda _self, message: warnings.append(message))
    switched = leads_to == "9.9.7"
    found = call(module, _check=check, prefix=prefix, version="9.9.7", only_from=only_from, build="never")
    assert (found["changed"], found["current"]) == (switched, leads_to)
    assert os.readlink(f"{prefix}/current") == ("9.9.9" if check else leads_to)
    said = f"{prefix}/current leads to 9.9.9 since another run switched it; left as it is."
    assert warnings == ([] if switched else [said])


def test_scopes_are_measured_against_the_release_of_this_run(
    call: Call, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"service": "", "manager": "", "environment": "", "profile": "# preload.jemalloc\n"}
    scopes = {"prefix": prefix, "texts": texts}
    settled = module.settled_scopes

    def late(*arguments: t.Any) -> t.Any:
        publish.switch(prefix, "9.9.8", publish.Undo())
        return settled(*arguments)

    monkeypatch.setattr(module, "settled_scopes", late)
    assert call(module, prefix=prefix, version="9.9.9", scopes=scopes)["scopes"] is None
