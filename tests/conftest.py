# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What several kinds of tests share: running commands, a release that builds in no time, and calling a module."""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import sys
import tarfile
import types
import typing as t
from pathlib import Path

import hypothesis
import pytest
from ansible.module_utils.testing import patch_module_args
from xdist.scheduler import LoadScopeScheduling

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_files as container_files
from ansible_collections.preload.jemalloc.plugins.module_utils import _download as download
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host
from ansible_collections.preload.jemalloc.plugins.module_utils import _info as info
from ansible_collections.preload.jemalloc.plugins.module_utils import _install as install_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _pending as pending
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _preflight as preflight
from ansible_collections.preload.jemalloc.plugins.module_utils import _processes as processes
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _strays as strays
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from tests.checkout import ROOT

Run = t.Callable[..., str]

#: The kinds of tests that take longest; they begin first.
LONG = ("scenarios", "fleet", "faults", "checks")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of faults and of old releases run in full: make faults."""
    parser.addoption("--full", action="store_true", help="try everything, not the part that fits into make test")


def pytest_configure(config: pytest.Config) -> None:
    """Know the tests that only run in full, and let none fail for how long an example takes on a busy machine."""
    slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("default", deadline=None, suppress_health_check=slow)
    hypothesis.settings.load_profile("default")
    config.addinivalue_line("markers", "full: what is tried with --full only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests that only run in full to make faults; the kinds that take longest begin."""
    if not config.getoption("full"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("full")])
        items[:] = [item for item in items if not item.get_closest_marker("full")]
    kinds = [*LONG, "", "unit"]
    items.sort(key=lambda item: kinds.index(kind if (kind := kind_of(item.nodeid)) in kinds else ""))


def kind_of(nodeid: str) -> str:
    """Return the kind of a test, by its directory."""
    return nodeid.split("/")[1]


class ByKind(LoadScopeScheduling):
    """Gives all tests of a kind to the same process, as they share hosts; those of units by their files."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.split("::")[0] if kind_of(nodeid) == "unit" else kind_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: t.Any) -> ByKind:
    """Choose how tests are given to several processes."""
    return ByKind(config, log)


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of the tools: our virtual environment first, no shims of pyenv, podman's settings."""
    inherited = [part for part in os.environ["PATH"].split(":") if not part.endswith("/shims")]
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTEST_"))},
        "PATH": ":".join([str(Path(sys.executable).parent), *inherited]),
        "CONTAINERS_CONF": str(ROOT / ".ci" / "containers.conf"),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_NOCOLOR": "1",
        "PY_COLORS": "0",
    }


@pytest.fixture(scope="session")
def run(environment: dict[str, str]) -> Run:
    """Run a command and return what it printed; when it fails the test fails and shows that."""

    def run_command(*command: str, cwd: Path = ROOT, check: bool = True, **more: str) -> str:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**environment, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-20000:]}", pytrace=False)
        return done.stdout

    return run_command


_C = 'const char jemalloc_version[] = "%s-0-g0123abc";\n'

# Where the release is 6.6.6 it does not compile, a 7.7.7 does not let a process start, and an 8.8.8 takes its time.
_CONFIGURE = r"""#!/bin/sh
for argument; do
  case $argument in --prefix=*) prefix=${argument#--prefix=} ;; CC=*) cc=${argument#CC=} ;; esac
done
version=$(cut -d- -f1 VERSION)
printf 'const char jemalloc_version[] = "%s";\n' "$(cat VERSION)" > src/version.c
case $version in
  8.8.8) sleep 10 ;;
  6.6.6) echo 'no C at all' > src/version.c ;;
  7.7.7) echo 'void _exit(int); __attribute__((constructor)) void start(void) { _exit(3); }' >> src/version.c ;;
esac
sed "s|@prefix@|$prefix|; s|@cc@|${cc-gcc}|" Makefile.in > Makefile
"""

_MAKEFILE = """prefix = @prefix@
libjemalloc.so.2:
\t@cc@ -shared -fPIC -O0 -Wl,-soname,libjemalloc.so.2 -o libjemalloc.so.2 src/version.c
install_bin:
\tmkdir -p $(DESTDIR)$(prefix)/bin
\techo upstream > $(DESTDIR)$(prefix)/bin/jemalloc.sh
\tcp configure $(DESTDIR)$(prefix)/bin/jemalloc-config
install_lib_shared: libjemalloc.so.2
\tmkdir -p $(DESTDIR)$(prefix)/lib
\tcp libjemalloc.so.2 $(DESTDIR)$(prefix)/lib/
\tln -s libjemalloc.so.2 $(DESTDIR)$(prefix)/lib/libjemalloc.so
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared library that does nothing and says that it is jemalloc 9.9.9."""
    directory = tmp_path_factory.mktemp("library")
    (directory / "version.c").write_text(_C % "9.9.9")
    path = directory / "libjemalloc.so.2"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O0", "-o", str(path), str(directory / "version.c")], check=True)
    return path


@pytest.fixture(scope="session")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> t.Callable[[str], t.Tuple[str, str]]:
    """Make the source of a release that builds in no time; return its path and its checksum."""
    directory = tmp_path_factory.mktemp("origin")

    def make(version: str) -> t.Tuple[str, str]:
        path = directory / f"jemalloc-{version}.tar.bz2"
        members = {"configure": _CONFIGURE, "Makefile.in": _MAKEFILE, "src/jemalloc.c": "", "VERSION": ""}
        if not path.exists():
            with tarfile.open(str(path), "w:bz2") as tar:
                for name, text in members.items():
                    member = tarfile.TarInfo(f"jemalloc-{version}/{name}")
                    member.size, member.mode = len(text), 0o755 if name == "configure" else 0o644
                    tar.addfile(member, io.BytesIO(text.encode("ascii")))
        return str(path), f"sha256:{files.sha256(str(path))}"

    return make


