# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is returned of a host, from a made-up /proc below another root."""

from __future__ import annotations

import os
import pathlib
import re
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _drift as drift
from ansible_collections.preload.jemalloc.plugins.module_utils import _info as info
from ansible_collections.preload.jemalloc.plugins.module_utils import _observe as observe
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils import _scopes as scopes
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from tests.unit.conftest import Proc, maps_of

PREFIX = "/opt/jemalloc"
OURS = f"{PREFIX}/5.3.1/lib/libjemalloc.so.2"
LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6"
HEAPS = "".join(
    f"7f12{number * 4:02x}000000-7f12{number * 4 + 2:02x}000000 rw-p 00000000 00:00 0 \n"
    f"7f12{number * 4 + 2:02x}000000-7f12{number * 4 + 4:02x}000000 ---p 00000000 00:00 0 \n"
    for number in range(8)
)


def units(result: info.Result) -> t.Dict[str, info.Result]:
    """Return the units by their names."""
    return {unit["name"]: unit for unit in result["units"]}


def test_all_keys_always(root: pathlib.Path) -> None:
    found = info.gather(PREFIX, [])
    assert found["unreadable"] == {"processes": 0, "files": [], "reason": ""}
    assert [found[key] for key in ("installations", "scopes", "units", "processes", "boot_id")] == [[], [], [], [], ""]
    assert isinstance(found["time"], int)


def test_units(root: pathlib.Path, proc: Proc) -> None:
    drop_in = pathlib.Path(places.drop_in_path("puma.service"))
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(f'[Service]\nEnvironment="LD_PRELOAD={OURS}"\n')
    (proc.top / "sys/kernel/random").mkdir(parents=True)
    (proc.top / "sys/kernel/random/boot_id").write_text("5d9a0c6e\n")
    proc.add(1, OURS, LIBC, environment={"MALLOC_CONF": "narenas:2"}, threads=4, started=5)
    proc.add(2, LIBC, environment={"MALLOC_CONF": "unused"}, started=9)
    proc.add(3, LIBC, unit="cron.service")
    found = info.gather(PREFIX)
    puma = units(found)["puma.service"]
    assert re.fullmatch(r"1 of its 2 processes runs without jemalloc 5.3.1, which .*, restart\.", puma.pop("drift")[0])
    assert puma.pop("uptime") == found["time"] - puma.pop("started")
    assert puma == {
        "name": "puma.service",
        "scope": "system",
        "container": "",
        "uid": None,
        "allocators": {"glibc": 1, "jemalloc 5.3.1": 1},
        "processes": 2,
        "threads": 5,
        "rss": 50 * os.sysconf("SC_PAGE_SIZE"),
        "pss": 100 << 10,
        "swap": 16384,
        "malloc_conf": "narenas:2",
        "configured": "5.3.1",
        "candidate": None,
    }
    assert found["boot_id"] == "5d9a0c6e"
    assert found["processes"] == []
    assert [scope["unit"] for scope in found["scopes"]] == ["puma.service"]
    assert "changed" not in found["scopes"][0]


def test_units_of_several_scopes_are_told_apart(root: pathlib.Path, proc: Proc) -> None:
    user = "0::/user.slice/user-{0}.slice/user@{0}.service/app.slice/puma.service\n"
    container = "0::/system.slice/docker-" + "1" * 64 + ".scope/system.slice/puma.service\n"
    for pid, cgroup in enumerate(["", user.format(1), user.format(2), container, "0::/\n"]):
        proc.add(pid, LIBC, cgroup=cgroup)
    found = info.gather(PREFIX)["units"]
    assert [(unit["name"], unit["scope"], unit["container"], unit["uid"]) for unit in found] == [
        ("", "none", "", None),
        ("puma.service", "container", "1" * 12, None),
        ("puma.service", "system", "", None),
        ("puma.service", "user", "", 1),
        ("puma.service", "user", "", 2),
    ]


def test_a_candidate(root: pathlib.Path, proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "LEAST_UPTIME", 0)
    proc.add(1, maps=HEAPS + maps_of(LIBC), threads=9)
    proc.add(2, LIBC, unit="cron.service")
    proc.add(3, maps=HEAPS + maps_of(LIBC), threads=9, unit="secure.service", secure=True)
    found = units(info.gather(PREFIX, ["processes"]))
    candidate = found["puma.service"]["candidate"]
    assert (candidate["arenas"], candidate["arena_bytes"], candidate["threads"]) == (8, 8 << 25, 9)
    assert (found["puma.service"]["pss"], found["cron.service"]["pss"]) == (50 << 10, None)
    assert found["secure.service"]["candidate"] is None


def test_each_process(root: pathlib.Path, proc: Proc) -> None:
    proc.add(20, OURS, LIBC, started=9, secure=True)
    proc.add(3, "/x", unit="cron.service", started=12)
    found = info.gather(PREFIX, listed=True)["processes"]
    assert [each["pid"] for each in found] == [3, 20]
    assert found[1].pop("uptime") > 0
    assert found[1] == {
        "pid": 20,
        "unit": "puma.service",
        "container": "",
        "command": "puma: 5.6 (x)",
        "allocator": {"kind": "jemalloc", "release": "5.3.1", "path": OURS, "deleted": False, "secure": True},
        "rss": 25 * os.sysconf("SC_PAGE_SIZE"),
        "pss": 50 << 10,
        "swap": 8192,
        "threads": 1,
        "malloc_conf": "",
    }


