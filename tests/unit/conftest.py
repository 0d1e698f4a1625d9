# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the unit tests share: a library, a source that builds in no time, a fake host, and how a module is called."""

from __future__ import annotations

import copy
import io
import json
import os
import pathlib
import subprocess
import tarfile
import types
import typing as t

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.preload.jemalloc.plugins.module_utils import _download as download
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _install as install_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _preload as preload
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd

_C = 'const char jemalloc_version[] = "%s-0-g0123abc";\n'

# Where the release is 6.6.6 it does not compile, and a 7.7.7 does not let a process start.
_CONFIGURE = r"""#!/bin/sh
for argument; do
  case $argument in --prefix=*) prefix=${argument#--prefix=} ;; esac
done
version=$(cut -d- -f1 VERSION)
printf 'const char jemalloc_version[] = "%s";\n' "$(cat VERSION)" > src/version.c
case $version in
  6.6.6) echo 'no C at all' > src/version.c ;;
  7.7.7) echo 'void _exit(int); __attribute__((constructor)) void start(void) { _exit(3); }' >> src/version.c ;;
esac
sed "s|@prefix@|$prefix|" Makefile.in > Makefile
"""

_MAKEFILE = """prefix = @prefix@
build_lib_shared:
\tgcc -shared -fPIC -O0 -Wl,-soname,libjemalloc.so.2 -o libjemalloc.so.2 src/version.c
install_bin:
\tmkdir -p $(DESTDIR)$(prefix)/bin
\techo upstream > $(DESTDIR)$(prefix)/bin/jemalloc.sh
\tcp configure $(DESTDIR)$(prefix)/bin/jemalloc-config
install_lib_shared:
\tmkdir -p $(DESTDIR)$(prefix)/lib
\tcp libjemalloc.so.2 $(DESTDIR)$(prefix)/lib/
\tln -s libjemalloc.so.2 $(DESTDIR)$(prefix)/lib/libjemalloc.so
"""


@pytest.fixture(autouse=True)
def _harmless(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep logs of failed builds here, and do not wait before a download is tried again."""
    monkeypatch.setattr(install_util, "LOGS", (str(tmp_path),))
    monkeypatch.setattr(download, "PAUSES", (0, 0))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
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
def installed(library: pathlib.Path) -> t.Callable[..., None]:
    """Put an installation into a store without a build."""

    def install(prefix: str, version: str, **receipt: t.Any) -> None:
        with store.locked(prefix):
            tree = pathlib.Path(store.stage(prefix), "tree")
            (tree / "lib").mkdir(parents=True)
            (tree / "lib" / "libjemalloc.so.2").write_bytes(library.read_bytes())
            whole = {
                "library": "libjemalloc.so.2",
                "options": {"cxx": False, "prof": False, "lg_page": None},
                "release": version,
                "source": {"sha256": "0" * 64},
                **receipt,
            }
            store.complete(str(tree), prefix, whole)
            store.publish(prefix, str(tree), version)

    return install


@pytest.fixture
def snapshot() -> t.Callable[[pathlib.Path], t.Dict[str, t.Tuple[int, t.Any, float]]]:
    """Return everything below a directory: names, modes, contents, times."""

    def take(top: pathlib.Path) -> t.Dict[str, t.Tuple[int, t.Any, float]]:
        found: t.Dict[str, t.Tuple[int, t.Any, float]] = {}
        for path in sorted([top, *top.rglob("*")]):
            status = path.lstat()
            content = os.readlink(str(path)) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            found[str(path)] = status.st_mode, content, status.st_mtime
        return found

    return take


@pytest.fixture
def root(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A directory that stands for / wherever the code would read or write below /etc, /usr, /run and /proc."""
    top = tmp_path / "root"
    (top / "run/systemd/system").mkdir(parents=True)
    (top / "etc").mkdir()
    (top / "proc").mkdir()
    for name in ("_UNITS", "_MANAGER", "_ENVIRONMENT", "_PROFILE", "_COMMAND"):
        monkeypatch.setattr(preload, name, f"{top}/{getattr(preload, name)}")
    for name in ("_MANAGER_FILES", "_MANAGER_DIRECTORIES"):
        monkeypatch.setattr(systemd, name, tuple(f"{top}/{path}" for path in getattr(systemd, name)))
    for function in (restarts.needed, restarts.before, restarts.prove):
        defaults = [str(top / "proc") if value == "/proc" else value for value in function.__defaults__ or ()]
        monkeypatch.setattr(function, "__defaults__", tuple(defaults))
    is_running = systemd.is_running
    monkeypatch.setattr(systemd, "is_running", lambda root="/": is_running(str(top) if root == "/" else root))
    return top


@pytest.fixture
def program(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[[str, str], pathlib.Path]:
    """Put a shell script in front of everything on the PATH; return the file that gets the arguments of its calls."""
    directory = tmp_path / "programs"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    def make(name: str, script: str) -> pathlib.Path:
        path, log = directory / name, directory / f"{name}.log"
        path.write_text(f'#!/bin/sh\necho "$*" >> {log}\n{script}')
        path.chmod(0o755)
        log.write_text("")
        return log

    return make


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., t.Dict[str, t.Any]]:
    """Run a module in this process and return its result; with _check in check mode."""

    def run(module: types.ModuleType, _check: bool = False, **arguments: t.Any) -> t.Dict[str, t.Any]:
        # AnsibleModule fills defaults into the specification itself; a real module has a process of its own.
        whole = {**arguments, "_ansible_check_mode": _check, "_ansible_diff": True}
        with monkeypatch.context() as patch, patch_module_args(whole):
            patch.setattr(module, "ARGUMENTS", copy.deepcopy(module.ARGUMENTS))
            with pytest.raises(SystemExit):
                module.main()
        result: t.Dict[str, t.Any] = json.loads(capsys.readouterr().out)
        result.pop("invocation", None)
        return result

    return run
