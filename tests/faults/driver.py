# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a container that may be harmed: calls modules there, cuts them off, and says what the container is like then.

Each line of its input is a call, [name, arguments] as JSON, and each line of its output the answer. It stays alive
whatever a library does to the processes that start after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import traceback
import typing as t

from ansible.module_utils.testing import patch_module_args

from ansible_collections.preload.jemalloc.plugins.module_utils import _preflight as preflight
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_preload, jemalloc_service

MODULES = {"jemalloc_preload": jemalloc_preload, "jemalloc_service": jemalloc_service}

#: Where a run may change something, and where it must not.
TOPS = ("/etc", "/opt", "/root", "/run/systemd/system", "/srv", "/usr/local", "/var/lib/systemd")

#: What sys.addaudithook reports of changes to the file system, with the positions of the paths that change.
CHANGES = {"open": 0, "os.mkdir": 0, "os.rename": 1, "os.symlink": 1, "os.link": 1, "os.remove": 0, "os.rmdir": 0}

Picture = t.Dict[str, t.Tuple[int, int, int, str]]


def picture() -> Picture:
    """Return all that stands in the places that count: type and mode, owner, group, content or target."""
    found = {}
    for top in TOPS:
        for directory, subdirectories, names in os.walk(top):
            for path in [os.path.join(directory, name) for name in ["", *subdirectories, *names]]:
                status = os.lstat(path)
                content = ""
                if stat.S_ISLNK(status.st_mode):
                    content = os.readlink(path)
                elif stat.S_ISREG(status.st_mode):
                    with open(path, "rb") as stream:
                        content = stream.read().decode("latin-1")
                found[path.rstrip("/")] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


def copies() -> list[int]:
    """Return the processes that are copies of this one: modules that run, and watchdogs."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and int(name) != os.getpid() and _command(name) == _command("self"):
                found.append(int(name))
    return found


def _command(pid: str) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as stream:
        return stream.read()


def _session(pid: int) -> list[int]:
    """Return the processes of a session."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.getsid(int(name)) == pid:
                found.append(int(name))
    return found


