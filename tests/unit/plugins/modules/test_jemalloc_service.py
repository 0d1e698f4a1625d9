# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc_service, run as a whole with a systemctl that is a script and a made-up /proc."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils import _undo as undo
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_service as module

SYSTEMCTL = """
case $1 in
  restart) case $3 in broken*) echo 'Job failed.'; exit 1 ;; esac ;;
  show)
    while [ "$1" != -- ]; do shift; done; shift
    for unit; do
      state=loaded
      case $unit in missing*) state=not-found ;; esac
      printf 'Id=%s\\nNames=%s\\nLoadState=%s\\nActiveState=active\\nFragmentPath=\\nMainPID=100\\n\\n' \\
        "$unit" "$unit" "$state"
    done
esac
"""

Call = t.Callable[..., t.Dict[str, t.Any]]


@pytest.fixture(autouse=True)
def log(
    root: pathlib.Path, monkeypatch: pytest.MonkeyPatch, program: t.Callable[[str, str], pathlib.Path]
) -> pathlib.Path:
    """A systemd whose puma maps 5.3.1, whose cron maps nothing, and whose broken does not start; its calls."""
    for pid, unit, path in ((100, "puma", "/opt/jemalloc/5.3.1/lib/libjemalloc.so.2"), (200, "cron", "/lib/libc.so.6")):
        process = root / "proc" / str(pid)
        process.mkdir(parents=True)
        (process / "cgroup").write_text(f"0::/system.slice/{unit}.service\n")
        (process / "maps").write_text(f"7f00-7f01 r-xp 0 08:01 12   {path}\n")
    monkeypatch.setattr(restarts, "INTERVAL", 0)
    program("journalctl", "echo last words")
    return program("systemctl", SYSTEMCTL)


def service(name: str, version: t.Optional[str] = "5.3.1") -> t.Dict[str, t.Any]:
    """Return an entry as jemalloc_preload returns it."""
    return {"name": name, "version": version, "reason": "3 of its 3 processes do not map jemalloc"}


BOTH = [service("puma.service"), service("cron.service", None)]


def test_restart_and_prove(call: Call, log: pathlib.Path) -> None:
    both = ["puma.service", "cron.service"]
    assert call(module, services=BOTH) == {"changed": True, "proved": both, "processes": dict.fromkeys(both, 1)}
    assert [line for line in log.read_text().splitlines() if line.startswith("restart")] == [
        "restart -- puma.service",
        "restart -- cron.service",
    ]


def test_only_proved(call: Call, log: pathlib.Path) -> None:
    found = call(module, services=[service("cron", "")], state="proved", memory_limit=100)
    assert found == {"changed": False, "proved": ["cron.service"], "processes": {}}
    assert "restart" not in log.read_text()
    # what is as it should be is verified, however soon the time is over
    assert call(module, services=BOTH, state="proved", timeout=0)["proved"] == ["puma.service", "cron.service"]
    found = call(module, services=[service("puma"), service("cron")], state="proved", timeout=0)
    assert (found["failed"], found["changed"], found["proved"]) == (True, False, ["puma.service"])
    assert found["msg"] == "cron.service: its process 200 does not map jemalloc 5.3.1"


def test_check_mode_only_looks(call: Call, log: pathlib.Path) -> None:
    assert call(module, _check=True, services=BOTH) == {"changed": True, "proved": [], "processes": {}}
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["show"]


