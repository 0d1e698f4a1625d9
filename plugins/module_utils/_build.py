"""From an unpacked source to a staged tree: what a release needs to build well today, and the build itself."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import glob
import os
import re
import shutil
import typing as t
from dataclasses import dataclass

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _sandbox as sandbox
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.module_utils._host import with_errors

#: Runs a command: arguments, working directory, standard input; returns exit status and everything it printed.
Run = t.Callable[[t.Sequence[str], t.Optional[str], t.Optional[str]], t.Tuple[int, str]]

#: Returns something that is true for a tool that is there, as shutil.which does.
Which = t.Callable[[str], t.Optional[str]]

#: The command that installs packages without a question, by the package manager's name; the first one found is used.
PACKAGE_MANAGERS: t.Dict[str, t.Tuple[str, ...]] = {
    "apt-get": ("apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends"),
    "dnf": ("dnf", "install", "-y"),
    "zypper": ("zypper", "--non-interactive", "install"),
    "apk": ("apk", "add"),
}

# Which package brings a tool; where a package manager is not named, the package is called like the tool.
_PACKAGES = {
    "headers": {"apt-get": "libc6-dev", "dnf": "glibc-devel", "zypper": "glibc-devel", "apk": "musl-dev"},
    "g++": {"dnf": "gcc-c++", "zypper": "gcc-c++"},
    "musl-gcc": {"apt-get": "musl-tools"},
}

# The build sees nothing of the caller's environment: an LD_PRELOAD, a CFLAGS or a CONFIG_SITE there would change what
# comes out. GIT_DIR keeps configure from taking the version from a git work tree that happens to be around.
_ENV = "/usr/bin/env"
_ENVIRONMENT = (
    _ENV,
    "-i",
    "PATH=/usr/local/bin:/usr/bin:/bin",
    "LC_ALL=C",
    "GIT_DIR=/nonexistent",
    "HOME=/nonexistent",
)


@dataclass(frozen=True)
class Options:
    """Build options: C++ operators (needs libstdc++ in every program), heap profiling, log2 of the page size."""

    cxx: bool = False
    prof: bool = False
    lg_page: t.Optional[int] = None

    def as_dict(self) -> t.Dict[str, t.Any]:
        """Return them as a receipt holds them."""
        return {"cxx": self.cxx, "prof": self.prof, "lg_page": self.lg_page}


def configure_arguments(release: catalogue.Release, machine: str, options: Options, prefix: str) -> t.List[str]:
    """Return the arguments of configure for a release on a machine (as uname -m names it)."""
    number = release.number
    lg_page = options.lg_page or platform.lg_page(machine)
    arguments = [f"--prefix={prefix}"]
    if number >= (4,):
        arguments.append(f"--with-lg-page={lg_page}")
    else:
        # 3.x knows no such switch. Its probe for initial-exec TLS trips over a warning of gcc >= 10; without that
        # model each access calls the TLS resolver, which allocates: slow, and without end since glibc 2.39.
        arguments += [f"je_cv_static_page_shift={lg_page}", "je_cv_tls_model=yes"]
    if number < (5,):
        # They link Valgrind's headers in where these happen to be installed: other hosts, other libraries. 4.0.0 keeps
        # what belongs to a thread out of thread-local storage unless it is told; to the others that is the default.
        arguments += ["--disable-valgrind", "--enable-tls"]
    elif options.cxx:
        # gcc 16 moved what jemalloc's C++ file calls to <memory>; harmless with older compilers.
        arguments.append("EXTRA_CXXFLAGS=-include memory")
    else:
        arguments.append("--disable-cxx")
    if number >= (4, 5):
        # Without debug information: a sixth less time. Before 4.5 CFLAGS would replace -O3 and all other defaults.
        arguments += ["CFLAGS=-g0", "CXXFLAGS=-g0"]
    if options.prof:
        arguments.append("--enable-prof")
    return arguments


def tools(release: catalogue.Release, options: Options) -> t.List[str]:
    """Return what the build of a release takes; "headers" stands for those of the C library."""
    # Without g++ configure leaves the C++ operators out, and goes on.
    return ["gcc", "make", "headers", *(["g++"] if options.cxx and release.number >= (5,) else [])]


def missing_tools(run: Run, needed: t.Sequence[str], which: t.Optional[Which] = None) -> t.List[str]:
    """Return what of such tools this host lacks, or where run and which look."""
    missing = [tool for tool in needed if tool != "headers" and not (which or shutil.which)(tool)]
    if "headers" in needed and "gcc" not in missing:
        status, _output = run(["gcc", "-fsyntax-only", "-x", "c", "-"], None, "#include <stdlib.h>\n")
        if status:
            missing.append("headers")
    elif "headers" in needed:
        missing.append("headers")
    return missing


def package_manager(which: t.Optional[Which] = None) -> t.Optional[str]:
    """Return the name of the package manager of the host, or of where which looks, a key of PACKAGE_MANAGERS."""
    return next((name for name in PACKAGE_MANAGERS if (which or shutil.which)(name)), None)


def packages_for(missing: t.Sequence[str], manager: t.Optional[str]) -> t.List[str]:
    """Return the packages that bring the missing tools, by this package manager's names."""
    words = {"headers": "the C library's headers"}
    return [_PACKAGES.get(tool, {}).get(manager or "", words.get(tool, tool)) for tool in missing]


