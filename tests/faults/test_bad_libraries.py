# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Libraries that must not be preloaded, real ones in a container: refused, or taken back, and the host is unharmed."""

from __future__ import annotations

import subprocess
import typing as t
from dataclasses import dataclass
from pathlib import Path

import pytest
from hosts import CUTS, ENVIRONMENT, LIST, PREFIX, Host

GOOD = 'const char jemalloc_version[] = "9.9.9-0-g0123abc";\n'

#: Seconds that a program may take in the preflight, without --full: each of those that hang costs so much.
LIMIT = 1.5


@dataclass(frozen=True)
class Bad:
    """A library: its C text, what is done to its file, what a shell does to its installation, and why it is refused.

    arrange is done before the receipt is written, spoil afterwards.
    """

    name: str
    reason: str
    text: str = ""
    change: t.Callable[[bytes], bytes] = bytes
    arrange: str = ""
    spoil: str = ""


#: With the others there is one of each kind in make test.
ONLY_IN_FULL = (
    *("cut-0.002", "cut-0.3", "cut-0.9", "order", "group-directory", "aborts", "crashes", "hangs-for-good"),
    *("has-no-memory", "warns", "is-behind-a-closed-directory", "hangs-in-services"),
    *("hangs-by-the-list", "prints-by-the-list", "hangs-in-a-service"),
)


def each_of(libraries: t.Sequence[Bad]) -> list[t.Any]:
    """Return libraries as the parameters of a test."""
    return [
        pytest.param(bad, id=bad.name, marks=pytest.mark.full if bad.name in ONLY_IN_FULL else ()) for bad in libraries
    ]


def at_start(statements: str) -> str:
    """Return the text of a library that does something when a process starts."""
    return (
        "#define _GNU_SOURCE\n#include <errno.h>\n#include <pthread.h>\n#include <signal.h>\n#include <stdlib.h>\n"
        "#include <string.h>\n#include <unistd.h>\n"
        f"__attribute__((constructor)) static void start(void) {{ {statements} }}\n"
    )


def cut(part: float) -> t.Callable[[bytes], bytes]:
    """Return what cuts off a file behind a part of it."""
    return lambda data: data[: int(len(data) * part)]


def patched(offset: int, value: bytes) -> t.Callable[[bytes], bytes]:
    """Return what puts other bytes into a file."""
    return lambda data: data[:offset] + value + data[offset + len(value) :]


DAMAGED = "its ELF headers are damaged or cut off"
ELSEWHERE = "it is for another machine"

#: What the preflight sees from the file alone.
UNFIT = [
    Bad("empty", "it is not an ELF file", change=cut(0)),
    *(Bad(f"cut-{part}", DAMAGED, change=cut(part)) for part in (0.002, 0.1, 0.3, 0.5, 0.9, 0.9999)),
    Bad("zeros", "it is not an ELF file", change=lambda data: b"\0" * len(data)),
    Bad("text", "it is not an ELF file", change=lambda _data: b"a library, honestly\n"),
    Bad("machine", ELSEWHERE, change=patched(18, b"\xf3\0")),  # RISC-V
    Bad("class", ELSEWHERE, change=patched(4, b"\1")),  # 32 bits
    Bad("order", DAMAGED, change=patched(5, b"\2")),
    Bad("world-writable", "can be written by others than root (mode 0666)", spoil="chmod 666 lib/libjemalloc.so.2"),
    Bad("another-owner", "belongs to user 1000, not to root", spoil="chown 1000 lib/libjemalloc.so.2"),
    Bad("open-directory", "lib can be written by others than root (mode 0777)", spoil="chmod 777 lib"),
    Bad("group-directory", "/9.9.8 can be written by others than root (mode 0775)", spoil="chmod 775 ."),
    Bad(
        "link-out",
        "it leads out of /opt/jemalloc, to /srv/libx.so",
        arrange="cp libjemalloc.so.2 /srv/libx.so; ln -sf /srv/libx.so libjemalloc.so.2",
    ),
    Bad("directory", "it is not a regular file", arrange="rm libjemalloc.so.2; mkdir x; ln -s x libjemalloc.so.2"),
]

