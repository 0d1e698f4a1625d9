# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What another run wrote since is never rolled back: it is left alone, and named."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils import _undo as undo
from tests.unit.plugins.module_utils.restarts.conftest import PUMA, Fake, drop_in


def written(service: restarts.Service) -> restarts.Service:
    """Return a service whose drop-in is as this run left it."""
    path = service.drop_in
    return dataclasses.replace(service, written=undo.fingerprint(path, undo.text_at(path)))


def point(prefix: str, release: str) -> None:
    """Let current lead to a release."""
    link = pathlib.Path(prefix) / "current"
    link.unlink(missing_ok=True)
    link.symlink_to(release)


def test_fingerprints(root: pathlib.Path) -> None:
    listed, login = places.list_path(), places.login_path()
    ours = "/opt/jemalloc/current/lib/libjemalloc.so::\n"
    assert undo.fingerprint("/x", None) == undo.ABSENT
    assert undo.fingerprint("/x", "a") == hashlib.sha256(b"a").hexdigest()
    assert undo.fingerprint(listed, "/theirs.so\n") == undo.fingerprint(login, "A=1\n") == undo.ABSENT
    assert undo.fingerprint(listed, f"{ours}/theirs.so\n") == undo.fingerprint(listed, f"/other.so\n{ours}")
    part = "# BEGIN preload.jemalloc\nLD_PRELOAD=/x\n{}# END preload.jemalloc\n"
    assert undo.fingerprint(login, "A=1\n" + part.format("")) == undo.fingerprint(login, part.format("B=2\n"))
    assert undo.managed(login, f"A=1\n{part.format('B=2' + chr(10))}") == part.format("")
    without = places.without_path()
    assert (undo.managed(without, "/theirs.so\n"), undo.managed(without, None)) == ("", None)
    assert undo.fingerprint(login, part.format("")) != undo.fingerprint(login, part.format("").replace("/x", "/y"))


def test_files_that_changed(root: pathlib.Path) -> None:
    script, link = pathlib.Path(places.command_path("tool")), pathlib.Path(places.command_path("jemalloc.sh"))
    script.parent.mkdir(parents=True)
    script.write_text("a")
    link.symlink_to("b")
    expected = {str(path): undo.fingerprint(str(path), text) for path, text in ((script, "a"), (link, "b"))}
    expected["/nowhere"] = undo.ABSENT
    assert undo.changed_files(expected) == []
    link.unlink()
    link.symlink_to("c")
    assert undo.changed_files(expected) == [str(link)]
    script.unlink()
    assert undo.changed_files(expected) == [str(script), str(link)]


def test_what_stands(root: pathlib.Path, prefix: str) -> None:
    path = drop_in(prefix)
    point(prefix, "5.3.1")
    puma = written(PUMA)
    assert undo.superseded(puma, prefix) == ""
    for version in (None, "any"):
        assert undo.superseded(dataclasses.replace(puma, version=version), prefix) == ""
    point(prefix, "5.1.0")
    assert undo.superseded(puma, prefix) == f"{prefix}/current was switched to 5.1.0 since by another run"
    os.unlink(f"{prefix}/current")
    assert undo.superseded(puma, prefix) == f"{prefix}/current was switched to nothing since by another run"
    path.unlink()
    assert undo.superseded(puma, prefix) == f"{path} was changed since by another run, or by hand"
    assert undo.superseded(PUMA, prefix) == ""


@pytest.mark.parametrize("now", [None, "5.1.0"])
def test_the_drop_in_of_another_run_is_left_alone(
    use: t.Callable[..., Fake], prefix: str, now: t.Optional[str]
) -> None:
    fake, path = use("5.3.1", "5.1.0"), drop_in(prefix)
    point(prefix, "5.3.1")
    fake.restarted, puma = (1, "Job failed.\n"), written(PUMA)
    text = path.read_text().replace("current", now) if now else None
    path.write_text(text) if text else path.unlink()
    reason, end = "its process 100 does not map jemalloc 5.3.1", ", and restarted with that"
    if now:
        reason, end = "it did not start: Job failed.", "; it did not start: Job failed."
    _proved, failures = restarts.restart_and_prove(fake, [puma], prefix, 1, fake.warnings.append)
    assert [str(failure) for failure in failures] == [
        f"puma.service: {reason}; {path} was changed since by another run, or by hand: left as it is{end}"
    ]
    assert (path.read_text() if path.exists() else None) == text


def test_the_release_of_another_run_is_left_alone(use: t.Callable[..., Fake], prefix: str) -> None:
    fake, path = use(), drop_in(prefix)
    point(prefix, "5.1.0")
    text = path.read_text()
    back = restarts.go_back(fake, written(PUMA), prefix, "5.3.0", 1)
    assert back == (
        f"{prefix}/current was switched to 5.1.0 since by another run: left as it is, and restarted with that"
    )
    assert path.read_text() == text


def test_what_this_run_wrote_is_rolled_back(use: t.Callable[..., Fake], prefix: str) -> None:
    fake, path = use(), drop_in(prefix)
    point(prefix, "5.3.1")
    assert restarts.go_back(fake, written(PUMA), prefix, None, 1) == "it runs again without the library as before"
    assert not path.exists()


def test_another_run_that_comes_after_this_one_rolled_back(
    use: t.Callable[..., Fake], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, path = use(), drop_in(prefix)
    point(prefix, "5.3.1")
    prove = restarts.prove

    def come(*arguments: t.Any) -> t.Any:
        drop_in(prefix)
        return prove(*arguments)

    monkeypatch.setattr(restarts, "prove", come)
    back = restarts.go_back(fake, written(PUMA), prefix, None, 1)
    assert back == (
        f"{path} was changed in the meantime by another run, or by hand: left as it is, and restarted with that"
    )
    assert path.exists()


def test_without_the_lock_nothing_is_rolled_back(
    use: t.Callable[..., Fake], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, path = use(), drop_in(prefix)
    with changes.locked(), monkeypatch.context() as patch:
        taken = changes.locked
        patch.setattr(changes, "locked", lambda: taken(timeout=0))
        back = restarts.go_back(fake, PUMA, prefix, None, 1)
    assert back == ("it was not rolled back: Another run has been changing who preloads for 0 s; wait for it to end")
    assert path.exists()
    assert fake.calls == []


@pytest.mark.parametrize(("changing", "times"), [(0, 1), (1, 2), (9, 3)])
def test_a_restart_follows_what_other_runs_write(root: pathlib.Path, prefix: str, changing: int, times: int) -> None:
    path, done = drop_in(prefix), []

    def restart() -> str:
        done.append(path.read_text())
        if len(done) <= changing:
            path.write_text(f"another {len(done)}")
        return ""

    assert undo.follow(restart, PUMA) == "left as it is, and restarted with that"
    assert len(done) == times
