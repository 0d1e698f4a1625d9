# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc_preload, run as a whole below another root, with a systemctl that is a script."""

from __future__ import annotations

import json
import os
import pathlib
import re
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _cpus as cpus
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _undo as undo

Call = t.Callable[..., t.Dict[str, t.Any]]
Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Any]]


UNIT = "etc/systemd/system/{}.service.d/zz-preload-jemalloc.conf"
MANAGER = "etc/systemd/system.conf.d/zz-preload-jemalloc.conf"
COMMON = ["etc/profile.d/jemalloc.sh", "usr/local/bin/jemalloc.sh", "usr/local/bin/no-jemalloc.sh"]
PUMA, CRON = UNIT.format("puma"), UNIT.format("cron")

#: What is there before; what is wanted; the files that change.
SCENARIOS: t.List[t.Tuple[t.Optional[t.Dict[str, t.Any]], t.Dict[str, t.Any], t.List[str]]] = [
    (None, {}, COMMON),
    (None, {"services": ["puma"]}, [COMMON[0], PUMA, *COMMON[1:]]),
    (None, {"services": ["puma", "puma.service", "cron"]}, [COMMON[0], PUMA, CRON, *COMMON[1:]]),
    (None, {"host": True}, [MANAGER, "etc/environment", *COMMON]),
    (None, {"host": True, "services": ["puma"]}, [MANAGER, "etc/environment", COMMON[0], PUMA, *COMMON[1:]]),
    (None, {"state": "absent"}, []),
    ({"services": ["puma"]}, {"services": ["cron"]}, [PUMA, CRON]),
    ({"services": ["puma"]}, {"host": True, "services": []}, [PUMA, MANAGER, "etc/environment", COMMON[0]]),
    ({"host": True}, {"host": False}, [MANAGER, "etc/environment", COMMON[0]]),
    (
        {"host": True, "services": ["puma"]},
        {"state": "absent", "host": True, "services": ["missing"]},
        [PUMA, MANAGER, "etc/environment", *COMMON],
    ),
]


@pytest.mark.parametrize(("there", "wanted", "changed"), SCENARIOS)
def test_check_mode_predicts_the_real_run_and_a_second_one_changes_nothing(
    scopes: Call,
    snapshot: Snapshot,
    root: pathlib.Path,
    there: t.Optional[t.Dict[str, t.Any]],
    wanted: t.Dict[str, t.Any],
    changed: t.List[str],
) -> None:
    (root / "etc/environment").write_text("A=1")
    original = (root / "etc/environment").read_bytes()
    if there is not None:
        scopes(**there)
    before = snapshot(root)
    predicted = scopes(_check=True, **wanted)
    assert snapshot(root) == before
    done = scopes(**wanted)
    assert done == predicted
    assert done["changed"] == bool(changed)
    assert done["files"] == [str(root / name) for name in changed]
    for part in done["diff"]:
        path = pathlib.Path(part["before_header"])
        assert part["after_header"] == part["before_header"]
        content = before.get(str(path), (0, ""))[1]
        old = content if isinstance(content, str) else content.decode()
        new = os.readlink(str(path)) if path.is_symlink() else files.read_text(str(path)) or ""
        assert (part["before"], part["after"]) == tuple(undo.managed(str(path), text) or "" for text in (old, new))
    between = snapshot(root)
    for check in (True, False):
        again = scopes(_check=check, **wanted)
        assert (again["changed"], again["files"], again["diff"]) == (False, [], [])
        assert snapshot(root) == between
    scopes(state="absent")
    assert [path for path in root.rglob("*") if "jemalloc" in path.name] == []
    assert (root / "etc/environment").read_bytes() == original


