# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of the module: who builds, who gets what was built, and what is looked up and downloaded."""

from __future__ import annotations

import hashlib
import shutil
import sys
import typing as t

import pytest
from ansible.utils.display import Display

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _cache as caching
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _download as downloading
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _mirror as mirror
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _rendering as rendering
from tests.unit import packed
from tests.unit.plugins.action.plays import BUNDLE, MISSING, Play
from tests.unit.plugins.action.releases import ANSWERS, D, Handler


def test_a_host_that_lacks_nothing_is_asked_once(play: Play) -> None:
    play.installed.add("web1")
    assert play.run("web1")["missing"] is None
    assert play.calls == [("web1", "jemalloc", {"build": "never"})]
    assert play.said == []
    assert not (play.directory / "cache").exists()


def test_the_first_one_builds_and_the_next_one_gets_its_bundle(play: Play) -> None:
    assert play.run("web1")["builder"] == "web1"
    assert play.run("web2")["changed"]
    assert play.builds() == ["web1"]
    pushed = play.calls[-1][2]["pushed"]
    assert pushed == {
        "kind": "bundle",
        "path": f"/tmp/x/{pushed['sha256']}",
        "sha256": hashlib.sha256(BUNDLE).hexdigest(),
        "origin": "the controller's cache, built on web1",
        "builder": "web1",
    }
    assert play.said[0] == "web1: building jemalloc 5.3.1 for x86_64-glibc (1 of 1)"
    assert play.said[-1] == "web2: installing jemalloc 5.3.1, built on web1"


def test_check_mode_says_what_a_run_does(play: Play) -> None:
    assert play.run("web1", True)["changed"]
    assert [arguments["build"] for _name, _leaf, arguments in play.calls] == ["never", "now"]
    play.run("web1")
    predicted = play.run("web2", True)
    assert (predicted["changed"], predicted["missing"], predicted["built"]) == (True, None, "5.3.1")
    assert play.run("web2", True, missing=MISSING)["changed"]
    assert play.builds() == ["web1", "web1"]


def test_a_bundle_that_another_host_has_just_taken_from_the_mirror(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = caching.Cache.lock

    def wait(cache: caching.Cache, name: str, *more: t.Any) -> t.Any:
        if name.startswith("mirror-"):
            cache.add(BUNDLE, "http://mirror.example", origin=caching.MIRROR)
        return lock(cache, name, *more)

    monkeypatch.setattr(caching.Cache, "lock", wait)  # the mirror itself is not there
    assert play.run("web1", cache_mirror="http://mirror.example", cache_mirror_checksum=f"sha256:{D}")["changed"]
    assert play.said == ["web1: installing jemalloc 5.3.1, from the mirror http://mirror.example"]


def test_a_bundle_of_a_mirror(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(address: str, _checksum: str, _need: t.Any, cache: caching.Cache, _progress: t.Any) -> None:
        assert address == "http://mirror.example"
        cache.add(BUNDLE, "http://mirror.example", origin=caching.MIRROR)

    monkeypatch.setattr(mirror, "find", find)
    assert play.run("web1", cache_mirror="http://mirror.example", cache_mirror_checksum=f"sha256:{D}")["changed"]
    assert play.builds() == []
    assert play.said == ["web1: installing jemalloc 5.3.1, from the mirror http://mirror.example"]


def test_what_was_installed_meanwhile_is_kept_for_the_others_too(play: Play) -> None:
    play.answers["web1"] = {"build": {"changed": False, "built": None}}
    assert not play.run("web1")["changed"]
    assert play.said == ["web1: building jemalloc 5.3.1 for x86_64-glibc (1 of 1)"]
    assert play.run("web2")["changed"]
    assert play.builds() == ["web1"]


def test_another_build_from_before_is_no_failure_and_for_nobody_else(play: Play) -> None:
    play.answers["web1"] = {"build": {"built": None}, "bundle": packed.bundle(source={"sha256": "7" * 64})}
    assert not play.run("web1").get("failed")
    assert play.run("web2")["changed"]
    assert play.builds() == ["web1", "web2"]


def test_method_bundle_never_builds(play: Play) -> None:
    result = play.run("web1", method="bundle")
    assert result["failed"]
    assert result["msg"] == (
        f"method: no bundle in the controller's cache {play.directory}/cache is jemalloc 5.3.1 for x86_64-glibc that "
        "runs with glibc 2.36; it has none of that release. Build one on a host with as old a C library that is named "
        "as jemalloc_build_host or stands before this one in the inventory (preload.jemalloc.bundle), or use method: "
        "auto."
    )
    play.run("web2")
    assert (
        "it has glibc 2.34 (built on web2, which this host does not trust)." in play.run("web1", method="bundle")["msg"]
    )
    old = {**MISSING, "libc_version": "2.31"}
    assert "it has glibc 2.34 (built on web2)." in play.run("web3", method="bundle", missing=old)["msg"]


def test_method_source_builds_everywhere(play: Play) -> None:
    for name in ("web1", "web2"):
        assert play.run(name, method="source")["changed"]
    assert play.builds() == ["web1", "web2"]


def test_what_is_built_but_cannot_be_packed(play: Play) -> None:
    play.answers["packed"] = {"failed": True, "msg": "The disk is full."}
    assert play.run("web1")["msg"] == "Built, but not packed: The disk is full."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cache_size": "much"}, "cache_size: 'much' is not a number of MiB."),
        ({"cache_mirror": "ftp://x"}, "cache_mirror: 'ftp://x' is neither an http:// nor an https:// address."),
        ({"build_host": "web2", "build_shared": False}, "build_shared: false keeps each build to its host, so no host"),
        ({"cache": "/proc/x"}, "cache: /proc/x: No such file or directory; name a path that the controller can"),
    ],
)
def test_arguments_that_do_not_do(play: Play, arguments: t.Dict[str, t.Any], message: str) -> None:
    result = play.run("web1", **arguments)
    assert result["failed"]
    assert result["msg"].startswith(message)