#: What shows only when it runs.
RUN = [
    Bad("exits", "/bin/true fails with it preloaded (exit status 3: no word)", at_start("_exit(3);")),
    Bad("aborts", "/bin/true fails with it preloaded (exit status -6: no word)", at_start("abort();")),
    Bad("crashes", "(exit status -11: no word)", at_start("*(volatile int *) 0 = 0;")),
    Bad("hangs", "/bin/true fails with it preloaded (it took too long)", at_start("for (;;) pause();")),
    Bad(
        "hangs-for-good",
        "it took too long and had to be killed",
        at_start("sigset_t all; sigfillset(&all); sigprocmask(SIG_BLOCK, &all, 0); for (;;) pause();"),
    ),
    Bad("hangs-in-malloc", "it took too long", "void *malloc(unsigned long n) { for (;;); }\n"),
    Bad("has-no-memory", "exit status", "void *malloc(unsigned long n) { return 0; }\n"),
    Bad(
        "deadlocks-after-fork",
        "python3 fails with it preloaded (it took too long)",
        "#include <pthread.h>\nstatic pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;\n"
        "static void take(void) { pthread_mutex_lock(&lock); }\n"
        "static void give(void) { pthread_mutex_unlock(&lock); }\n"
        "__attribute__((constructor)) static void start(void) { pthread_atfork(take, give, take); }\n",
    ),
    Bad("crashes-at-dlopen", "exit status", "void abort(void);\nvoid *dlopen(const char *n, int f) { abort(); }\n"),
    Bad("starts-no-thread", "can't start new thread", "int pthread_create(void) { return 11; }\n"),
    Bad("prints", "(exit status 0: hello)", at_start('(void) !write(1, "hello\\n", 6);')),
    Bad("prints-a-blank-line", "(exit status 0: blanks)", at_start('(void) !write(1, "\\n", 1);')),
    Bad("warns", "(exit status 0: oops)", at_start('(void) !write(2, "oops\\n", 5);')),
    Bad("lacks-a-symbol", "undefined symbol: nowhere", "void nowhere(void);\nvoid *where = nowhere;\n"),
    Bad(
        "lacks-a-library",
        "libmissing.so: cannot open shared object file",
        "int needed(void);\nint (*n)(void) = needed;",
    ),
    Bad("needs-a-newer-glibc", "it needs glibc 2.999, this host has", "int newer(void);\nint (*n)(void) = newer;"),
    Bad("is-closed", "cannot be preloaded (cannot open shared object file)", spoil="chmod 600 lib/libjemalloc.so.2"),
    Bad("is-behind-a-closed-directory", "cannot be preloaded (cannot open shared object file)", spoil="chmod 700 lib"),
    Bad("crashes-for-users", "died with <Signals.SIGABRT: 6>", at_start("if (getuid()) abort();")),
    Bad("crashes-in-services", "systemd-run fails with it", at_start('if (getenv("INVOCATION_ID")) abort();')),
    Bad("hangs-in-services", "systemd-run fails with it", at_start('if (getenv("INVOCATION_ID")) for (;;) pause();')),
]

BY_LIST = '!getenv("LD_PRELOAD")'

#: What shows only when it stands in /etc/ld.so.preload, so that the watchdog takes it back.
WATCHED = [
    Bad("exits-by-the-list", "a program: exit status 3", at_start(f"if ({BY_LIST}) _exit(3);")),
    Bad("hangs-by-the-list", "a program: it does not end within", at_start(f"if ({BY_LIST}) for (;;) pause();")),
    Bad(
        "prints-by-the-list",
        "a program: exit status 0: hello",
        at_start(f'if ({BY_LIST}) (void) !write(1, "hello", 5);'),
    ),
    Bad("crashes-set-user-id", "a set-user-ID program: exit status", at_start("if (getuid() != geteuid()) abort();")),
    Bad(
        "hangs-in-a-login",
        "a login: it does not end within",
        at_start(
            "sigset_t all; sigfillset(&all); sigprocmask(SIG_BLOCK, &all, 0);"
            f'if ({BY_LIST} && getenv("LOGNAME") && !getenv("INVOCATION_ID")) for (;;) pause();'
        ),
    ),
    Bad(
        "hangs-in-a-service",
        "a service: it does not end within",
        at_start(f'if ({BY_LIST} && getenv("INVOCATION_ID")) for (;;) pause();'),
    ),
    Bad(
        "crashes-in-a-user's-program",
        "a program of a user without rights: exit status",
        at_start(f"if ({BY_LIST} && getuid()) abort();"),
    ),
]


#: Moments at which a module is killed while one of these is on trial.
MOMENTS, MOMENTS_IN_FULL = 1, 9


