# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the module jemalloc_preload share: a store, and a systemctl that is a script."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.module_utils import _watchdog as watchdog
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_preload as module
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _rendering as rendering

SYSTEMCTL = """
[ "$1" = show ] || exit "$(cat @STATUS@)"
while [ "$1" != -- ]; do shift; done; shift
for unit; do
  state=loaded
  case $unit in missing*|no-command*|tool*) state=not-found ;; esac
  printf 'Id=%s\\nNames=%s\\nLoadState=%s\\nActiveState=active\\n' "$unit" "$unit" "$state"
  case $unit in
    own.timer) printf 'Triggers=cleanup.service\\nAccept=no\\n\\n'; continue ;;
    own.socket) printf 'Triggers=own@9.service\\nAccept=yes\\n\\n'; continue ;;
    hidden*) printf 'RootDirectory=/srv/root\\n' ;;
    limited*) printf 'CPUQuotaPerSecUSec=2.500000s\\nAllowedCPUs=0-7\\n' ;;
  esac
  printf 'FragmentPath=@UNITS@/%s\\nDropInPaths=\\nEnvironmentFiles=\\n\\n' "$unit"
done
"""
Call = t.Callable[..., t.Dict[str, t.Any]]


@pytest.fixture
def prefix(tmp_path: pathlib.Path, installed: t.Callable[..., None]) -> str:
    """A store with 9.9.8, which was built for profiling, and, current, 9.9.9."""
    for version in ("9.9.8", "9.9.9"):
        options = {"cxx": False, "prof": version == "9.9.8", "lg_page": None}
        installed(str(tmp_path / "store"), version, options=options)
        publish.switch(str(tmp_path / "store"), version, publish.Undo())
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
        texts = rendering.render(prefix)
        return call(module, _check=_check, **{"prefix": prefix, "texts": texts, **arguments})

    return run


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> t.List[t.Tuple[str, str]]:
    """What the watchdog is asked to write, which it does and finds good unless the text asks for another verdict."""
    asked: t.List[t.Tuple[str, str]] = []

    def activate(change: changes.Change, _library: str, _systemd: bool, lock: changes.Lock) -> str:
        assert lock.is_held()
        assert change.after
        asked.append((change.path, change.after))
        if "bad" in change.after:
            return "a shell: exit status 1"
        if "late" in change.after:
            return f"The watchdog was not ready within 30 s, so {watchdog.AS_BEFORE}"
        files.write_file(change.path, change.after.encode())
        return ""

    monkeypatch.setattr(watchdog, "activate", activate)
    return asked
