# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc_info, run as a whole with a made-up /proc and with the real one."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest
import yaml

from ansible_collections.preload.jemalloc.plugins.module_utils import _info as info
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_info as module
from tests.unit.conftest import Proc

Call = t.Callable[..., t.Dict[str, t.Any]]
Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Any]]

LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6"

#: A process of each kind, with what it is to be taken for; a nested container and another unit's name included.
TABLE: t.Dict[str, t.Tuple[t.Sequence[str], bytes, str]] = {
    "nginx": ([LIBC], b"nginx", "glibc"),
    "mariadb": (["/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", LIBC], b"libjemalloc.so.2", "jemalloc (other)"),
    "redis": ([LIBC], b"<jemalloc>: Unsupported system page size", "jemalloc (built in)"),
    "valkey": (["/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", LIBC], b"", "jemalloc (other)"),
    "postgresql": ([LIBC], b"", "glibc"),
    "node_exporter": ([], b"Go build ID", "static"),
    "ceph": (["/usr/lib/x86_64-linux-gnu/libtcmalloc.so.4", LIBC], b"TCMALLOC_SAMPLE_PARAMETER", "tcmalloc"),
    "mongod": ([LIBC], b"MALLOC: %12d (%7.1f MiB) Bytes in use by application", "tcmalloc"),
    "puma": (["/opt/jemalloc/5.3.1/lib/libjemalloc.so.2", LIBC], b"", "jemalloc 5.3.1"),
    "gunicorn": ([LIBC], b"PYTHONMALLOC mimalloc: warning: ", "glibc"),
    "sidekiq": (["/opt/jemalloc/5.2.1/lib/libjemalloc.so.2 (deleted)", LIBC], b"", "jemalloc 5.2.1"),
    "ping": ([LIBC], b"", "glibc"),
    "alpine": (["/lib/ld-musl-x86_64.so.1"], b"", "musl"),
}


def test_every_process_is_taken_for_what_it_is(call: Call, root: pathlib.Path, proc: Proc) -> None:
    for pid, (name, (paths, program, _label)) in enumerate(TABLE.items()):
        cgroup = f"0::/docker/{'1' * 64}/docker/{'2' * 64}\n" if name == "alpine" else ""
        proc.add(
            pid,
            f"/usr/bin/{name}",
            *paths,
            unit=f"{name}.service",
            cgroup=cgroup,
            program=program,
            secure=name == "ping",
        )
    found = call(module, processes=True)
    labels = {unit["name"].partition(".")[0] or "alpine": unit["allocators"] for unit in found["units"]}
    assert labels == {name: {label: 1} for name, (_paths, _program, label) in TABLE.items()}
    told = {each["unit"].partition(".")[0] or "alpine": each for each in found["processes"]}
    assert [name for name, each in told.items() if each["allocator"]["secure"]] == ["ping"]
    assert [name for name, each in told.items() if each["allocator"]["deleted"]] == ["sidekiq"]
    assert [each["container"] for each in told.values() if each["container"]] == [f"{'1' * 12}/{'2' * 12}"]
    assert found["changed"] is False


@pytest.mark.parametrize("check", [True, False])
def test_nothing_changes(call: Call, root: pathlib.Path, proc: Proc, snapshot: Snapshot, check: bool) -> None:
    proc.add(1, LIBC)
    before = snapshot(root)
    assert call(module, _check=check)["changed"] is False
    assert snapshot(root) == before


def test_what_is_left_out_is_empty(call: Call, root: pathlib.Path, proc: Proc) -> None:
    proc.add(1, LIBC)
    found = call(module, gather=["scopes"], processes=True)
    assert (found["units"], found["processes"], found["installations"]) == ([], [], [])


def test_named_units(call: Call, root: pathlib.Path, proc: Proc) -> None:
    proc.add(1, LIBC)
    proc.add(2, LIBC, unit="cron.service")
    assert [unit["name"] for unit in call(module, units=["puma"])["units"]] == ["puma.service"]
    assert len(call(module, units=[])["units"]) == 2


def test_this_host(call: Call) -> None:
    found = call(module, processes=True)
    assert os.getpid() in [each["pid"] for each in found["processes"]]
    assert found["boot_id"]


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": ["a/b"]}, "units: 'a/b' is not the name of a unit; write it as in systemctl status NAME."),
        (
            {"prefix": "relative"},
            "prefix: 'relative' cannot hold the store; name an absolute path of letters, digits and ._+@- such as "
            "/opt/jemalloc.",
        ),
        (
            {"gather": ["all"]},
            "value of gather must be one or more of: installations, scopes, processes, pss. Got no match for: all",
        ),
    ],
)
def test_errors(call: Call, check: bool, arguments: t.Dict[str, t.Any], message: str) -> None:
    found = call(module, _check=check, **arguments)
    assert (found["failed"], found["msg"]) == (True, message)


def test_without_permission(call: Call, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: t.Any) -> t.NoReturn:
        raise PermissionError(13, "Permission denied", "/x")

    monkeypatch.setattr(store, "read", fail)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert call(module)["msg"] == "/x: Permission denied; run this as root (become: true)."


def test_the_documentation_names_the_results(root: pathlib.Path, proc: Proc) -> None:
    proc.add(1, LIBC)
    documented = yaml.safe_load(module.RETURN)
    found = info.gather("/opt/jemalloc", listed=True)
    assert set(documented) == set(found)
    for key in ("units", "processes"):
        assert set(documented[key]["contains"]) == set(found[key][0])