@pytest.fixture
def installed(library: Path) -> t.Callable[..., None]:
    """Put an installation into a store without a build."""

    def install(prefix: str, version: str, **receipt: t.Any) -> None:
        with publish.locked(prefix):
            tree = Path(publish.stage(prefix), "tree")
            (tree / "lib").mkdir(parents=True)
            (tree / "lib" / "libjemalloc.so.2").write_bytes(library.read_bytes())
            whole = {
                "library": "libjemalloc.so.2",
                "options": {"cxx": False, "prof": False, "lg_page": None},
                "release": version,
                "source": {"sha256": "0" * 64},
                **receipt,
            }
            publish.complete(str(tree), prefix, whole)
            publish.publish(prefix, str(tree), version, publish.Undo())

    return install


@pytest.fixture
def snapshot() -> t.Callable[[Path], t.Dict[str, t.Tuple[int, t.Any, float]]]:
    """Return everything below a directory: names, modes, contents, times."""

    def take(top: Path) -> t.Dict[str, t.Tuple[int, t.Any, float]]:
        found: t.Dict[str, t.Tuple[int, t.Any, float]] = {}
        for path in sorted([top, *top.rglob("*")]):
            status = path.lstat()
            content = os.readlink(str(path)) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            found[str(path)] = status.st_mode, content, status.st_mtime
        return found

    return take


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that stands for / wherever the code would read or write below /etc, /usr, /run and /proc."""
    top = tmp_path / "root"
    (top / "run/systemd/system").mkdir(parents=True)
    (top / "etc").mkdir()
    (top / "proc").mkdir()
    names = ("_UNITS", "_USER_UNITS", "_MANAGER", "_ENVIRONMENT", "_PROFILE", "_COMMANDS")
    for name in (*names, "_LD_SO_PRELOAD", "_LD_SO_PRELOAD_WITHOUT"):
        monkeypatch.setattr(places, name, f"{top}/{getattr(places, name)}")
    monkeypatch.setattr(container_files, "DIRECTORIES", tuple(f"{top}/{each}" for each in container_files.DIRECTORIES))
    for name in ("RECORDS", "_OURS"):
        monkeypatch.setattr(container_files, name, f"{top}/{getattr(container_files, name)}")
    for name in ("_MANAGER_FILES", "_MANAGER_DIRECTORIES", "_USER_DIRECTORIES", "_SYSTEM_DIRECTORIES"):
        monkeypatch.setattr(systemd, name, tuple(f"{top}/{path}" for path in getattr(systemd, name)))
    monkeypatch.setattr(changes, "LOCK", f"{tmp_path}/preload-jemalloc.lock")
    monkeypatch.setattr(preflight, "_NOBODY", os.geteuid())  # the directories of pytest let nobody else in
    service = tmp_path / "root-programs" / "systemd-run"  # there is no systemd to ask for one
    service.parent.mkdir()
    service.write_text('#!/bin/sh\nfor word; do case $word in -*) shift ;; *) break ;; esac; done\nexec "$@"\n')
    service.chmod(0o755)
    monkeypatch.setenv("PATH", f"{service.parent}:{os.environ['PATH']}")
    readers = (pending.running, restarts.releases_before, restarts.prove, restarts.prove_health)
    for function in (*readers, processes.count_with, info.gather, strays.find):
        defaults = [str(top / "proc") if value == "/proc" else value for value in function.__defaults__ or ()]
        monkeypatch.setattr(function, "__defaults__", tuple(defaults))
    monkeypatch.setattr(store, "BUILD_PREFIX", f"{top}{store.BUILD_PREFIX}")
    is_running = systemd.is_running
    monkeypatch.setattr(systemd, "is_running", lambda root="/": is_running(str(top) if root == "/" else root))
    return top


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a module in this process off the network, this machine's archives and its logs, and do not let it wait."""
    monkeypatch.setattr(host, "_APT_HELPER", str(tmp_path / "missing"))
    monkeypatch.setattr(catalogue, "UPSTREAM_URL", "http://127.0.0.1:1/jemalloc-{version}.tar.bz2")
    monkeypatch.setattr(install_util, "LOGS", (str(tmp_path),))
    monkeypatch.setattr(download, "PAUSES", (0, 0))
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., t.Dict[str, t.Any]]:
    """Run a module in this process and return its result; with _check in check mode, without _diff not in diff mode."""

    def run(
        module: types.ModuleType, _check: bool = False, _diff: bool = True, **arguments: t.Any
    ) -> t.Dict[str, t.Any]:
        # AnsibleModule fills defaults into the specification itself; a real module has a process of its own.
        whole = {**arguments, "_ansible_check_mode": _check, "_ansible_diff": _diff}
        with monkeypatch.context() as patch, patch_module_args(whole):
            patch.setattr(module, "ARGUMENTS", copy.deepcopy(module.ARGUMENTS))
            with pytest.raises(SystemExit):
                module.main()
        result: t.Dict[str, t.Any] = json.loads(capsys.readouterr().out)
        result.pop("invocation", None)
        return result

    return run
