# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A watchdog that is stopped: it ends with its module, and when it wakes late it does nothing."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import time
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes
from ansible_collections.preload.jemalloc.plugins.module_utils import _watchdog as watchdog
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    """The file that is watched over."""
    (tmp_path / "list").write_text("/foreign.so\n")
    return tmp_path / "list"


@pytest.fixture(autouse=True)
def lock(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[changes.Lock]:
    """The lock of the run, whose only trial always goes well."""
    monkeypatch.setattr(watchdog, "trials", lambda _library, _systemd: [watchdog.Trial("a program", ("/bin/true",))])
    with changes.locked() as lock:
        yield lock


def activate(path: pathlib.Path, content: str, lock: changes.Lock) -> str:
    """Let the watchdog give a file this content."""
    change = changes.Change(str(path), path.read_text() if path.exists() else None, content)
    return watchdog.activate(change, "/lib/libx.so", True, lock)


def state(pid: int) -> str:
    """Return the state of a process, nothing when it is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def stop_in(monkeypatch: pytest.MonkeyPatch, name: str, note: pathlib.Path) -> None:
    """Let the watchdog stop itself before a function, and leave its number."""
    module, real = os.getpid(), getattr(watchdog, name)

    def stop(*arguments: t.Any) -> t.Any:
        if os.getpid() != module:
            note.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        return real(*arguments)

    monkeypatch.setattr(watchdog, name, stop)


def is_stopped(note: pathlib.Path) -> bool:
    """Whether the watchdog has left its number and stopped."""
    return note.exists() and bool(note.read_text()) and state(int(note.read_text())) == "T"


@pytest.mark.parametrize("before", [None, "/foreign.so\n"])
@pytest.mark.parametrize("at", ["watch", "attempt", "_report"])
def test_a_watchdog_that_is_stopped_ends_with_the_module(
    path: pathlib.Path,
    lock: changes.Lock,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    before: t.Optional[str],
) -> None:
    if before is None:
        path.unlink()
    note, listen = tmp_path / "pid", watchdog._listen
    stop_in(monkeypatch, at, note)

    def listen_then(reader: int) -> t.Tuple[bool, str]:
        while not is_stopped(note):
            time.sleep(0.01)
        return listen(reader)

    monkeypatch.setattr(watchdog, "_listen", listen_then)
    monkeypatch.setattr(watchdog, "_PATIENCE", 0.2)
    said = activate(path, "good", lock)
    assert said == "the process that watched over it was killed, as it did not answer for 0.2 s"
    assert state(int(note.read_text())) == ""
    assert (path.read_text() if path.exists() else None) == before


def test_a_watchdog_that_wakes_late_does_nothing(
    path: pathlib.Path, lock: changes.Lock, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # here it is the module that was stopped as well, so that nobody ended the watchdog
    note = tmp_path / "pid"
    stop_in(monkeypatch, "watch", note)
    monkeypatch.setattr(watchdog, "_START_LIMIT", 5.0)
    module = os.fork()
    if module == 0:
        try:
            (tmp_path / "said").write_text(activate(path, "good", lock))
        finally:
            os._exit(0)
    while not is_stopped(note):
        time.sleep(0.01)
    os.kill(module, signal.SIGSTOP)
    time.sleep(5.1)  # the clock is what it is about
    os.kill(int(note.read_text()), signal.SIGCONT)
    os.kill(module, signal.SIGCONT)
    os.waitpid(module, 0)
    assert (tmp_path / "said").read_text() == "The watchdog was not ready within 5 s, so all files are as before."
    assert path.read_text() == "/foreign.so\n"


def test_what_somebody_wrote_over_it_stays(
    path: pathlib.Path, lock: changes.Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, attempt = os.getpid(), watchdog.attempt

    def write(*arguments: t.Any) -> t.Any:
        if os.getpid() != module:
            path.write_text("/another.so\n")
            os._exit(1)
        return attempt(*arguments)

    monkeypatch.setattr(watchdog, "attempt", write)
    assert activate(path, "good", lock) == "the process that watched over it was killed"
    assert path.read_text() == "/another.so\n"


def test_a_watchdog_of_a_module_that_could_not_tell_who_it_is(
    path: pathlib.Path, lock: changes.Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: t.Any) -> t.NoReturn:
        raise OSError(28, "No space left on device", changes.LOCK)

    monkeypatch.setattr(changes.Lock, "name_watchdog", fail)
    with pytest.raises(OSError, match="No space left"):
        activate(path, "good", lock)
    assert path.read_text() == "/foreign.so\n"


def test_a_watchdog_that_does_not_end(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen(["sleep", "600"])
    monkeypatch.setattr(watchdog, "_END_LIMIT", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr(watchdog, "_kill", lambda _pids: None)
        with pytest.raises(JemallocError) as caught:
            watchdog._end_child(child.pid, str(path), [])
    said = f"{path}: process {child.pid}, which replaces it, does not end; look at it and its disk."
    assert str(caught.value) == said
    watchdog._end_child(child.pid, str(path), [])
    assert state(child.pid) == ""