def test_what_is_written(scopes: Call, root: pathlib.Path, prefix: str) -> None:
    (root / "lib").mkdir(exist_ok=True)
    (root / "lib" / "puma.service").write_text('[Service]\nEnvironment="LD_PRELOAD=/a.so:/b.so"\n')
    scopes(host=True, services=["puma"])
    ours = f"{prefix}/current/lib/libjemalloc.so"
    managed = "# Managed by the Ansible collection preload.jemalloc; changes made here are lost.\n"
    assert (root / PUMA).read_text() == f'{managed}[Service]\nEnvironment="LD_PRELOAD={ours}:/a.so:/b.so"\n'
    assert (root / MANAGER).read_text() == f'{managed}[Manager]\nDefaultEnvironment="LD_PRELOAD={ours}"\n'
    assert (root / "etc/environment").read_text() == (
        f"# BEGIN preload.jemalloc (made this file)\nLD_PRELOAD={ours}\n# END preload.jemalloc\n"
    )
    assert os.readlink(str(root / "usr/local/bin/jemalloc.sh")) == f"{prefix}/current/bin/jemalloc.sh"


def test_systemd_reads_its_files_again_only_when_one_changed(scopes: Call, systemctl: t.Any) -> None:
    log = systemctl[0]
    scopes()
    assert log.read_text() == ""
    scopes(_check=True, host=True)
    assert log.read_text() == ""
    scopes(host=True)
    assert log.read_text() == "daemon-reload\n"


def test_when_systemd_cannot_read_its_files_all_is_taken_back(
    scopes: Call, systemctl: t.Any, root: pathlib.Path
) -> None:
    scopes()
    before = sorted(str(path) for path in root.rglob("*") if path.is_file())
    systemctl[1].write_text("3")
    found = scopes(host=True, services=["puma"])
    assert found["msg"] == "systemctl daemon-reload ended with 3: ; all files are as before."
    assert sorted(str(path) for path in root.rglob("*") if path.is_file()) == before


def test_without_systemd_there_is_nothing_to_reload(scopes: Call, systemctl: t.Any, root: pathlib.Path) -> None:
    (root / "run/systemd/system").rmdir()
    found = scopes(host=True)
    assert found["files"] == [str(root / name) for name in ("etc/environment", *COMMON)]
    assert systemctl[0].read_text() == ""


def test_a_library_that_is_not_fit_is_never_referred_to(
    scopes: Call, systemctl: t.Any, root: pathlib.Path, prefix: str, snapshot: Snapshot
) -> None:
    path = pathlib.Path(prefix, "9.9.9", "lib", "libjemalloc.so.2")
    files.write_file(str(path), b"no library")
    tree = store.fingerprint(f"{prefix}/9.9.9")
    receipt = pathlib.Path(prefix, "9.9.9", "receipt.json")
    receipt.write_text(json.dumps({**json.loads(receipt.read_text()), "files": tree}))
    before = snapshot(root)
    message = scopes(host=True)["msg"]
    library = f"{prefix}/current/lib/libjemalloc.so"
    assert message == f"The library {library} is not fit for this host: it is not an ELF file; nothing refers to it."
    assert snapshot(root) == before