def test_only_units_that_are_named(root: pathlib.Path, proc: Proc) -> None:
    for pid, unit in enumerate(["puma.service", "job@1.service", "job@2.service", "cron.service", "session-1.scope"]):
        proc.add(pid, LIBC, unit=unit)
    names = info.unit_names(["puma", "job@", "session-1.scope"])
    found = units(info.gather(PREFIX, names=names))
    assert list(found) == ["job@1.service", "job@2.service", "puma.service", "session-1.scope"]
    assert {unit["pss"] for unit in found.values()} == {50 << 10}


def test_no_name_of_a_unit() -> None:
    with pytest.raises(JemallocError, match=r"^units: 'a/b' is not the name of a unit; write it as in systemctl"):
        info.unit_names(["puma", "a/b"])


def test_pss_of_all(root: pathlib.Path, proc: Proc) -> None:
    proc.add(1, LIBC)
    assert units(info.gather(PREFIX, ["processes"]))["puma.service"]["pss"] is None
    assert units(info.gather(PREFIX, ["processes", "pss"]))["puma.service"]["pss"] == 50 << 10


def test_pss_is_read_of_whole_units_the_largest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "MOST_PSS", 3)

    def unit(rss: int, pids: t.Sequence[int], label: str = "jemalloc 5.3.1") -> t.Any:
        reported = {"rss": rss, "allocators": {label: len(pids)}, "configured": "", "candidate": None}
        return reported, [observe.Process(pid, *[None] * 7) for pid in pids]  # type: ignore[arg-type]  # only pids count

    given = [unit(1, [1]), unit(3, [2, 3]), unit(2, [4, 5]), unit(9, [6], "glibc"), unit(9, [7], "jemalloc (other)")]
    assert info.pids_for_pss(given, False) == [2, 3, 1]
    assert info.pids_for_pss(given, True) == [6, 7, 2, 3, 4, 5, 1]


def test_pss_that_cannot_be_read(proc: Proc) -> None:
    directory = proc.add(1, LIBC)
    (directory / "smaps_rollup").unlink()
    assert info.read_pss([1, 2], str(proc.top)) == {1: None, 2: 0}


def test_what_could_not_be_read(root: pathlib.Path, proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    proc.add(1, LIBC)
    monkeypatch.setattr(observe, "_allocator", refuse)
    monkeypatch.setattr(scopes, "scopes", lambda reader, *_more: reader.unreadable.append("/x") or [])
    advice = "run it as root (become: true), and in a container with the capability CAP_SYS_PTRACE."
    found = info.gather(PREFIX, ["processes"])
    assert found["unreadable"] == {
        "processes": 1,
        "files": ["/x"],
        "reason": f"This user cannot read what 1 process maps, /x; {advice}",
    }
    assert units(found)["puma.service"]["allocators"] == {"unreadable": 1}
    (proc.top / "self").mkdir()
    (proc.top / "self" / "mounts").write_text("sys /sys sysfs rw 0 0\nproc /proc proc rw,nosuid,hidepid=2 0 0\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    reason = info.gather(PREFIX, ["processes"])["unreadable"]["reason"]
    what = "what 1 process maps, /x, the processes of others, which /proc hides"
    assert reason == f"This user cannot read {what}; {advice}"


def refuse(*_arguments: t.Any) -> t.NoReturn:
    """Let what is asked for be somebody else's."""
    raise PermissionError(13, "Permission denied")


def test_memory_of_several(proc: Proc) -> None:
    proc.add(1, LIBC)
    proc.add(2, LIBC)
    assert processes.memory([1, 2, 3], str(proc.top)) == 100 << 10


def test_installations(tmp_path: pathlib.Path, root: pathlib.Path, installed: t.Callable[..., None]) -> None:
    prefix = str(tmp_path / "store")
    for version in ("5.10.0", "5.9.0", "5.1.0"):
        installed(prefix, version)
    os.symlink("5.10.0", f"{prefix}/current")
    os.symlink("5.9.0", f"{prefix}/previous")
    pathlib.Path(prefix, "5.9.0/lib/libjemalloc.so.2").write_bytes(b"")
    pathlib.Path(prefix, "5.1.0/receipt.json").write_text("{")
    found = info.gather(prefix)["installations"]
    assert [(each["version"], each["current"], each["previous"], each["damage"]) for each in found] == [
        ("5.1.0", False, False, "its receipt cannot be read"),
        ("5.9.0", False, True, "lib/libjemalloc.so.2 is not what its receipt says"),
        ("5.10.0", True, False, ""),
    ]
    assert (found[0]["receipt"], found[2]["receipt"]["release"]) == (None, "5.10.0")
    assert found[2]["path"] == f"{prefix}/5.10.0"


@pytest.mark.parametrize(("options", "hides"), [("rw,hidepid=2", True), ("rw,hidepid=invisible", True), ("rw", False)])
def test_processes_that_proc_hides(tmp_path: pathlib.Path, options: str, hides: bool) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mounts").write_text(f"sysfs /sys sysfs rw 0 0\nproc /proc proc {options} 0 0\n")
    assert info._hides(str(tmp_path)) is hides
    assert info._hides(str(tmp_path / "missing")) is False