def install_packages(run: Run, packages: t.Sequence[str], manager: str) -> None:
    """Install packages; apt's lists are fetched first when without them the packages are not found."""
    command = [*PACKAGE_MANAGERS[manager], *packages]
    status, output = run(command, None, None)
    if status and manager == "apt-get":
        run(["apt-get", "update"], None, None)
        status, output = run(command, None, None)
    if status:
        raise JemallocError(
            f"The packages that the build needs ({' '.join(packages)}) could not be installed by {manager}: "
            f"{_last_lines(output, 2)}. Install them by hand, or give a host on which it works."
        )


def build(run: Run, work: str, source: str, release: catalogue.Release, commit: str, arguments: t.Sequence[str]) -> str:
    """Configure, make and install a source into a DESTDIR in work, which holds the source; return the DESTDIR.

    Only the shared library and the scripts are built: no static library, no documentation. All commands run in the
    sandbox of work, which is two levels below the prefix's staging area.
    """
    write_version(source, release, commit)
    destination, temporary = os.path.join(work, "root"), os.path.join(work, "tmp")
    os.mkdir(temporary)
    with sandbox.sandboxed(run, os.path.dirname(os.path.dirname(work)), work) as inside:
        take_steps(inside, source, release, environment(temporary), steps(source, destination, arguments))
    return destination


def write_version(source: str, release: catalogue.Release, commit: str) -> None:
    """Let a source say which release it is; a snapshot has no VERSION, and 3.6.0 wants one that is not empty."""
    path = os.path.join(source, "VERSION")
    if not os.path.exists(path) or not os.path.getsize(path):
        with open(path, "w", encoding="ascii") as stream:
            stream.write(f"{release.version}-0-g{commit or '0' * 40}\n")


def steps(source: str, destination: str, arguments: t.Sequence[str]) -> t.List[t.List[str]]:
    """Return the commands that build an unpacked source and install it into a DESTDIR."""
    # One make for all: in every release install_lib_shared depends on what it installs.
    jobs = len(os.sched_getaffinity(0))
    make = ["make", f"-j{jobs}", f"DESTDIR={destination}", "install_bin", "install_lib_shared"]
    found = [["./configure", *arguments], make]
    return found if os.path.exists(os.path.join(source, "configure")) else [["autoconf"], *found]


def environment(temporary: str) -> t.List[str]:
    """Return the words in front of a command that give it the environment of a build."""
    return [*_ENVIRONMENT, f"TMPDIR={temporary}"]


