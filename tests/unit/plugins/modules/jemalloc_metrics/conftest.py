# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with an exporter, for jemalloc_metrics; its systemctl is a script that really runs the program."""

from __future__ import annotations

import pathlib
import sys
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _exporter as exporter
from ansible_collections.preload.jemalloc.plugins.module_utils import _timer as timer
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_metrics as module

Call = t.Callable[..., t.Dict[str, t.Any]]
Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Any]]

# Files beside it say what is what: whether the timer is active, the service failed, and what is refused.
SYSTEMCTL = """
cd {state}
verb=$1; shift
[ ! -e refuse-$verb ] || {{ echo "Access denied"; exit 4; }}
case $verb in
  show)
    [ -e active ] && active=active || active=inactive
    [ -e failed ] && result=exit-code || result=success
    printf 'ActiveState=%s\\nNeedDaemonReload=no\\nResult=success\\n\\n' $active
    printf 'ActiveState=inactive\\nNeedDaemonReload=no\\nResult=%s\\n' $result ;;
  restart | start)
    for unit; do
      [ ! -e refuse-$unit ] || {{ echo "Unit $unit is refused."; exit 1; }}
      case $unit in
        *.timer) touch active ;;
        *) [ -e idle ] && exit
           sh -c "$(sed -n 's/^ExecStart=//p' {units}/$unit)" 2>words || {{
             touch failed
             echo "Job for $unit failed because the control process exited with error code."
             echo 'See "systemctl status x" for details.'
             exit 1
           }}
           rm -f failed ;;
      esac
    done ;;
  stop) rm -f active ;;
  reset-failed) rm -f failed ;;
esac
"""


class Lab(t.NamedTuple):
    """Where things are: the root, what systemctl knows, the directory of the exporter, and the log of systemctl."""

    root: pathlib.Path
    state: pathlib.Path
    directory: pathlib.Path
    log: pathlib.Path

    def calls(self) -> t.List[str]:
        """Return what systemctl was called for since the last time."""
        lines = [line.split(" -", 1)[0] for line in self.log.read_text().splitlines()]
        self.log.write_text("")
        return lines

    @property
    def metrics(self) -> pathlib.Path:
        """The file that Prometheus gets."""
        return self.directory / "jemalloc.prom"


@pytest.fixture
def lab(
    root: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    program: t.Callable[[str, str], pathlib.Path],
) -> Lab:
    """A host with systemd and an exporter."""
    for name in ("PROGRAM_DIRECTORY", "PROGRAM", "UNITS", "ENABLED"):
        monkeypatch.setattr(timer, name, f"{root}{getattr(timer, name)}")
    monkeypatch.setattr(exporter, "PYTHON", sys.executable)
    for name in ("etc/systemd/system/timers.target.wants", "usr/local/lib", "var/textfile", "opt"):
        (root / name).mkdir(parents=True)
    state = tmp_path / "state"
    state.mkdir()
    program("journalctl", f"echo Starting; cat {state}/words 2>/dev/null")
    log = program("systemctl", SYSTEMCTL.format(state=state, units=f"{root}/etc/systemd/system"))
    return Lab(root, state, root / "var/textfile", log)


@pytest.fixture
def run(call: Call, lab: Lab) -> Call:
    """Run the module with the paths of the lab."""

    def run_module(**arguments: t.Any) -> t.Dict[str, t.Any]:
        whole = {"directory": str(lab.directory), "prefix": f"{lab.root}/opt/jemalloc", **arguments}
        return call(module, **whole)

    return run_module


def files_of(lab: Lab) -> t.List[str]:
    """Return all files and links below the root."""
    return sorted(f"/{path.relative_to(lab.root)}" for path in lab.root.rglob("*") if not path.is_dir())


FILES = [
    "/usr/local/lib/preload-jemalloc/metrics.pyz",
    "/etc/systemd/system/preload-jemalloc-metrics.service",
    "/etc/systemd/system/preload-jemalloc-metrics.timer",
    "/etc/systemd/system/timers.target.wants/preload-jemalloc-metrics.timer",
]
