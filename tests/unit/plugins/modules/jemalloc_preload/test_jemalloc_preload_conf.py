# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of jemalloc for the whole host, as a text too, and more variables for a service."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _pending as pending
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from tests.unit.plugins.modules.jemalloc_preload.test_jemalloc_preload import running

Call = t.Callable[..., t.Dict[str, t.Any]]

MANAGER = "etc/systemd/system.conf.d/zz-preload-jemalloc.conf"
DROP_IN = "etc/systemd/system/puma.service.d/zz-preload-jemalloc.conf"


@pytest.mark.parametrize("conf", ["narenas:2,background_thread:true", {"narenas": 2, "background_thread": True}])
def test_the_whole_host(scopes: Call, root: pathlib.Path, prefix: str, conf: t.Any) -> None:
    (root / "etc/environment").write_text("A=1")
    wanted = {"host": True, "malloc_conf": conf}
    if isinstance(conf, dict):
        scopes(host=True)
    diffs = [scopes(_check=check, **wanted)["diff"] for check in (True, False)]
    assert diffs[0] == diffs[1]
    library = f"{prefix}/current/lib/libjemalloc.so"
    assert (root / MANAGER).read_text().splitlines()[2:] == [
        f'DefaultEnvironment="LD_PRELOAD={library}"',
        'DefaultEnvironment="MALLOC_CONF=narenas:2,background_thread:true"',
    ]
    part = (root / "etc/environment").read_text().splitlines()
    assert part[2:] == [
        f"LD_PRELOAD={library}",
        "MALLOC_CONF=narenas:2,background_thread:true",
        "# END preload.jemalloc",
    ]
    assert not scopes(**wanted)["changed"]
    assert scopes(services=["puma"])["changed"]  # not said is left as it is
    assert (root / "etc/environment").read_text().splitlines() == part
    gone = scopes(host=False)
    assert (root / "etc/environment").read_text() == "A=1"
    scopes(state="restored", restore=gone["before"], written=gone["written"])
    assert (root / "etc/environment").read_text().splitlines() == part
    scopes(host=True)
    assert "MALLOC_CONF" not in (root / "etc/environment").read_text() + (root / MANAGER).read_text()
    assert scopes(host=False, malloc_conf=conf)["changed"]


@pytest.mark.parametrize("conf", ["narenas:2", {"narenas": 2}])
def test_a_service(scopes: Call, root: pathlib.Path, prefix: str, conf: t.Any) -> None:
    given = {"MALLOC_ARENA_MAX": 2, "PYTHONMALLOC": "malloc", "A": 'say "%h"', "DEBUG": True}
    services = [{"name": "puma", "malloc_conf": conf, "environment": given}]
    scopes(services=services)
    assert (root / DROP_IN).read_text().splitlines()[2:] == [
        f'Environment="LD_PRELOAD={prefix}/current/lib/libjemalloc.so"',
        'Environment="MALLOC_CONF=narenas:2"',
        'Environment="MALLOC_ARENA_MAX=2"',
        'Environment="PYTHONMALLOC=malloc"',
        'Environment="A=say \\"%%h\\""',
        'Environment="DEBUG=true"',
    ]
    assert not scopes(services=services)["changed"]


def test_check_mode_predicts_the_restart_for_variables(scopes: Call, root: pathlib.Path, prefix: str) -> None:
    scopes(host=True)
    running(root, f"{prefix}/9.9.9/lib/libjemalloc.so.2")
    (root / "proc/100/environ").write_bytes(b"A=1\0")
    ticks = os.sysconf("SC_CLK_TCK")
    (root / "proc/100/stat").write_text(f"100 (puma) S {' '.join(['1'] * 18)} {ticks} 0 0")
    assert scopes(_check=True, host=True, services=["puma"])["restarts"] == []
    wanted = {"host": True, "services": [{"name": "puma", "malloc_conf": "narenas:2"}]}
    predicted = scopes(_check=True, **wanted)["restarts"]
    done = scopes(**wanted)["restarts"]
    reasons = [[(each["name"], each["reason"]) for each in found] for found in (predicted, done)]
    assert reasons == [[("puma.service", "it runs since before its drop-in was written")]] * 2


@pytest.mark.parametrize(
    ("lines", "environ", "age", "older"),
    [
        ('Environment="MALLOC_CONF=narenas:2"', b"MALLOC_CONF=narenas:4\0", 60, True),
        ('Environment="MALLOC_CONF=narenas:2"', b"", 60, True),
        ('Environment="MALLOC_CONF=narenas:2"', b"A=1\0MALLOC_CONF=narenas:2\0", 60, False),
        ('Environment="MALLOC_CONF=a:%%p"\nEnvironment="B=2"', b"B=2\0MALLOC_CONF=a:%p\0", 60, False),
        ('Environment="MALLOC_CONF=narenas:2"', b"MALLOC_CONF=narenas:4\0", -60, False),
        ("", b"", 60, False),
    ],
)
def test_what_runs_since_before(tmp_path: pathlib.Path, lines: str, environ: bytes, age: int, older: bool) -> None:
    text = f'[Service]\nEnvironment="LD_PRELOAD=/x.so"\n{lines}\n'
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "environ").write_bytes(environ)
    ticks = os.sysconf("SC_CLK_TCK") * 100
    (tmp_path / "7" / "stat").write_text(f"7 (a b) S {' '.join(['1'] * 18)} {ticks} 0 0")
    written = processes.started(7, str(tmp_path)) + age
    for pids in ([7], [7, 8]):  # 8 has ended
        assert pending.is_older(text, written, pids, str(tmp_path)) is older
    assert pending.is_older(text, written, [8], str(tmp_path)) is False


def test_a_process_that_ended(tmp_path: pathlib.Path) -> None:
    assert (processes.started(7, str(tmp_path)), processes.variables(7, str(tmp_path))) == (0, {})
