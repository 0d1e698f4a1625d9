# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the module jemalloc_image share: an engine that only keeps books of its images, and a bundle."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import tarfile
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _arguments as arguments
from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundle
from ansible_collections.preload.jemalloc.plugins.module_utils import _elf as elf
from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.modules import jemalloc_image as module

Call = t.Callable[..., t.Dict[str, t.Any]]
Bundle = t.Callable[..., t.Dict[str, t.Any]]
MACHINE = os.uname().machine
GO = {"x86_64": "amd64", "aarch64": "arm64"}[MACHINE]
LOADER = elf.read(os.path.realpath("/bin/true")).interpreter
LIBRARY = "/opt/jemalloc/9.9.9/lib/libjemalloc.so.2"


class Podman:
    """Images by their names, containers by theirs, and what was asked."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Have the image base, whose files are some of this machine's, and builder."""
        self._directory = directory
        self.files = {path: path for path in ("/bin/sh", "/bin/cat", LOADER)}
        libc = next(path for path in pathlib.Path("/").glob("lib*/**/libc.so.6"))
        self.files["/lib/libc.so.6"] = str(libc)
        self.images: t.Dict[str, t.Dict[str, t.Any]] = {
            "base": {"Id": "b" * 64, "Architecture": GO, "Config": {"Cmd": ["/bin/cat"]}},
            "builder": {"Id": "c" * 64, "Architecture": GO},
        }
        self.registry: t.Dict[str, t.Dict[str, t.Any]] = {}
        self.asked: t.List[t.List[str]] = []
        self.warnings: t.List[str] = []
        self.shown = f"7f-8f r-xp 0 0:0 1 {LIBRARY}\n"

    def __call__(
        self, _host: t.Any, command: t.Sequence[str], _directory: t.Any = None, _data: t.Any = None
    ) -> t.Tuple[int, str]:
        """Run a command."""
        words = list(command)[list(command).index("podman") + 1 :]
        self.asked.append(words)
        answer = getattr(self, f"_{words[0]}", None)
        return answer(words[1:]) if answer else (0, "")

    def said(self, verb: str) -> t.List[t.List[str]]:
        """Return what followed such a command."""
        return [words[1:] for words in self.asked if words[0] == verb]

    def _found(self, name: str) -> t.Optional[t.Dict[str, t.Any]]:
        return next((each for key, each in self.images.items() if name in (key, each["Id"])), None)

    def _image(self, words: t.List[str]) -> t.Tuple[int, str]:
        found = self._found(words[1])
        return (0, json.dumps([found])) if found else (125, "Error: image not known")

    def _pull(self, words: t.List[str]) -> t.Tuple[int, str]:
        if words[-1] in self.registry:
            self.images[words[-1]] = self.registry[words[-1]]
            return 0, ""
        return 125, "Error: no such registry"

    def _export(self, words: t.List[str]) -> t.Tuple[int, str]:
        with tarfile.open(words[0][len("--output=") :], "w") as tar:
            for name in sorted({f"{parent}" for path in self.files for parent in pathlib.Path(path).parents}):
                directory = tarfile.TarInfo(name.strip("/") or ".")
                directory.type = tarfile.DIRTYPE
                tar.addfile(directory)
            for name, path in self.files.items():
                tar.add(os.path.realpath(path), name)
        return 0, ""

    def _build(self, words: t.List[str]) -> t.Tuple[int, str]:
        given = dict(word[2:].split("=", 1) for word in words if word.startswith(("--file", "--iidfile")))
        with open(given["file"], encoding="utf-8") as stream:
            text = stream.read()
        quoted = re.search(r'preload\.jemalloc\.recipe="((?:[^"\\]|\\.)*)"', text)
        labels = {"preload.jemalloc.recipe": re.sub(r"\\(.)", r"\1", t.cast("re.Match[str]", quoted)[1])}
        layer = pathlib.Path(words[-1], "layer.tar").read_bytes()
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            assert "jemalloc.sh" in {os.path.basename(name) for name in tar.getnames()}
        number = hashlib.sha256(text.encode() + layer).hexdigest()
        self.images[number] = {"Id": number, "Architecture": GO, "Config": {"Labels": labels}, "RepoTags": []}
        with open(given["iidfile"], "w", encoding="ascii") as stream:
            stream.write(f"sha256:{number}")
        return 0, ""

    def _run(self, words: t.List[str]) -> t.Tuple[int, str]:
        return 0, self.shown if "/proc/self/maps" in words else ""

    def _tag(self, words: t.List[str]) -> t.Tuple[int, str]:
        self.images[words[1]] = {**t.cast(t.Dict[str, t.Any], self._found(words[0])), "RepoTags": [words[1]]}
        return 0, ""

    def _rmi(self, words: t.List[str]) -> t.Tuple[int, str]:
        self.images.pop(words[0])
        return 0, ""


@pytest.fixture(autouse=True)
def podman(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    program: t.Callable[[str, str], pathlib.Path],
    alone: None,
) -> Podman:
    """Such an engine."""
    program("podman", "exit 1")
    engine = Podman(tmp_path)

    def run(this: host.Host, *arguments: t.Any) -> t.Any:
        return engine(this, *arguments)

    monkeypatch.setattr(host.Host, "run", run)
    monkeypatch.setattr(host.Host, "warn", lambda _this, words: engine.warnings.append(words))
    return engine


@pytest.fixture
def packed(tmp_path: pathlib.Path, library: pathlib.Path) -> Bundle:
    """Make a bundle of 9.9.9, and return the arguments that take it."""

    def pack(**made_for: t.Any) -> t.Dict[str, t.Any]:
        tree = tmp_path / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        for name in ("lib/libjemalloc.so.2", "bin/jeprof"):
            (tree / name).parent.mkdir(parents=True)
            (tree / name).write_bytes(library.read_bytes())
        receipt = receipt_of(tree, **made_for)
        path = tmp_path / "bundle.tar.gz"
        path.write_bytes(bundle.pack(str(tree), receipt))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return {"bundle": str(path), "bundle_checksum": f"sha256:{digest}", **RELEASE}

    return pack


RELEASE: t.Dict[str, t.Any] = {"version": "9.9.9", "checksum": f"sha256:{'5' * 64}", "engine": "podman"}


def receipt_of(tree: pathlib.Path, **made_for: t.Any) -> t.Dict[str, t.Any]:
    here = {"architecture": MACHINE, "libc": "glibc", "libc_lowest": "2.2", "lg_page": platform.lg_page(MACHINE)}
    library = tree / "lib" / "libjemalloc.so.2"
    return {
        "format": 1,
        "release": "9.9.9",
        "library": library.name,
        "library_sha256": hashlib.sha256(library.read_bytes()).hexdigest(),
        "source": {"sha256": "5" * 64},
        "platform": {**here, **made_for},
        "options": arguments.OPTIONS,
        "configure": [],
        "home": "/opt/jemalloc/9.9.9",
        "files": store.fingerprint(str(tree)),
    }


def make(call: Call, _check: bool = False, **arguments: t.Any) -> t.Dict[str, t.Any]:
    return call(module, _check=_check, **{"base": "base", "tag": "app:1", **arguments})
