# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard of a profile, the very script: it takes back what its own run made, and nothing else, however late."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile_session as session
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

PUMA = "puma.service"


@pytest.fixture(autouse=True)
def _lock(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "LOCK", str(tmp_path / "profile.lock"))


class Systemctl:
    """A systemctl that answers always the same; its calls."""

    def __init__(self, *answer: t.Any) -> None:
        self.answer = answer or (0, "")
        self.calls: t.List[str] = []

    def __call__(
        self, arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
    ) -> t.Any:
        """Answer a call."""
        self.calls.append(" ".join(arguments))
        return self.answer


def hold(end: str) -> t.Tuple[subprocess.Popen[str], t.List[str]]:
    """Let a run take the lock and come to such an end; return it, and how the lock names it."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, session.LOCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    named = holder.stdout.readline().split()
    if end == "killed":
        holder.kill()
    elif end in ("stopped", "reused"):
        holder.send_signal(signal.SIGSTOP)
    else:
        holder.communicate()
        text = {"well": "", "other": "1 2", "removed": " ".join(named)}[end]
        pathlib.Path(session.LOCK).write_text(text)
    return holder, named


@pytest.mark.parametrize("end", ["killed", "stopped", "well", "other", "removed", "reused"])
def test_the_guard(tmp_path: pathlib.Path, program: t.Callable[[str, str], pathlib.Path], end: str) -> None:
    # It takes back at once when the run was killed, and when that hangs it is killed first.
    log = program("systemctl", "")
    drop_in, dumps = tmp_path / "puma.service.d" / "profile.conf", [tmp_path / "private", tmp_path / "dumps"]
    drop_in.parent.mkdir()
    drop_in.write_text("x")
    dumps[0].mkdir()
    os.symlink("private", dumps[1])
    holder, named = hold(end)
    start = named[1]
    if end == "reused":
        named[1] = "1"
    places = [str(drop_in), str(drop_in.parent), PUMA, *map(str, dumps)]
    command = ["/bin/sh", "-c", session._TAKE_BACK, "sh", session.LOCK, "1", *places, *named]
    if end == "removed":  # while it waits for it
        command[2] = command[2].replace("if ! flock", 'rm "$1"; : > "$1"\nif ! flock')
    guard = subprocess.Popen(command)
    if end == "reused":
        with pytest.raises(subprocess.TimeoutExpired):
            guard.wait(2)
        holder.kill()
    assert guard.wait() == 0
    holder.kill()
    holder.communicate()
    taken_back = end in ("killed", "stopped")
    assert drop_in.parent.exists() != taken_back
    assert log.read_text() == (f"daemon-reload\nrestart -- {PUMA}\n" if taken_back else "")
    assert [path for path in dumps if os.path.lexists(path)] == ([] if taken_back else dumps)
    left = {"other": "1 2", "reused": " ".join([named[0], start])}
    assert pathlib.Path(session.LOCK).read_text() == left.get(end, "")


HOLDER = """
import contextlib, sys
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile_session as session
session.LOCK = sys.argv[1]
with session.locked(lambda *_arguments: (0, "")):
    print(*session._this_run(), flush=True)
    sys.stdin.read()
"""


def test_a_guard_that_holds_the_lock_for_too_long_is_ended() -> None:
    systemctl = Systemctl()
    descriptor = files.lock(session.LOCK)
    assert descriptor is not None
    os.write(descriptor, b"1 2")  # of a run that was killed

    def end(arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None) -> t.Any:
        if "stop" in arguments:
            os.close(descriptor)
        return systemctl(arguments, directory, data)

    with session.locked(end, timeout=0):
        assert pathlib.Path(session.LOCK).read_text() == " ".join(session._this_run())
    assert systemctl.calls == [f"systemctl stop -- {session._GUARD}", f"systemctl reset-failed -- {session._GUARD}"]


def test_a_guard_that_does_not_end(tmp_path: pathlib.Path) -> None:
    with pytest.raises(JemallocError) as caught:
        session.clear(Systemctl(1, "Connection timed out\n"), str(tmp_path))
    said = f"{session._GUARD} of an earlier run does not end: Connection timed out. Nothing was changed."
    assert str(caught.value) == said


def test_a_run_that_only_began_leaves_nothing(
    tmp_path: pathlib.Path, program: t.Callable[[str, str], pathlib.Path]
) -> None:
    log, drop_in = program("systemctl", ""), tmp_path / "puma.service.d" / "profile.conf"
    drop_in.parent.mkdir()
    (drop_in.parent / f".profile.conf{files.TEMPORARY_SUFFIX}").write_text("half")
    pathlib.Path(session.LOCK).write_text("1 2")  # of a run that was killed
    places = [str(drop_in), str(drop_in.parent), PUMA, str(tmp_path / "private"), str(tmp_path / "dumps")]
    command = ["/bin/sh", "-c", session._TAKE_BACK, "sh", session.LOCK, "1", *places, "1", "2"]
    assert subprocess.run(command, check=False).returncode == 0
    assert not drop_in.parent.exists()
    assert log.read_text() == ""