def source_of(play: Play, origin: str) -> t.Any:
    """Return what a build was given as its source."""
    digest = hashlib.sha256(b"source").hexdigest()
    play.needs["web1"] = {"checksum": f"sha256:{digest}", "sources": [digest]}
    play.answers["web1"] = {"bundle": packed.bundle(source={"sha256": digest})}
    play.run("web1", origins=[origin], checksum=f"sha256:{digest}")
    return next(arguments.get("pushed") for _name, _leaf, arguments in play.calls if arguments.get("build") == "now")


def test_the_source_is_brought(play: Play, server: str) -> None:
    digest = hashlib.sha256(b"source").hexdigest()
    ANSWERS["source.tar.bz2"] = b"source"
    Handler.asked.clear()
    pushed = source_of(play, f"{server}/source.tar.bz2")
    assert pushed == {
        "kind": "source",
        "path": f"/tmp/x/{digest}",
        "sha256": digest,
        "commit": "",
        "origin": f"{server}/source.tar.bz2",
    }
    play.calls.clear()
    play.installed.clear()
    shutil.rmtree(str(play.directory / "cache" / "bundles"))
    assert source_of(play, f"{server}/source.tar.bz2") == {**pushed, "origin": "the controller's cache"}
    assert Handler.asked == ["source.tar.bz2"]


def test_a_source_that_only_the_host_has(play: Play) -> None:
    assert source_of(play, "/root/source.tar.bz2") is None
    assert source_of(play, "http://127.0.0.1:1/source.tar.bz2") is None


def test_a_controller_without_requests(play: Play, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warned: t.List[str] = []
    monkeypatch.setattr(Display, "warning", lambda _self, text, **_more: warned.append(text))
    monkeypatch.setitem(sys.modules, "requests", None)
    assert source_of(play, f"{server}/source.tar.bz2") is None
    assert warned == [
        "Each host looks for the source itself: the controller lacks the Python package requests "
        "(python3 -m pip install requests, for the Python of Ansible)."
    ]


def test_the_wish_for_the_newest_release(play: Play, server: str) -> None:
    play.installed.add("web1")
    play.run("web1", latest=True, latest_url=f"{server}/new")
    assert play.calls[0][2]["version"] == "5.9.0"
    result = play.run("web1", version="5.1.0", latest=True)
    assert result["msg"] == "latest: it excludes version and checksum; leave out the one or the other."
    missing = {**MISSING, "version": "5.9.0", "checksum": f"sha256:{D}", "sources": [D]}
    wanted: t.Dict[str, t.Any] = {"latest": True, "latest_url": f"{server}/new", "build": "chosen", "missing": missing}
    assert play.run("web2", **wanted)["version"] == "5.9.0"


def test_who_preloads_is_asked_with_the_texts_of_the_templates(play: Play) -> None:
    play.installed.add("web1")
    play.run("web1", scopes={"host": True})
    assert play.calls[0][2]["scopes"] == {"host": True, "texts": rendering.render("/opt/jemalloc")}
    play.run("web1", scopes="host=true")  # no mapping; what it is, is for the module to say
    assert play.calls[1][2]["scopes"] == "host=true"


def test_a_full_disk_of_the_controller(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: t.Any) -> t.NoReturn:
        raise OSError(28, "No space left on device", "/tmp/x")

    monkeypatch.setattr(downloading, "download", full)
    result = play.run("web1")
    assert (result["failed"], play.builds()) == (True, [])
    assert result["msg"] == "On the controller: /tmp/x: No space left on device; make room there."
