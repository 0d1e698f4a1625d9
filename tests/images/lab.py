# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images to start from, made of the distribution's packages, and the playbook that makes others of them."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import typing as t
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import Run

#: What a Debian image has that is not to have Python, nor a package manager that works: its packages are only unpacked.
MINIMAL = ("--variant=extract", "--include=base-files,coreutils,dash")

#: What an image has in which libraries for both C libraries can be built, of a release that builds in no time.
BUILDER = (
    "--variant=extract",
    "--include=coreutils,dash,findutils,gcc,grep,libc-bin,libc6-dev,make,musl-tools,sed",
)

#: The same for jemalloc itself.
BUILDER_IN_FULL = ("--variant=minbase", "--include=gcc,make,libc6-dev,musl-tools,autoconf")

# The only program of the image with musl that is not static.
_CAT = """
#include <stdio.h>
int main(int count, char **names) {
  for (int each = 1; each < count; each++) {
    FILE *file = fopen(names[each], "r");
    if (!file) return 1;
    for (int letter; (letter = getc(file)) != EOF;) putchar(letter);
    fclose(file);
  }
  return 0;
}
"""

MAPS = "/proc/self/maps"


def debian(run: Run, directory: Path, suite: str, what: t.Sequence[str], architecture: str = "amd64") -> str:
    """Return an image of a Debian release, which is made unless it is there already."""
    name = f"localhost/preload-jemalloc-image-{suite}" + (f"-{architecture}" if architecture != "amd64" else "")
    image = f"{name}:{hashlib.sha256(json.dumps([suite, *what]).encode()).hexdigest()[:12]}"
    if subprocess.run(["podman", "image", "exists", image], check=False).returncode:
        more = ['--aptopt=Acquire::Check-Valid-Until "false"'] if suite in ("forky", "sid") else []
        options = ["--quiet", f"--architectures={architecture}", "--dpkgopt=force-unsafe-io", *what, *more]
        run("mmdebstrap", *options, suite, str(directory / "root.tar"), TMPDIR=str(directory))
        made = ("--quiet", f"--arch={architecture}", '--change=CMD ["sleep", "60"]')
        run("podman", "import", *made, str(directory / "root.tar"), image)
        (directory / "root.tar").unlink()
    return image


def musl(run: Run, directory: Path) -> str:
    """Return an image with musl, busybox for its shell, and one program that is not static."""
    root = directory / "musl"
    for name in ("bin", "lib"):
        (root / name).mkdir(parents=True)
    (directory / "cat.c").write_text(_CAT)
    run("musl-gcc", "-O1", "-o", str(root / "bin" / "cat"), str(directory / "cat.c"))
    dynamic = run("readelf", "--program-headers", str(root / "bin" / "cat"))
    loader = t.cast("re.Match[str]", re.search(r"interpreter: (/lib/ld-musl-\S+)\]", dynamic))[1]
    run("cp", "--dereference", loader, str(root / "lib"))
    run("cp", "/bin/busybox", str(root / "bin" / "busybox"))
    (root / "bin" / "sh").symlink_to("busybox")
    (root / "bin" / "sleep").symlink_to("busybox")
    return imported(run, root, directory, "musl", '["/bin/cat", "/proc/self/maps"]')


def imported(run: Run, root: Path, directory: Path, name: str, command: str = '["/bin/sh"]') -> str:
    """Return an image of a directory's files."""
    image = f"localhost/preload-jemalloc-image-{name}:test"
    archive = str(directory / "image.tar")
    run("tar", "--create", "--owner=0", "--group=0", f"--directory={root}", f"--file={archive}", ".")
    run("podman", "import", "--quiet", f"--change=CMD {command}", archive, image)
    return image


@dataclass(frozen=True)
class Played:
    """What the playbook printed, and what it said of its one task."""

    output: str
    changed: bool
    failed: bool

    @property
    def diff(self) -> str:
        """What is different, without the names of temporary files."""
        lines = self.output.splitlines()
        return "\n".join(line for line in lines if line.startswith(("+", "-", " ")) and line[:3] not in ("+++", "---"))

    @property
    def sentence(self) -> str:
        """Why it failed: one sentence."""
        found = re.findall(r'"msg": "((?:[^"\\]|\\.)*)"', self.output) + re.findall(r"Task failed: (.*)", self.output)
        return json.loads(f'"{found[0]}"') if found else self.output


class Images:
    """The images that the tests make, below one name, and the cache of their controller."""

    def __init__(self, run: Run, directory: Path, builder: str) -> None:
        self._run = run
        self._directory = directory
        self.builder = builder
        self.cache = directory / "cache"

    def name(self, tag: str) -> str:
        """Return the full name of an image of ours."""
        return f"localhost/preload-jemalloc-made:{tag}"

    def play(self, base: str, tag: str, *options: str, fails: bool = False, **variables: t.Any) -> Played:
        """Run the playbook."""
        given = {
            "jemalloc_image_base": base,
            "jemalloc_image_tag": self.name(tag),
            "jemalloc_cache": str(self.cache),
            "jemalloc_image_builder": self.builder,
            "jemalloc_build_packages": False,
            **variables,
        }
        command = ["ansible-playbook", "preload.jemalloc.image", f"--extra-vars={json.dumps(given)}", *options]
        output = self._run(*command, cwd=self._directory, check=False)
        assert ("failed=1" in output) == fails, output
        assert "Traceback" not in output
        return Played(output, "changed=1" in output, "failed=1" in output)

    def inspect(self, image: str) -> dict[str, t.Any]:
        """Return what podman knows of an image."""
        found: dict[str, t.Any] = json.loads(self._run("podman", "image", "inspect", image))[0]
        return found

    def run(self, image: str, *command: str, options: t.Sequence[str] = ()) -> str:
        """Run a command in a container of an image; return what it printed."""
        return self._run("podman", "run", "--rm", "--network=none", *options, image, *command)

    def mapped(self, image: str, *command: str, options: t.Sequence[str] = ()) -> set[str]:
        """Return the libraries of ours that a command shows in its maps."""
        return set(re.findall(r"/opt/\S*jemalloc\S*", self.run(image, *command, options=options)))
