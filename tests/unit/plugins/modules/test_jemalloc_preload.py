# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc_preload, run as a whole below another root, with a systemctl that is a script."""

from __future__ import annotations

import json
import os
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.action import jemalloc_preload as action
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host
from ansible_collections.preload.jemalloc.plugins.module_utils import _preload as preload
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_preload as module

SYSTEMCTL = """
[ "$1" = show ] || exit "$(cat @STATUS@)"
while [ "$1" != -- ]; do shift; done; shift
for unit; do
  state=loaded
  case $unit in missing*) state=not-found ;; esac
  printf 'Id=%s\\nLoadState=%s\\nActiveState=active\\n' "$unit" "$state"
  printf 'FragmentPath=@UNITS@/%s\\nDropInPaths=\\nEnvironmentFiles=\\n\\n' "$unit"
done
"""

Call = t.Callable[..., t.Dict[str, t.Any]]
Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Any]]


@pytest.fixture
def prefix(tmp_path: pathlib.Path, installed: t.Callable[..., None]) -> str:
    """A store with 9.9.8 and, current, 9.9.9."""
    for version in ("9.9.8", "9.9.9"):
        installed(str(tmp_path / "store"), version)
        store.switch(str(tmp_path / "store"), version)
    return str(tmp_path / "store")


@pytest.fixture
def systemctl(
    root: pathlib.Path, tmp_path: pathlib.Path, program: t.Callable[[str, str], pathlib.Path]
) -> t.Tuple[pathlib.Path, pathlib.Path]:
    """A systemctl; the file that gets its calls and the one that says how daemon-reload ends."""
    (root / "lib").mkdir()
    (tmp_path / "status").write_text("0")
    script = SYSTEMCTL.replace("@UNITS@", str(root / "lib")).replace("@STATUS@", str(tmp_path / "status"))
    return program("systemctl", script), tmp_path / "status"


@pytest.fixture
def scopes(call: Call, prefix: str, systemctl: t.Any) -> Call:
    """Run the module as its action does."""

    def run(_check: bool = False, **arguments: t.Any) -> t.Dict[str, t.Any]:
        texts = action.render(prefix, host=bool(arguments.get("host")))
        return call(module, _check=_check, **{"prefix": prefix, "texts": texts, **arguments})

    return run


UNIT = "etc/systemd/system/{}.service.d/zz-preload-jemalloc.conf"
MANAGER = "etc/systemd/system.conf.d/zz-preload-jemalloc.conf"
COMMON = ["etc/profile.d/jemalloc.sh", "usr/local/bin/jemalloc.sh"]
PUMA, CRON = UNIT.format("puma"), UNIT.format("cron")