def take_steps(
    run: Run, directory: str, release: catalogue.Release, front: t.Sequence[str], steps: t.Sequence[t.Sequence[str]]
) -> None:
    """Run the commands of a build in a directory, each with these words in front; BuildError says which one failed."""
    log = []
    for step in steps:
        status, output = run(with_errors([*front, *step]), directory, None)
        log.append(f"$ {' '.join(step)}\n{output}")
        if status:
            raise BuildError(f"jemalloc {release.version} does not build here, {step[0]} ended with {status}", log)


def collect(built: str, tree: str) -> None:
    """Copy what a build installed to a tree of the caller's own: its files, and links that stay in their directory."""
    for directory, _subdirectories, names in os.walk(built):
        target = os.path.normpath(os.path.join(tree, os.path.relpath(directory, built)))
        os.makedirs(target, exist_ok=True)
        for name in names:
            path = os.path.join(directory, name)
            if os.path.islink(path):
                link = os.readlink(path)
                if "/" not in link:
                    os.symlink(link, os.path.join(target, name))
            elif os.path.isfile(path):
                shutil.copy(path, os.path.join(target, name))


class BuildError(JemallocError):
    """A step of a build failed; log holds what all steps printed."""

    def __init__(self, message: str, log: t.Sequence[str]) -> None:
        super().__init__(f"{message}: {_last_lines(_complaints(log[-1]), 3)}")
        self.log = "\n".join(log)


def finish(run: Run, tree: str, release: catalogue.Release) -> str:
    """Strip the library of a staged tree, check its version, drop upstream's wrapper; return the library's file name.

    Upstream's jemalloc.sh overwrites LD_PRELOAD and runs nothing without a word when called bare; ours takes its place.
    """
    library = _library(tree)
    if shutil.which("strip"):
        status, output = run(["strip", "--strip-unneeded", library], None, None)
        if status:
            raise JemallocError(f"The library could not be stripped: {_last_lines(output, 1)}.")
    return check(tree, release)


def check(tree: str, release: catalogue.Release) -> str:
    """Check what a build left in a tree as finish() does, without a strip; return the library's file name."""
    library = _library(tree)
    with open(library, "rb") as stream:
        data = stream.read()
    version = platform.library_version(data)
    if version != release.version:
        raise JemallocError(
            f"The library that was built is jemalloc {version or 'of no version'}, not {release.version}."
        )
    wrapper = os.path.join(tree, "bin", "jemalloc.sh")
    if os.path.exists(wrapper):
        os.unlink(wrapper)
    return os.path.basename(library)


def _library(tree: str) -> str:
    """Return the path of the one library of a tree."""
    found = [path for path in glob.glob(os.path.join(tree, "lib", "libjemalloc.so.*")) if not os.path.islink(path)]
    if len(found) != 1:
        raise JemallocError(f"The build left {len(found)} libraries in {tree}/lib where one was expected.")
    return found[0]


# What a parallel make ends with when a job failed; the reason stands before it.
_WAITING = "Waiting for unfinished jobs"

# The errors of compiler and assembler, and what the linker says; that it failed is said once more by collect2.
_COMPLAINT = re.compile(r"\berror: |(?:^|/)ld(?:\.\w+)?: (?!warning)")
_NO_REASON = "collect2: error: ld returned"
_STOPPED = re.compile(rf"make(?:\[[0-9]+\])?: \*\*\* (?!{_WAITING})")


def _complaints(output: str) -> str:
    """Return the lines that name an error and where make stopped, all lines where none names one.

    What other jobs of a parallel make print stands between them and behind.
    """
    lines = output.splitlines()
    errors = [line for line in lines if _COMPLAINT.search(line) and not line.startswith(_NO_REASON)]
    return "\n".join([*errors[:2], *list(filter(_STOPPED.match, lines))[-1:]]) if errors else output


def _last_lines(output: str, count: int) -> str:
    """Return the last lines that say something, as part of a sentence."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and _WAITING not in line]
    return " / ".join(lines[-count:]).rstrip(".") or "it printed nothing"
