# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is looked at before an installation changes anything, and what cannot be carried out."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _build as build
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _install as install
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.module_utils import _source as source
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

BUNDLE = source.Candidate("file", "/b", "b", "", "")


class Host:
    """Only has an archive."""

    def archive_roots(self) -> t.List[str]:
        """Return it."""
        return ["http://archive/"]


def check(check_mode: bool = False, method: str = "auto", **more: t.Any) -> t.Optional[t.Dict[str, t.Any]]:
    """Check a request for 5.3.0."""
    release = catalogue.find_release("5.3.0", None)
    wish = store.Wish("5.3.0", build.Options().as_dict(), method)
    request = install.Request("/p", release, wish, build.Options(), **more)
    return install.check(t.cast(t.Any, Host()), request, check_mode)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> t.List[str]:
    """The releases whose tools were looked for."""
    found: t.List[str] = []
    monkeypatch.setattr(install, "check_tools", lambda _host, request: found.append(request.release.version))
    return found


def test_nothing_is_missing_where_it_may_be_built(looked: t.List[str]) -> None:
    assert check() is None
    assert looked == []
    assert check(check_mode=True) is None
    assert looked == ["5.3.0"]


@pytest.mark.parametrize("more", [{"method": "package"}, {"bundle": BUNDLE}, {"bundle": BUNDLE, "build": False}])
def test_nothing_is_missing_where_nothing_is_built(looked: t.List[str], more: t.Dict[str, t.Any]) -> None:
    assert check(check_mode=True, **more) is None
    assert looked == []


def test_what_may_not_be_built_is_missing(looked: t.List[str]) -> None:
    found = check(build=False)
    assert found is not None
    assert (found["version"], found["checksum"]) == ("5.3.0", None)
    assert found["sources"][0] == catalogue.RELEASES["5.3.0"].sha256
    assert looked == []


def test_a_bundle_that_is_not_named() -> None:
    with pytest.raises(JemallocError, match=r"^bundle: method: bundle needs a bundle; name its file or URL, or call "):
        check(method="bundle")


def test_where_nothing_fits_it_is_said_what_would(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "stage", lambda _prefix: str(tmp_path))
    wish = store.Wish("5.3.0", build.Options().as_dict())
    request = install.Request("/p", catalogue.find_release("5.3.0", None), wish, build.Options(), build=False)
    with pytest.raises(install.NothingFitsError, match=r"^nothing fits$") as caught:
        install.carry_out(t.cast(t.Any, Host()), request, store.Plan({}, "5.3.0"), publish.Undo())
    assert caught.value.missing == install.missing(request)


def test_a_log_that_nobody_can_write(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "LOGS", (f"{tmp_path}/missing", f"{tmp_path}/none"))
    assert install.keep_log("5.3.0", "x") == f"{tmp_path}/none/preload-jemalloc-5.3.0-build.log"
    monkeypatch.setattr(install, "LOGS", (f"{tmp_path}/missing", str(tmp_path)))
    path = pathlib.Path(install.keep_log("5.3.0", "x"))
    assert (path.parent, path.read_text(), path.stat().st_mode & 0o777) == (tmp_path, "x", 0o600)


@pytest.mark.parametrize("commit", ["c0ffee", None])
def test_what_the_controller_brought_is_tried_first(commit: t.Optional[str]) -> None:
    release, wish = catalogue.find_release("5.3.0", None), store.Wish("5.3.0", build.Options().as_dict())
    pushed = {"kind": "source", "path": "/tmp/x", "sha256": "a", "commit": commit, "origin": "the cache"}
    params = {"bundle": "/b", "method": "source", "options": {}, "origins": ["/o"], "build": "now", "pushed": pushed}
    found = install.request({**params, "build_packages": False}, release, wish, "/p")
    brought = source.Candidate("file", "/tmp/x", "a", commit or "", "the cache")
    assert found == install.Request("/p", release, wish, build.Options(), ["/o"], None, brought, True, False)
