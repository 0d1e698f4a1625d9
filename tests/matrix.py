# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix: tests with every ansible-core, Python and Debian that is supported, and one table of how they went."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

import ansible

from tests import checkout

ROOT = checkout.ROOT
DIRECTORY = ROOT / ".matrix"

#: Every ansible-core that is maintained upstream, with the Pythons of a controller that it is for.
CORES = {
    "2.19": ("3.11", "3.12", "3.13"),
    "2.20": ("3.12", "3.13", "3.14"),
    "2.21": ("3.12", "3.13", "3.14"),
}

#: The Pythons of hosts, and the releases of Debian that have one; the others have to be on this machine.
TARGETS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
SUITES = {"3.9": "bullseye", "3.11": "bookworm", "3.13": "trixie", "3.14": "forky"}

#: The scenario that is played with every ansible-core, and by which Python; its hosts are four releases of Debian.
SCENARIO = "tests/scenarios/test_scenarios.py::test_scenario[service]"
PLAYED = {"2.19": "3.11", "2.20": "3.12", "2.21": "3.13"}

#: jemalloc itself on an emulated processor: the role, an image, what is refused, and a library that is run.
ARM64 = "tests/images/test_arm64.py"

#: What the unit tests need on a host's Python, on top of ansible-core, whose own half for hosts runs there; Jinja2 is
#: for the texts that a module gets from the controller.
ON_TARGETS = ("hypothesis", "Jinja2", "prometheus-client", "pytest", "pytest-xdist", "PyYAML")

#: And those of the controller's half.
ON_CONTROLLERS = ("requests", *ON_TARGETS)

#: What a host gets of ansible-core, and this collection, by where they are to be below a directory of packages.
COLLECTION = "ansible_collections/preload/jemalloc"
HALVES = {"ansible": Path(ansible.__file__).parent, COLLECTION: ROOT}

#: What a shell in a container does: an environment of the packages in $packages by the container's own Python, then
#: unit tests, or those of ansible-test.
ENVIRONMENT = """
apt-get -qq update
apt-get -qqy install --no-install-recommends gcc git libc6-dev make python3-venv >/dev/null
git config --global --add safe.directory '*'
python3 -m venv /tmp/venv
PATH=/tmp/venv/bin:$PATH
pip install --quiet --disable-pip-version-check $packages
"""
UNITS = f'{ENVIRONMENT}PYTHONPATH=/halves HYPOTHESIS_STORAGE_DIRECTORY=/tmp/examples exec python "$@"'
SANITY = f"""{ENVIRONMENT}
python -c 'from pathlib import Path; import ansible_test; from tests import checkout
checkout.bring_pip(Path(ansible_test.__file__).parent, Path.home()); checkout.copy(Path("/tmp"))'
cd /tmp/{COLLECTION}
exec ansible-test sanity --color no
"""

PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2")

Work = t.Callable[["Log"], None]


class FailedError(Exception):
    """A command ended with an error; its output is in the log."""


class MissingError(Exception):
    """Something that a row needs is not to be had on this machine."""


@dataclass(frozen=True)
class Log:
    """A file that takes what the commands of a row print."""

    path: Path

    def run(self, *command: str | Path, cwd: Path = ROOT, **more: str) -> None:
        """Run a command to its end, without what this process' own environment brings along."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTEST_"))}
        paths = [part for part in inherited["PATH"].split(":") if not part.endswith("/shims")]
        environment = {**inherited, "PATH": ":".join(paths), "LC_ALL": "C.UTF-8", "PY_COLORS": "0", **more}
        environment.setdefault("CONTAINERS_CONF", str(ROOT / ".ci" / "containers.conf"))
        with self.path.open("a") as stream:
            print("$", *command, file=stream, flush=True)
            done = subprocess.run(
                [str(part) for part in command],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            raise FailedError(str(self.path))


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    work: Work


def interpreter(version: str) -> Path:
    """Return a Python of that version: one of pyenv's, or the first on the PATH that is no shim of pyenv."""
    found = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python{version}"))
    paths = [part for part in os.environ["PATH"].split(":") if not part.endswith("/shims")]
    on_path = shutil.which(f"python{version}", path=":".join(paths))
    if not found and on_path is None:
        raise MissingError(f"no Python {version}")
    return found[-1] if found else Path(str(on_path))