#: What is there before; what is wanted; the files that change.
SCENARIOS: t.List[t.Tuple[t.Optional[t.Dict[str, t.Any]], t.Dict[str, t.Any], t.List[str]]] = [
    (None, {}, COMMON),
    (None, {"services": ["puma"]}, [COMMON[0], PUMA, COMMON[1]]),
    (None, {"services": ["puma", "puma.service", "cron"]}, [COMMON[0], PUMA, CRON, COMMON[1]]),
    (None, {"host": True}, [MANAGER, "etc/environment", *COMMON]),
    (None, {"host": True, "services": ["puma"]}, [MANAGER, "etc/environment", COMMON[0], PUMA, COMMON[1]]),
    (None, {"state": "absent"}, []),
    ({"services": ["puma"]}, {"services": ["cron"]}, [PUMA, CRON]),
    ({"services": ["puma"]}, {"host": True}, [PUMA, MANAGER, "etc/environment", COMMON[0]]),
    ({"host": True}, {}, [MANAGER, "etc/environment", COMMON[0]]),
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
        assert part["before"] == (content if isinstance(content, str) else content.decode())
        assert part["after"] == (os.readlink(str(path)) if path.is_symlink() else files.read_text(str(path)) or "")
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
    receipt.write_text(json.dumps({"files": tree}))
    before = snapshot(root)
    message = scopes(host=True)["msg"]
    start = (
        f"The library {prefix}/current/lib/libjemalloc.so is not fit for this host, /bin/true fails with it preloaded ("
    )
    assert message.startswith(start)
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
    assert found["files"] == [f"{root}/etc/profile.d/jemalloc.sh"]


def running(root: pathlib.Path, maps: str) -> None:
    """Let puma run with this in its memory."""
    process = root / "proc" / "100"
    process.mkdir(parents=True)
    (process / "cgroup").write_text("0::/system.slice/puma.service\n")
    (process / "maps").write_text(f"7f00-7f01 r-xp 0 08:01 12   {maps}\n")


@pytest.mark.parametrize(
    ("runs", "arguments", "check", "expected"),
    [
        ("9.9.9", {"services": ["puma"]}, False, None),
        ("9.9.8", {"services": ["puma"]}, False, ("9.9.9", "do not map jemalloc 9.9.9")),
        ("9.9.9", {"services": ["puma"], "version": "9.9.10"}, True, ("9.9.10", "do not map jemalloc 9.9.10")),
        ("9.9.9", {"services": ["puma"], "version": "9.9.10"}, False, None),
        ("9.9.9", {"services": ["puma"], "rebuilt": "9.9.9"}, True, ("9.9.9", "do not map jemalloc 9.9.9")),
        ("9.9.9", {"services": ["puma"], "rebuilt": "9.9.9"}, False, None),
        ("9.9.9", {}, False, (None, "still map jemalloc")),
        ("9.9.9", {"state": "absent"}, False, (None, "still map jemalloc")),
        ("9.9.8", {"host": True}, False, ("9.9.9", "do not map jemalloc 9.9.9")),
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
    wanted = []
    if expected:
        reason = f"1 of its 1 processes {expected[1]}"
        wanted = [{"name": "puma.service", "version": expected[0], "reason": reason}]
    assert scopes(_check=check, **arguments)["restarts"] == wanted


def test_errors(
    call: Call, scopes: Call, root: pathlib.Path, tmp_path: pathlib.Path, snapshot: Snapshot, prefix: str
) -> None:
    install_first = "run preload.jemalloc.jemalloc with this prefix first."
    cases: t.List[t.Tuple[t.Dict[str, t.Any], str]] = [
        (
            {"services": ["puma", "missing"]},
            "services: systemd on this host knows no such service: missing; 'systemctl list-unit-files' "
            "lists what it has.",
        ),
        (
            {"services": ["a b"]},
            "services: 'a b' is not the name of a service; write it as in systemctl status NAME.",
        ),
        (
            {"prefix": f"{tmp_path}/other"},
            f"{tmp_path}/other/current cannot be preloaded: no release is installed there; {install_first}",
        ),
        (
            {"prefix": "/a b"},
            "prefix: '/a b' cannot hold the store; name an absolute path of letters, digits and ._+@- such as "
            "/opt/jemalloc.",
        ),
        (
            {"texts": None},
            "texts: nothing was rendered; call this module by its full name, so that its action runs.",
        ),
    ]
    before = snapshot(root)
    for arguments, message in cases:
        for check in (True, False):
            found = scopes(_check=check, **arguments)
            assert (found["msg"], found["failed"], found["files"]) == (message, True, [])
    pathlib.Path(prefix, "9.9.9", "lib", "libjemalloc.so.2").write_text("x")
    assert scopes()["msg"] == (
        f"{prefix}/current cannot be preloaded: lib/libjemalloc.so.2 is not what its receipt says; {install_first}"
    )
    assert snapshot(root) == before


def test_check_mode_of_the_first_run(scopes: Call, tmp_path: pathlib.Path, root: pathlib.Path) -> None:
    arguments = {"prefix": f"{tmp_path}/new", "version": "9.9.9", "services": ["puma"]}
    assert scopes(_check=True, **arguments)["changed"]
    assert "cannot be preloaded" in scopes(**arguments)["msg"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied; run this as root (become: true)."),
        (OSError(28, "No space left on device", "/x"), "/x: No space left on device; all files are as before."),
    ],
)
def test_errors_of_the_system(scopes: Call, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str) -> None:
    def fail(_changes: t.Any) -> t.NoReturn:
        raise error

    monkeypatch.setattr(preload, "apply", fail)
    assert scopes()["msg"] == message


def test_the_documentation_names_the_arguments() -> None:
    for name in module.ARGUMENTS:
        assert f"\n  {name}:\n" in module.DOCUMENTATION