def test_foreign_files_are_named(scopes: Call, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: t.List[str] = []
    monkeypatch.setattr(host.Host, "warn", lambda _self, message: warnings.append(message))
    (root / "usr/local/bin").mkdir(parents=True)
    (root / "usr/local/bin/jemalloc.sh").write_text("#!/bin/sh\n")
    found = scopes()
    path = f"{root}/usr/local/bin/jemalloc.sh"
    assert found["foreign"] == [path]
    assert warnings == [f"{path} was not made by this collection and is left as it is."]
    assert found["files"] == [f"{root}/etc/profile.d/jemalloc.sh", f"{root}/usr/local/bin/no-jemalloc.sh"]


def running(root: pathlib.Path, maps: str) -> None:
    """Let puma run with this in its memory."""
    process = root / "proc" / "100"
    process.mkdir(parents=True, exist_ok=True)
    (process / "cgroup").write_text("0::/system.slice/puma.service\n")
    (process / "maps").write_text(f"7f00-7f01 r-xp 0 08:01 12   {maps}\n")


@pytest.mark.parametrize(
    ("runs", "arguments", "check", "expected"),
    [
        ("9.9.9", {"services": ["puma"]}, False, None),
        ("9.9.8", {"services": ["puma"]}, False, ("9.9.9", "1 of its 1 processes do not map jemalloc 9.9.9")),
        (
            "9.9.9",
            {"services": ["puma"], "version": "9.9.10"},
            True,
            ("9.9.10", "1 of its 1 processes do not map jemalloc 9.9.10"),
        ),
        (
            "9.9.9",
            {"services": ["puma"], "rebuilt": "9.9.9"},
            True,
            ("9.9.9", "1 of its 1 processes do not map jemalloc 9.9.9"),
        ),
        ("9.9.9", {"services": ["puma"], "rebuilt": "9.9.9"}, False, None),
        ("9.9.9", {"services": []}, False, (None, "1 of its 1 processes still map jemalloc")),
        ("9.9.9", {}, False, None),
        ("9.9.8", {}, False, ("9.9.9", "1 of its 1 processes do not map jemalloc 9.9.9")),
        ("9.9.9", {"host": True, "exclude": []}, False, None),
        ("9.9.9", {"state": "absent"}, False, (None, "1 of its 1 processes still map jemalloc")),
        ("9.9.8", {"host": True, "services": []}, False, ("any", "its drop-in is going to differ")),
    ],
)
def test_who_needs_a_restart(
    scopes: Call,
    root: pathlib.Path,
    prefix: str,
    runs: str,
    arguments: t.Dict[str, t.Any],
    check: bool,
    expected: t.Optional[t.Tuple[t.Optional[str], str]],
) -> None:
    scopes(services=["puma"])
    running(root, f"{prefix}/{runs}/lib/libjemalloc.so.2")
    wanted: t.List[t.Dict[str, t.Any]] = []
    if expected:
        name = "puma.service"
        wanted = [{"name": name, "version": expected[0], "uid": None, "unit": name, "reason": expected[1], "along": []}]
    found = scopes(_check=check, **arguments)["restarts"]
    assert [{key: value for key, value in each.items() if key not in ("before", "written")} for each in found] == wanted


OWN = "etc/systemd/system/{}.d/zz-preload-jemalloc.conf"


def test_what_a_service_wants_of_its_own(scopes: Call, root: pathlib.Path, prefix: str) -> None:
    wanted = {"name": "sidekiq@", "version": "9.9.8", "malloc_conf": {"narenas": 2, "prof_prefix": "/tmp/%p"}}
    services = ["puma", wanted, "own.timer", "own.socket", {"name": "missing", "must_exist": False}]
    found = scopes(services=services)
    names = ["puma.service", "sidekiq@.service", "cleanup.service", "own@.service", "missing.service"]
    assert sorted(found["files"][1:-2]) == sorted(str(root / OWN.format(name)) for name in names)
    text = (root / OWN.format("sidekiq@.service")).read_text().splitlines()
    assert text[2:] == [
        f'Environment="LD_PRELOAD={prefix}/9.9.8/lib/libjemalloc.so"',
        'Environment="MALLOC_CONF=narenas:2,prof_prefix:/tmp/%%p"',
    ]
    assert not scopes(services=services)["changed"]


def test_arenas_for_the_cpus_of_a_service(scopes: Call, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "_CPU_MAX", "missing")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)))
    unit = root / "usr/lib/systemd/user/agent.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nCPUQuota=500%\nCPUQuota=150%\nAllowedCPUs=0-3\n")
    expected = {"puma": 64, "limited": 12, "limited@": 12, "agent": 8}
    services = [{"name": name, "malloc_conf": {"narenas": "auto"}} for name in expected]
    services[-1]["scope"] = "user"
    diffs = [scopes(_check=check, services=services)["diff"] for check in (True, False)]
    assert diffs[0] == diffs[1]
    for name, arenas in expected.items():
        path = root / OWN.format(f"{name}.service").replace("/system/", "/user/" if name == "agent" else "/system/")
        assert path.read_text().splitlines()[-1] == f'Environment="MALLOC_CONF=narenas:{arenas}"'
    assert not scopes(services=services)["changed"]


