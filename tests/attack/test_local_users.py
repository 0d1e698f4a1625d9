# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An unprivileged user of a host tries to block, delay or steer what root does: nothing waits, nothing is followed."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils._sandbox import USERS
from tests.attack.local_lab import PREFIX, STAGING, UID, USER, LocalLab

# It enters a directory without a name, and stays there with children.
_SIT = """
import os, sys, time
os.fchdir(os.open(sys.argv[1], os.O_PATH))
for _child in range(4):
    os.fork()
time.sleep(86400)
"""

# A directory on the same path, in a file system that nobody else sees.
_MOUNT = f"mount -t tmpfs none /opt && mkdir -p {STAGING}/tmpx && cd {STAGING}/tmpx && exec sleep 86401"


# The shell that runs it: what starts that shell has these words in its command too.
CONFIGURE = "^ *[0-9]+ +[0-9]+ /bin/sh [.]/configure --prefix"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, library: Path) -> t.Iterator[LocalLab]:
    """The container."""
    made = LocalLab(tmp_path_factory.mktemp("local"), library)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def settled(lab: LocalLab) -> t.Iterator[None]:
    """Nobody there but systemd of the user, and no store, before and after."""
    yield
    lab.shell(f"rm -f /srv/wait; pkill -KILL -u {USER} -f 'sleep|python3' || true")
    assert lab.preload(state="absent").status == 0
    assert lab.module("", state="absent", prefix=PREFIX).status == 0


def sit(lab: LocalLab, how: str) -> list[tuple[int, int]]:
    """Let the user sit where root works; return the processes."""
    if how == "fchdir":  # as a run of an earlier release left it, killed
        lab.shell(f"mkdir -p -m 755 {STAGING}/tmpx && chmod 711 {STAGING}")
        lab.begin("python3", "-c", _SIT, f"{STAGING}/tmpx", user=USER)
        found = lab.wait_for_processes(f"python3 -c .*{STAGING}/tmpx", 16)
    else:
        lab.begin("unshare", "-Urm", "sh", "-c", _MOUNT, user=USER)
        found = lab.wait_for_processes("^ *[0-9]+ +[0-9]+ sleep 86401")
    assert {uid for _pid, uid in found} == {UID}
    for pid, _uid in found:
        lab.wait(f"readlink /proc/{pid}/cwd | grep -q ^{STAGING}/tmpx")
    return found


@pytest.mark.parametrize("how", ["fchdir", "tmpfs"])
def test_who_sits_in_the_staging_area_blocks_nothing(lab: LocalLab, how: str) -> None:
    there = sit(lab, how)
    done = lab.module("", **lab.install())
    assert (done.status, done.result.get("msg", ""), done.result.get("changed")) == (0, "", True)
    assert lab.module("", **lab.install()).result["changed"] is False
    assert lab.module("", state="absent", prefix=PREFIX).result["changed"] is True
    for pid, _uid in there:  # and none of them was taken for a part of a build
        lab.shell(f"kill -0 {pid}")


def test_a_build_is_closed_to_others(lab: LocalLab) -> None:
    lab.shell("touch /srv/wait")
    running = lab.begin_module("", lab.install())
    pid, uid = lab.wait_for_processes(CONFIGURE)[0]
    assert uid in USERS
    assert "/system.slice/preload-jemalloc-build-" in lab.shell(f"cat /proc/{pid}/cgroup")
    work = lab.shell(f"readlink /proc/{pid}/cwd").strip()
    assert work.startswith(STAGING)
    for path in (STAGING, str(Path(work).parent.parent), work):
        attempt = f"python3 -c 'import os; os.fchdir(os.open(\"{path}\", os.O_PATH))' 2>&1 || true"
        assert "PermissionError" in lab.shell(attempt, user=USER)
    lab.shell("rm /srv/wait")
    assert lab.end_module(running).status == 0
    assert [found for found in lab.processes("sleep 86399") if found[1] in USERS] == []


def test_a_killed_build_is_ended_with_all_that_it_started(lab: LocalLab) -> None:
    lab.shell("touch /srv/wait")
    running = lab.begin_module("", lab.install())
    left = [lab.wait_for_processes(pattern)[0] for pattern in (CONFIGURE, "sleep 86399$")]
    lab.shell("pkill -KILL -f '[r]un_module.py jemalloc '")
    running.wait()
    for pid, _uid in left:
        lab.shell(f"kill -0 {pid}")
    lab.shell("rm /srv/wait")
    assert lab.module("", **lab.install()).status == 0
    assert lab.processes("sleep 86399$") == []
    assert lab.shell("ls /run | grep preload-jemalloc-build || true") == ""
    assert lab.shell("systemctl list-units --plain --no-legend 'preload-jemalloc-build-*'") == ""


# It makes a group below its own and moves there: the name of the group is its argument.
_MOVE = """
import os, sys
for own, _groups, _files in os.walk("/sys/fs/cgroup"):
    if own.endswith("/mine.service") and os.access(own, os.W_OK):
        group = os.path.join(own, sys.argv[1])
        os.makedirs(group, exist_ok=True)
        with open(os.path.join(group, "cgroup.procs"), "w") as stream:
            stream.write(str(os.getpid()))
os.execv("/bin/sleep", ["sleep", "86402"])
"""