class Driver:
    """What can be asked for."""

    def __init__(self) -> None:
        self._kept: dict[str, Picture] = {}

    def install(self, prefix: str, version: str, library: str, arrange: str = "") -> None:
        """Put a library into a store as an installation, and make it current.

        arrange is what a shell does in its directory lib before the receipt is written.
        """
        with publish.locked(prefix) as undo:
            tree = os.path.join(publish.stage(prefix), "tree")
            os.makedirs(f"{tree}/lib")
            with open(library, "rb") as source, open(f"{tree}/lib/libjemalloc.so.2", "wb") as target:
                target.write(source.read())
            subprocess.run(["sh", "-euc", arrange], cwd=f"{tree}/lib", check=True)
            receipt = {"library": "libjemalloc.so.2", "options": {"cxx": False, "prof": False, "lg_page": None}}
            publish.complete(tree, prefix, {**receipt, "release": version, "source": {"sha256": "0" * 64}})
            publish.publish(prefix, tree, version, undo)
            publish.switch(prefix, version, undo)

    def switch(self, prefix: str, version: str) -> None:
        """Make an installation current."""
        with publish.locked(prefix) as undo:
            publish.switch(prefix, version, undo)

    def shell(self, script: str) -> str:
        """Run a script and return what it printed."""
        done = subprocess.run(["sh", "-euc", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        output = done.stdout.decode("utf-8", "replace")
        if done.returncode:
            raise RuntimeError(f"{script}: exit status {done.returncode}: {output}")
        return output

    def write(self, path: str, text: str) -> None:
        """Write a file, with the ends of lines that the text has."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(text.encode("utf-8"))

    def keep(self, name: str) -> None:
        """Remember what the container is like at this moment."""
        self._kept[name] = picture()

    def differences(self, name: str) -> dict[str, t.Any]:
        """Return what is not as it was then, each with what it was and what it is."""
        before, now = self._kept[name], picture()
        return {
            path: [before.get(path), now.get(path)]
            for path in sorted({*before, *now})
            if before.get(path) != now.get(path)
        }

    def inconsistent(self, before: str, after: str) -> dict[str, t.Any]:
        """Return what is neither as it was before nor as it is to be; but for files that are being prepared."""
        old, new = self._kept[before], self._kept[after]
        return {
            path: [old.get(path), new.get(path), entry]
            for path, entry in {**dict.fromkeys([*old, *new]), **picture()}.items()
            if entry not in (old.get(path), new.get(path)) and not _is_prepared(path, entry)
        }

    def restore(self, name: str) -> None:
        """Make the container what it was then."""
        wanted, now = self._kept[name], picture()
        for path in sorted(set(now) - set(wanted), reverse=True):
            (os.rmdir if stat.S_ISDIR(now[path][0]) else os.unlink)(path)
        for path, (mode, uid, gid, content) in sorted(wanted.items()):
            if now.get(path) == (mode, uid, gid, content):
                continue
            if path in now and not stat.S_ISDIR(mode):
                os.unlink(path)
            if stat.S_ISLNK(mode):
                os.symlink(content, path)
                continue
            if stat.S_ISDIR(mode):
                os.makedirs(path, exist_ok=True)
            else:
                with open(path, "wb") as stream:
                    stream.write(content.encode("latin-1"))
            os.chown(path, uid, gid)
            os.chmod(path, stat.S_IMODE(mode))
        subprocess.run(["systemctl", "daemon-reload"], check=True)

    def run(
        self,
        module: str,
        arguments: dict[str, t.Any],
        cut: str = "",
        change: int | None = None,
        seconds: float | None = None,
        limit: float | None = None,
    ) -> dict[str, t.Any]:
        """Run a module below a process that stands for its connection; return how it ended.

        It is cut before the change to the file system of that number, or after so many seconds. kill ends the module,
        session everything that its connection has started, hangup does what a cut connection does. Without a cut the
        changes are counted. limit replaces the time limit of the preflight.
        """
        output, writer = os.pipe()
        control, reporter = os.pipe()
        began = time.monotonic()
        connection = os.fork()
        if connection == 0:
            if limit is not None:
                preflight.TIME_LIMIT = limit  # type: ignore[assignment]  # timeout(1) takes both
            _connect(module, arguments, writer, lambda: _Counter(reporter, change))
        os.close(writer)
        os.close(reporter)
        listener = _Listener(output)
        if not cut:
            listener.start()
        with os.fdopen(control, "rb", buffering=0) as events:
            pid = int.from_bytes(events.read(4), "little")
            changes, reached = _followed(events, pid, change, None if seconds is None else began + seconds)
            if reached:
                _cut(cut, connection, pid, output)
        if cut:
            listener.start()
        said, spent, status = _ended(connection, pid, listener, began)
        result = {} if reached else _result(said)
        return {
            "cut": reached,
            "status": status,
            "changes": changes,
            "seconds": spent,
            "output": said,
            "result": result,
        }

    def execute(self, command: list[str]) -> tuple[int, str]:
        """Run a command that may fail; return its exit status and what it printed."""
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return done.returncode, done.stdout.decode("utf-8", "replace")

    def settle(self, path: str = "", text: str = "") -> float:
        """Wait until no watchdog is at work any more; return after how many seconds that text had left that file."""
        began = time.monotonic()
        left = 0.0
        while copies():
            with contextlib.suppress(FileNotFoundError), open(path or os.devnull, encoding="utf-8") as stream:
                if text and text in stream.read():
                    left = time.monotonic() - began
            time.sleep(0.01)
        return left

    def start(self, programs: dict[str, list[str]]) -> dict[str, str]:
        """Start new processes of several kinds at once; return those that fail, hang or print something, with what."""
        running = {
            kind: subprocess.Popen(
                ["timeout", "-k", "1", "20", *command],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            for kind, command in programs.items()
        }
        failed = {}
        for kind, process in running.items():
            printed = process.communicate()[0].decode("utf-8", "replace")
            if process.returncode or printed:
                failed[kind] = f"exit status {process.returncode}: {printed}"
        return failed

    def mapping(self, text: str) -> list[str]:
        """Return the commands of the processes that map a file with this in its path."""
        found = []
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if name.isdigit():
                    with open(f"/proc/{name}/maps", encoding="utf-8", errors="replace") as stream:
                        if text in stream.read():
                            found.append(_command(name).replace(b"\0", b" ").decode("utf-8", "replace"))
        return found


class _Counter:
    """Counts the changes that a module makes to the file system, and waits for its end before one of them."""

    def __init__(self, reporter: int, change: int | None) -> None:
        self._pid = os.getpid()
        self._reporter = reporter
        self._change = change
        self._count = 0
        os.write(reporter, self._pid.to_bytes(4, "little"))

    def __call__(self, event: str, arguments: tuple[t.Any, ...]) -> None:
        if event not in CHANGES or os.getpid() != self._pid:  # the watchdog, which is another process, is not cut
            return
        if event == "open" and not (arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
        path = arguments[CHANGES[event]]
        if not isinstance(path, (str, bytes)) or not os.fsdecode(path).startswith(TOPS):
            return
        self._count += 1
        os.write(self._reporter, b".")
        if self._count == self._change:
            signal.pause()


class _Listener(threading.Thread):
    """Reads what a module prints, while it runs unless it is cut: a pipe does not hold the result for many services."""

    def __init__(self, output: int) -> None:
        super().__init__()
        self._output = output
        self.printed = b""

    def run(self) -> None:
        """Read until the module ends."""
        with contextlib.suppress(OSError), os.fdopen(self._output, "rb") as stream:
            self.printed = stream.read()


def _is_prepared(path: str, entry: t.Any) -> bool:
    """Whether this was going to take the place of something, or had it: no program looks under such a name."""
    return bool(entry) and any(name.startswith(".") and name.endswith(".preload-jemalloc") for name in path.split("/"))


def _connect(module: str, arguments: dict[str, t.Any], output: int, counter: t.Callable[[], _Counter]) -> t.NoReturn:
    """Be the connection of a module: run it in a process of its own, and end as it does."""
    os.setsid()
    pid = os.fork()
    if pid == 0:
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.addaudithook(counter())
        os._exit(_call(module, arguments))
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)


def _followed(events: t.IO[bytes], pid: int, change: int | None, until: float | None) -> tuple[int, bool]:
    """Follow a module to the change, or the moment, at which it is cut; return its changes and if it came there."""
    if until is not None:
        time.sleep(max(0.0, until - time.monotonic()))
        return 0, os.path.exists(f"/proc/{pid}")
    changes, reached = 0, False
    while not reached and events.read(1):
        changes += 1
        reached = changes == change
    return changes, reached


def _ended(connection: int, pid: int, listener: _Listener, began: float) -> tuple[str, float, int]:
    """Wait for the end of a module and its connection; return what it said, the seconds it took and its exit status."""
    listener.join()
    spent = time.monotonic() - began
    status = os.waitstatus_to_exitcode(os.waitpid(connection, 0)[1])
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(0.001)
    return listener.printed.decode("utf-8", "replace"), spent, status


def _result(said: str) -> dict[str, t.Any]:
    """Return the result in what a module said."""
    lines = [line for line in said.splitlines() if line.startswith("{")]
    result: dict[str, t.Any] = json.loads(lines[-1]) if lines else {}
    return result


def _call(module: str, arguments: dict[str, t.Any]) -> int:
    """Run a module in this process; return its exit status."""
    try:
        with patch_module_args({**arguments, "_ansible_diff": True}):
            MODULES[module].main()
    except SystemExit as end:
        sys.stdout.flush()
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    return 70


def _cut(how: str, connection: int, pid: int, output: int) -> None:
    """End a module, all that its connection has started, or the connection alone."""
    if how == "kill":
        os.kill(pid, signal.SIGKILL)
    elif how == "session":
        for each in _session(connection):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
    else:
        os.close(output)
        os.kill(connection, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(connection, signal.SIGHUP)


def main() -> None:
    """Answer calls until the input ends."""
    driver = Driver()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"value": getattr(driver, name)(**arguments)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(f"{json.dumps(answer)}\n")
        answers.flush()


if __name__ == "__main__":
    main()