@pytest.fixture
def asked(program: t.Callable[[str, str], pathlib.Path]) -> t.Callable[[], t.List[str]]:
    """Return each MALLOC_CONF with which a program was run; one with retain in it makes the library complain."""
    words = '"<jemalloc>: Invalid conf pair: retain:true"'
    log = program("timeout", f'case "$*" in *retain*) echo {words} >&2 ;; *) exec /usr/bin/timeout "$@" ;; esac\n')
    return lambda: re.findall(r"MALLOC_CONF=(\S+)", log.read_text())


def test_the_library_is_asked_once(scopes: Call, asked: t.Callable[[], t.List[str]]) -> None:
    same = {"malloc_conf": {"preset": "low_memory", "narenas": 2}}
    conf = "narenas:2,lg_tcache_max:10,dirty_decay_ms:1000,muzzy_decay_ms:0"
    services: t.List[t.Any] = ["puma", {"name": "sidekiq", **same}, {"name": "app", **same}]
    scopes(_check=True, services=services)
    assert asked() == []
    scopes(services=services)
    assert asked() == [conf]
    scopes(services=services)
    assert not scopes(services=services)["changed"]
    scopes(services=[*services, {"name": "cron", "malloc_conf": {"stats_print": True}}])
    assert asked() == [conf, "stats_print:false"]


def test_what_the_library_does_not_take(
    scopes: Call, root: pathlib.Path, snapshot: Snapshot, asked: t.Callable[[], t.List[str]]
) -> None:
    before = snapshot(root)
    message = scopes(services=[{"name": "puma", "malloc_conf": {"retain": True}}])["msg"]
    assert message == (
        "services: puma.service: jemalloc 9.9.9 on this host does not take its malloc_conf, retain:true: <jemalloc>: "
        "Invalid conf pair: retain:true; nothing was changed."
    )
    assert asked() == ["retain:true"]
    assert snapshot(root) == before


def test_units_of_users(scopes: Call, root: pathlib.Path, systemctl: t.Any) -> None:
    unit = root / "usr/lib/systemd/user/agent.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nEnvironment=LD_PRELOAD=/a.so\nEnvironmentFile=-/missing\n")
    path = root / "etc/systemd/user/agent.service.d/zz-preload-jemalloc.conf"
    found = scopes(services=[{"name": "agent", "scope": "user"}])
    assert str(path) in found["files"]
    assert "libjemalloc.so:/a.so" in path.read_text()
    assert "daemon-reload" in systemctl[0].read_text()
    message = scopes(services=[{"name": "missing", "scope": "user"}])["msg"]
    assert message.startswith(f"services: there is no user unit missing.service in {root}/etc/systemd/user, ")
    scopes(state="absent")
    assert not path.parent.exists()


def test_exclude(scopes: Call, root: pathlib.Path, program: t.Callable[[str, str], pathlib.Path]) -> None:
    tool = program("tool", "").with_suffix("")
    (root / "lib" / "cron.service").write_text("[Service]\nEnvironment=LD_PRELOAD=/a.so\n")
    found = scopes(host=True, exclude=["php-fpm", "cron", "tool"])
    assert found["restarts"] == []
    assert (root / OWN.format("php-fpm.service")).read_text().splitlines()[2:] == ["UnsetEnvironment=LD_PRELOAD"]
    assert (root / OWN.format("cron.service")).read_text().splitlines()[2:] == ['Environment="LD_PRELOAD=/a.so"']
    script = root / "usr/local/bin/tool"
    assert script.read_text().splitlines()[-1] == f'exec {root}/usr/local/bin/no-jemalloc.sh {tool} "$@"'
    assert script.stat().st_mode & 0o777 == 0o755
    assert not scopes(host=True, exclude=["php-fpm", "cron", "tool"])["changed"]
    assert not scopes(host=True)["changed"]
    assert str(script) in scopes(host=True, exclude=[])["files"]
    assert not script.exists()