@pytest.fixture
def compiled(tmp_path: Path, host: Host) -> t.Callable[[Bad], str]:
    """Make a library; return its path in the container."""

    def gcc(*arguments: str) -> None:
        subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-pthread", *arguments], cwd=tmp_path, check=True)

    def make(bad: Bad) -> str:
        (tmp_path / "bad.c").write_text(GOOD + bad.text)
        (tmp_path / "other.c").write_text("int needed(void) { return 0; }\nint newer(void) { return 0; }\n")
        (tmp_path / "other.map").write_text("GLIBC_2.999 { newer; };\n")
        more = []
        if bad.name == "lacks-a-library":
            gcc("-o", "libmissing.so", "-Wl,-soname,libmissing.so", "other.c")
            more = ["libmissing.so"]
        elif bad.name == "needs-a-newer-glibc":  # by a C library that is not there, as on the host that built it
            gcc("-o", "libc.so", "-Wl,-soname,libc.so.6", "-Wl,--version-script=other.map", "-nostdlib", "other.c")
            more = ["-nostdlib", "libc.so"]
        gcc("-o", "bad.so", "bad.c", *more)
        path = tmp_path / "bad.so"
        path.write_bytes(bad.change(path.read_bytes()))
        return host.give(path)

    return make


def check_unharmed(host: Host) -> None:
    """See that nothing of a library is left but its installation, and that whatever starts now does so."""
    host.check_unchanged("with it")
    assert host.ask("mapping", text="/opt/jemalloc/9.9.8/") == []
    host.check_processes()
    # what a trial left would run on
    assert host.ask("shell", script="systemctl list-units --plain --no-legend 'run-*.service'") == ""


def install(host: Host, bad: Bad, library: str) -> None:
    """Make a library the current installation."""
    host.ask("install", prefix=PREFIX, version="9.9.8", library=library, arrange=bad.arrange)
    host.ask("shell", script=f"cd {PREFIX}/9.9.8; {bad.spoil}")
    host.ask("keep", name="with it")


@pytest.mark.parametrize("bad", each_of([*UNFIT, *RUN]))
def test_refused(host: Host, pytestconfig: pytest.Config, compiled: t.Callable[[Bad], str], bad: Bad) -> None:
    install(host, bad, compiled(bad))
    full = pytestconfig.getoption("full")
    ways = [ENVIRONMENT, LIST] if full else [[ENVIRONMENT, LIST][[*UNFIT, *RUN].index(bad) % 2]]
    for arguments in ways:
        message = host.run(arguments, limit=None if full else LIMIT).sentence()
        assert message.startswith(f"The library {PREFIX}/current/lib/libjemalloc.so is not fit for this host"), message
        assert message.endswith("; nothing refers to it.")
        assert bad.reason in message
        check_unharmed(host)


@pytest.mark.parametrize("bad", each_of(WATCHED))
def test_taken_back(host: Host, compiled: t.Callable[[Bad], str], bad: Bad) -> None:
    install(host, bad, compiled(bad))
    message = host.run(LIST).sentence()
    assert message.startswith("/etc/ld.so.preload: new processes do not start with the library ("), message
    assert message.endswith("); all files are as before.")
    assert bad.reason in message
    check_unharmed(host)


@pytest.mark.parametrize("bad", each_of(WATCHED[:2]))
def test_taken_back_from_a_module_that_is_killed(
    host: Host, pytestconfig: pytest.Config, compiled: t.Callable[[Bad], str], bad: Bad
) -> None:
    install(host, bad, compiled(bad))
    whole = host.run(LIST)
    moments = MOMENTS_IN_FULL if pytestconfig.getoption("full") else MOMENTS
    seconds = []
    for moment in range(moments):
        # before the trials, and most often in the middle of them
        how = CUTS[moment % 3]
        host.run(LIST, cut=how, seconds=whole.seconds * (moment + 2) / (moments + 2))
        if moment % 2:
            seconds.append(host.ask("settle", path="/etc/ld.so.preload", text=PREFIX))
            assert host.ask("shell", script="cat /etc/ld.so.preload || true").endswith("No such file or directory\n")
            host.check_processes()
        # At once, or afterwards: it waits for the watchdog, and does not take for good what is still on trial.
        assert bad.reason in host.run(LIST).sentence()
        host.ask("switch", prefix=PREFIX, version="9.9.9")
        assert host.run(LIST).status == 0
        host.check_processes()
        assert host.run({"state": "absent"}).status == 0
        host.ask("switch", prefix=PREFIX, version="9.9.8")
        host.ask("restore", name="with it")
        check_unharmed(host)
    print(f"{bad.name}: in /etc/ld.so.preload for {max(seconds, default=0.0):.1f} s after the module was gone")


def test_a_link_that_others_could_turn(host: Host) -> None:
    """The library is where it should be, but what is preloaded is a path through a directory that others can write."""
    host.ask("shell", script="mkdir /srv/open; chmod 777 /srv/open; ln -s /opt/jemalloc /srv/open/jemalloc")
    host.ask("keep", name="with it")
    message = host.run({**ENVIRONMENT, "prefix": "/srv/open/jemalloc"}).sentence()
    assert "/srv/open can be written by others than root (mode 0777)" in message
    check_unharmed(host)