def test_a_user_whose_systemd_does_not_answer(
    call: Call, log: pathlib.Path, program: t.Callable[[str, str], pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: t.List[str] = []
    monkeypatch.setattr(host.Host, "warn", lambda _self, message: warnings.append(message))
    asked = program("timeout", 'case $2 in 5s) exit 124 ;; *) shift; exec "$@" ;; esac')
    hers = [{**service("own.service"), "uid": 65533}, {**service("other.service"), "uid": 65533}]
    found = call(module, services=[*BOTH, *hers])
    assert (found["changed"], found["proved"]) == (True, ["puma.service", "cron.service"])
    assert [words[:41] for words in warnings] == ["The systemd of user 65533 does not answer"]
    assert call(module, services=hers)["changed"] is False
    assert call(module, services=hers, state="proved", memory_limit=100)["proved"] == []
    assert sum("setpriv" in line for line in asked.read_text().splitlines()) == 3


@pytest.mark.parametrize("check", [True, False])
def test_nobody(call: Call, log: pathlib.Path, check: bool) -> None:
    assert call(module, _check=check, services=[]) == {"changed": False, "proved": [], "processes": {}}
    assert log.read_text() == ""


def test_a_service_that_does_not_start(call: Call, root: pathlib.Path) -> None:
    drop_in = pathlib.Path(places.drop_in_path("broken.service"))
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("x")
    found = call(module, services=[service("puma"), service("broken"), service("cron", "")], timeout=5)
    assert (found["failed"], found["changed"], found["proved"]) == (True, True, ["puma.service", "cron.service"])
    assert found["msg"] == (
        "broken.service: it did not start: Job failed.; it is active, but not verified without the library as before "
        "(it did not start: Job failed.); its journal ends with: last words"
    )
    assert not drop_in.exists()


def test_services_that_do_not_show_the_proof(call: Call) -> None:
    found = call(module, services=[service("puma", None), service("cron")], timeout=0)
    assert (found["failed"], found["changed"], found["proved"]) == (True, True, [])
    assert found["msg"] == (
        "puma.service: its process 100 still maps jemalloc; there is nothing of ours to take back; its journal ends "
        "with: last words | cron.service: its process 200 does not map jemalloc 5.3.1; there is nothing of ours to "
        "take back; its journal ends with: last words"
    )


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"services": [service("missing")]},
            "services: systemd on this host knows no such service: missing; 'systemctl list-unit-files' "
            "lists what it has. One that comes later is named {name: missing, must_exist: false}.",
        ),
        (
            {"services": [service("a/b")]},
            "services: 'a/b' is not the name of a service; write it as in systemctl status NAME.",
        ),
        (
            {"services": BOTH, "prefix": "relative"},
            "prefix: 'relative' cannot hold the store; name an absolute path of letters, digits and ._+@- such as "
            "/opt/jemalloc.",
        ),
    ],
)
def test_errors(call: Call, check: bool, arguments: t.Dict[str, t.Any], message: str) -> None:
    found = call(module, _check=check, **arguments)
    assert (found["failed"], found["msg"], found["proved"]) == (True, message, [])


def test_what_another_run_changed_is_left_alone(call: Call, log: pathlib.Path) -> None:
    # puma's drop-in is as this play left it, cron's is not, and broken's goes while it is proved
    entries = [{**service("puma"), "written": undo.ABSENT}, {**service("cron", ""), "written": "0" * 64}]
    path = places.drop_in_path("cron.service")
    found = call(module, services=entries)
    assert (found["failed"], found["changed"], found["proved"]) == (True, True, ["puma.service"])
    assert found["msg"] == f"cron.service: {path} was changed since by another run, or by hand; left as it is"
    assert [line for line in log.read_text().splitlines() if line.startswith("restart")] == ["restart -- puma.service"]


def test_what_another_run_changes_during_the_proof(
    call: Call, log: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_in = pathlib.Path(places.drop_in_path("puma.service"))
    prove = restarts.restart_and_prove

    def changed(*arguments: t.Any) -> t.Any:
        done = prove(*arguments)
        drop_in.parent.mkdir(parents=True)
        drop_in.write_text("another's")
        return done

    monkeypatch.setattr(restarts, "restart_and_prove", changed)
    found = call(module, services=[{**service("puma"), "written": undo.ABSENT}, service("cron", "")])
    assert (found["failed"], found["proved"]) == (True, ["cron.service"])
    assert found["msg"] == (
        f"puma.service: {drop_in} was changed since by another run, or by hand; left as it is, and restarted with that"
    )
    restarted = [line for line in log.read_text().splitlines() if line.startswith("restart")]
    assert restarted == ["restart -- puma.service", "restart -- cron.service", "restart -- puma.service"]


@pytest.mark.parametrize("check", [True, False])
def test_all_files_of_the_play_have_to_stand(call: Call, root: pathlib.Path, check: bool) -> None:
    path = places.drop_in_path("sleeping.service")
    found = call(module, _check=check, services=[service("cron", "")], written={path: undo.ABSENT})
    assert not found.get("failed")
    found = call(module, _check=check, services=[service("cron", "")], written={path: "0" * 64})
    if not check:
        assert found["msg"] == (f"{path}: changed since by another run, or by hand; left as it is. Run the play again.")
    assert bool(found.get("failed")) != check


def test_without_permission(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: t.Any) -> t.NoReturn:
        raise PermissionError(13, "Permission denied", "/x")

    monkeypatch.setattr(restarts, "restart_and_prove", fail)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert call(module, services=BOTH)["msg"] == "/x: Permission denied; run this as root (become: true)."