def test_a_host_without_systemd_is_told_what_does_not_apply(
    scopes: Call, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    warnings: t.List[str] = []
    monkeypatch.setattr(host.Host, "warn", lambda _self, message: warnings.append(message))
    (root / "run/systemd/system").rmdir()
    assert scopes(host=True)["changed"]
    assert len(warnings) == 1
    assert warnings[0].startswith("systemd is not the init of this host: logins, ssh and cron preload the library ")
    assert f"by LD_PRELOAD={prefix}/current/lib/libjemalloc.so in what it gives them, or /etc/ld.so.prel" in warnings[0]
    assert not scopes(host=True, exclude=["puma"])["changed"]  # a host without it has nothing to exclude


def test_check_mode_of_the_first_run(scopes: Call, tmp_path: pathlib.Path, root: pathlib.Path) -> None:
    arguments = {"prefix": f"{tmp_path}/new", "version": "9.9.9", "services": ["puma"]}
    assert scopes(_check=True, **arguments)["changed"]
    assert "cannot be preloaded" in scopes(**arguments)["msg"]


def test_what_a_killed_run_left_is_cleared_and_systemd_reads_its_files(
    scopes: Call, root: pathlib.Path, systemctl: t.Any, tmp_path: pathlib.Path
) -> None:
    scopes(services=["puma"])
    for directory in (root / "etc", (root / PUMA).parent, root / "usr/local/bin"):
        (directory / f".x{files.TEMPORARY_SUFFIX}").write_text("half")
    lock = tmp_path / "preload-jemalloc.lock"
    lock.write_text("left by one that was killed")
    systemctl[0].write_text("")
    scopes(_check=True)
    assert lock.exists()
    assert not scopes(services=["puma"])["changed"]
    assert systemctl[0].read_text().splitlines()[0] == "daemon-reload"
    assert lock.read_text() == ""
    assert list(root.rglob(f"*{files.TEMPORARY_SUFFIX}")) == []
    systemctl[0].write_text("")
    scopes(services=["puma"])
    assert "daemon-reload" not in systemctl[0].read_text()


def contents(taken: t.Mapping[str, t.Any], without: str) -> t.Dict[str, t.Any]:
    """Return the modes and contents of a picture's files, but for one of them."""
    return {name: entry[:2] for name, entry in taken.items() if name != without and entry[1] is not None}


@pytest.mark.parametrize("via", ["environment", "ld_so_preload"])
@pytest.mark.parametrize("there", [{}, {"services": ["cron", {"name": "puma", "version": "9.9.8"}]}, {"host": True}])
def test_what_a_run_changed_is_given_back(
    scopes: Call, root: pathlib.Path, snapshot: Snapshot, watched: t.Any, via: str, there: t.Dict[str, t.Any]
) -> None:
    shared = root / "etc" / ("environment" if via == "environment" else "ld.so.preload")
    shared.write_text("# theirs\n")
    scopes(**there)
    before = snapshot(root)
    done = scopes(host=True, via=via, services=["puma"], exclude=["cron"])
    shared.write_text(f"{shared.read_text()}# meanwhile\n")
    predicted = scopes(_check=True, state="restored", restore=done["before"])
    found = scopes(state="restored", restore=done["before"])
    assert found == predicted
    assert sorted(found["files"]) == sorted(done["files"])
    assert contents(snapshot(root), str(shared)) == contents(before, str(shared))
    if via != "environment" or not there.get("host"):
        assert shared.read_text() == "# theirs\n# meanwhile\n"
    assert not scopes(state="restored", restore=done["before"])["changed"]


def test_only_files_of_ours_are_given_back(scopes: Call) -> None:
    for path in ("/etc/passwd", "/etc/systemd/system/puma.service", "/srv/puma.service.d/zz-preload-jemalloc.conf"):
        found = scopes(state="restored", restore={path: "x"})
        assert found["msg"] == f"restore: {path} is not a file of this module; hand on what it returned as before."