_DELEGATED = f"""
cat > /srv/{USER}/move.py <<'END'
{_MOVE}
END
mkdir -p ~/.config/systemd/user && cat > ~/.config/systemd/user/mine.service <<'END'
[Service]
Delegate=yes
ExecStart=/usr/bin/python3 /srv/{USER}/move.py NAME
END
export XDG_RUNTIME_DIR=/run/user/{UID}
systemctl --user daemon-reload
systemctl --user restart mine
"""


@pytest.mark.parametrize("name", ["app.service", "user@0.service/app.service"])
def test_a_group_with_the_name_of_another_service(lab: LocalLab, name: str) -> None:
    lab.shell(_DELEGATED.replace("NAME", name), user=USER)
    ((pid, _uid),) = lab.wait_for_processes("^ *[0-9]+ +[0-9]+ sleep 86402")
    assert f"mine.service/{name}\n" in lab.shell(f"cat /proc/{pid}/cgroup")
    assert lab.module("", **lab.install()).status == 0
    done = lab.preload(services=["app"])
    assert [(each["name"], each["uid"]) for each in done.result["services"]] == [("app.service", None)]
    done = lab.restart(done)
    assert (done.status, done.result["proved"]) == (0, ["app.service"])
    units = lab.module("_info", prefix=PREFIX, gather=["processes"]).result["units"]
    found = [
        (each["name"], each["scope"], each["uid"]) for each in units if each["name"] in ("mine.service", "app.service")
    ]
    assert sorted(found) == [("app.service", "system", None), ("mine.service", "user", UID)]
    lab.shell(f"XDG_RUNTIME_DIR=/run/user/{UID} systemctl --user stop mine", user=USER)


# It takes the place of the socket of a user's systemd, counts who comes, and never says a word.
_SILENT = f"""
import os, socket
path = "/run/user/{UID}/systemd/private"
os.unlink(path)
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen(100)
kept = []
while True:
    kept.append(server.accept())
    with open("/srv/{USER}/asked", "w") as stream:
        stream.write(str(len(kept)))
"""


def test_a_systemd_of_a_user_that_never_answers(lab: LocalLab) -> None:
    user = f"XDG_RUNTIME_DIR=/run/user/{UID} systemctl --user"
    lab.shell(f"{user} daemon-reload && {user} start own", user=USER)
    assert lab.module("", **lab.install()).status == 0
    before = lab.shell(f"stat -c %i /run/user/{UID}/systemd/private")
    lab.begin("python3", "-c", _SILENT, user=USER)
    lab.wait(f"[ $(stat -c %i /run/user/{UID}/systemd/private) != {before.strip()} ]")
    said = f"The systemd of user {UID} does not answer within 5 s"
    services = ["app", {"name": "own", "scope": "user"}]
    done = lab.preload(services=services)
    assert done.status == 0
    assert any(words.startswith(said) for words in done.warnings)
    assert {each["name"] for each in done.result["restarts"]} == {"app.service", "own.service"}
    asked = int(lab.shell(f"cat /srv/{USER}/asked"))
    done = lab.restart(done)
    assert (done.status, done.result["proved"]) == (0, ["app.service"])
    assert [words[: len(said)] for words in done.warnings] == [said]
    assert (
        int(lab.shell(f"cat /srv/{USER}/asked")) == asked + 1
    )  # systemctl hangs in the first call, there is no second
    assert lab.processes("^ *[0-9]+ +1000 systemctl") == []
    lab.shell(f"pkill -KILL -u {USER} python3; systemctl restart user@{UID}")


TEXTFILE = f"/srv/{USER}/textfile"


@pytest.fixture
def textfile(lab: LocalLab) -> t.Iterator[str]:
    """The directory of the exporter, which runs as the user."""
    lab.shell(f"mkdir {TEXTFILE}", user=USER)
    yield TEXTFILE
    assert lab.module("_metrics", state="absent", directory=TEXTFILE).status == 0
    assert lab.shell("ls /etc/systemd/system /usr/local/lib | grep preload || true") == ""
    lab.shell(f"rm -rf {TEXTFILE}")


def test_metrics_that_are_a_pipe(lab: LocalLab, textfile: str) -> None:
    assert lab.module("_metrics", directory=textfile).status == 0
    path = f"{textfile}/jemalloc.prom"
    lab.shell(f"rm {path}; mkfifo {path}", user=USER)
    assert lab.module("_metrics", directory=textfile).status == 0
    done = lab.module("_metrics", state="absent", directory=textfile)
    assert (done.status, done.result["changed"]) == (0, True)
    assert lab.shell(f"ls -A {textfile}") == ""


def test_a_directory_of_metrics_that_leads_to_one_of_root(lab: LocalLab, textfile: str) -> None:
    refusal = f"{textfile}: textfile in it is a link, and a user other than root may have made it"
    assert lab.module("_metrics", directory=textfile).status == 0
    lab.shell(f"mv {textfile} {textfile}-mine; ln -s /etc/cron.d {textfile}", user=USER)
    before = lab.shell("ls -Al /etc/cron.d")
    assert lab.module("_metrics", directory=textfile).result["msg"].startswith(f"directory: {refusal}")
    status = "systemctl start preload-jemalloc-metrics 2>&1 || journalctl --output=cat --unit=preload-jemalloc-metrics"
    assert refusal in lab.shell(status)
    assert lab.shell("ls -Al /etc/cron.d") == before
    done = lab.module("_metrics", state="absent", directory=textfile)
    assert (done.status, done.result["changed"]) == (0, True)
    assert any(words.startswith(refusal) for words in done.warnings)
    assert lab.shell("ls -Al /etc/cron.d") == before
    lab.shell(f"rm -r {textfile} {textfile}-mine")