def is_contained(version: str) -> bool:
    """Whether a container has a Python of that version, and this machine has not."""
    try:
        interpreter(version)
    except MissingError:
        return version in SUITES
    return False


def controller(log: Log, core: str, python: str) -> Path:
    """Return the programs of an environment with that ansible-core, which finds this checkout."""
    requirements = DIRECTORY / f"core-{core}.txt"
    text = (ROOT / "requirements-test.txt").read_text(encoding="utf-8").replace("-r ", f"-r {ROOT}/")
    requirements.write_text(f"{text}ansible-core=={core}.*\n")
    environment = DIRECTORY / f"core-{core}-python{python}"
    log.run(".ci/venv", environment, requirements, PYTHON=str(interpreter(python)))
    return environment / "bin"


def units(core: str, python: str) -> Work:
    """Return what runs the unit tests with an ansible-core; in a container where that alone has such a Python."""

    def work(log: Log) -> None:
        if is_contained(python):
            packages = (f"ansible-core=={core}.*", *ON_CONTROLLERS)
            in_container(log, python, packages, {COLLECTION: ROOT}, UNITS, *PYTEST, "tests/unit")
        else:
            log.run(controller(log, core, python) / "python", *PYTEST, "tests/unit")

    return work


def sanity(core: str, python: str) -> Work:
    """Return what runs the sanity tests of an ansible-core; in a container where that alone has such a Python."""

    def work(log: Log) -> None:
        if is_contained(python):
            in_container(log, python, (f"ansible-core=={core}.*",), {COLLECTION: ROOT}, SANITY)
            return
        programs = controller(log, core, python)
        (package,) = programs.parent.glob("lib/python3*/site-packages/ansible_test")
        place = DIRECTORY / f"sanity-{core}-{python}"
        shutil.rmtree(place, ignore_errors=True)
        interpreters = place / "interpreters"
        interpreters.mkdir(parents=True)
        checkout.bring_pip(package, place)
        home = {"HOME": str(place), "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))}
        path = f"{programs}:{checkout.link_interpreters(interpreters)}:{os.environ['PATH']}"
        paths = ":".join(part for part in path.split(":") if not part.endswith("/shims"))
        log.run(programs / "ansible-test", "sanity", "--color", "no", cwd=checkout.copy(place), PATH=paths, **home)
        shutil.rmtree(place)

    return work


def lab(core: str, python: str, *tests: str) -> Work:
    """Return what runs tests on containers with an ansible-core."""
    return lambda log: log.run(controller(log, core, python) / "python", *PYTEST[:-2], *tests)


def of_hosts() -> list[str]:
    """Return the unit tests of what runs on hosts, but for those that render templates as a controller does."""
    tests = [name for name in checkout.names() if re.match(r"tests/unit/plugins/module(s|_utils)/.*\btest_", name)]
    return [name for name in tests if not any("plugins.action" in text for text in _texts(ROOT / name))]


def _texts(test: Path) -> t.Iterator[str]:
    """Return what a test file holds, and what its own directory gives it."""
    for path in (test, test.parent / "conftest.py"):
        yield path.read_text(encoding="utf-8") if path.exists() else ""


def target(python: str) -> Work:
    """Return what runs the unit tests of what runs on hosts, by Debian's own Python or by one of this machine."""

    def work(log: Log) -> None:
        if python in SUITES:
            in_container(log, python, ON_TARGETS, HALVES, UNITS, *PYTEST, *of_hosts())
            return
        environment = DIRECTORY / f"target-{python}"
        log.run(interpreter(python), "-m", "venv", "--clear", environment)
        log.run(environment / "bin" / "python", "-m", "pip", "install", "--quiet", *ON_TARGETS)
        place = DIRECTORY / f"halves-{python}"
        shutil.rmtree(place, ignore_errors=True)
        for name, source in HALVES.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).symlink_to(source)
        log.run(environment / "bin" / "python", *PYTEST, *of_hosts(), PYTHONPATH=str(place))

    return work


def in_container(
    log: Log, python: str, packages: t.Sequence[str], halves: t.Mapping[str, Path], script: str, *arguments: str
) -> None:
    """Run a shell script in this collection in a container of the release of Debian that has a Python."""
    build = [str(ROOT / ".ci" / "build-image"), SUITES[python]]
    image = subprocess.run(build, stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout.split()[-1]
    variables = ("LC_ALL=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1", f"packages={' '.join(packages)}")
    log.run(
        *("podman", "run", "--rm", "--replace", f"--name=preload-jemalloc-matrix-{python}", "--cap-add=SYS_PTRACE"),
        *(f"--volume={source}:/halves/{name}:ro" for name, source in halves.items()),
        *(f"--env={variable}" for variable in variables),
        *(*checkout.index_options(), f"--workdir=/halves/{COLLECTION}"),
        *(image, "sh", "-euc", script, "sh", *arguments),
    )


def index(log: Log) -> None:
    """Fail when the package index has a newer ansible-core than the tests know."""
    log.run(sys.executable, "-m", "pip", "index", "versions", "ansible-core")
    found = {tuple(map(int, core)) for core in re.findall(r"\b(\d+)\.(\d+)\.\d+", log.path.read_text(encoding="utf-8"))}
    known = {tuple(map(int, core.split("."))) for core in CORES}
    newer = [core for core in found if core > max(known)]
    if newer:
        raise FailedError(f"there are newer ones than CORES in tests/matrix.py has: {sorted(newer)}")


def rows() -> t.Iterator[Row]:
    """Return the whole matrix."""
    yield Row("ansible-core: the newest is known here", index)
    for core, pythons in CORES.items():
        for python in pythons:
            name = f"ansible-core {core}, Python {python}:"
            yield Row(f"{name} unit tests", units(core, python))
            yield Row(f"{name} sanity tests", sanity(core, python))
        name = f"ansible-core {core}, Python {PLAYED[core]}:"
        yield Row(f"{name} a service on Debian 11, 12, 13, testing", lab(core, PLAYED[core], SCENARIO))
    for python in TARGETS:
        origin = f", of Debian {SUITES[python]}" if python in SUITES else ""
        yield Row(f"host's Python {python}{origin}: unit tests", target(python))
    core, python = list(PLAYED.items())[-1]
    yield Row(
        f"arm64, emulated, ansible-core {core}: the role, an image, the library", lab(core, python, ARM64, "--full")
    )


def tried(row: Row, log: Log) -> str:
    """Do what a row says; return how it went."""
    try:
        row.work(log)
    except MissingError as error:
        return f"not here: {error}"
    except (FailedError, OSError, subprocess.CalledProcessError) as error:
        return f"FAILED: {error}"
    return "passed"


def main() -> None:
    """Try the rows that were asked for, and print the table."""
    parser = argparse.ArgumentParser(description="Tries every ansible-core, Python and Debian that is supported.")
    parser.add_argument("--only", action="append", default=[], help="rows with this in their names; can be repeated")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and try none")
    arguments = parser.parse_args()
    chosen = [row for row in rows() if not arguments.only or any(part in row.name for part in arguments.only)]
    if not chosen:
        parser.error(f"no row has one of {', '.join(arguments.only)} in its name; --list prints them")
    if arguments.list:
        print(*(row.name for row in chosen), sep="\n")
        return
    logs = DIRECTORY / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    table: list[tuple[str, str, float]] = []
    for row in chosen:
        log = Log(logs / f"{re.sub('[^a-z0-9.]+', '-', row.name.lower())}.log")
        log.path.write_text("")
        began = time.monotonic()
        result = tried(row, log)
        table.append((row.name, result, time.monotonic() - began))
        print(f"{row.name}: {result}", flush=True)
    print_table(table)
    sys.exit(any(result.startswith("FAILED") for _name, result, _seconds in table))


def print_table(table: t.Sequence[tuple[str, str, float]]) -> None:
    """Print what was tried, how it went, and the seconds that it took."""
    wide = max(len(name) for name, _result, _seconds in table)
    print(f"\n{'what':{wide}}  seconds  result")
    for name, result, seconds in table:
        print(f"{name:{wide}}  {seconds:7.0f}  {result}")


if __name__ == "__main__":
    main()
