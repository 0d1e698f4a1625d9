# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module jemalloc_image, run as a whole with an engine that only keeps books of its images."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pathlib
import re
import shutil
import tarfile
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundle
from ansible_collections.preload.jemalloc.plugins.module_utils import _elf as elf
from ansible_collections.preload.jemalloc.plugins.module_utils import _host as host
from ansible_collections.preload.jemalloc.plugins.module_utils import _image_build as image_build
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


RELEASE = {"version": "9.9.9", "checksum": f"sha256:{'5' * 64}", "engine": "podman"}


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
        "options": module.OPTIONS,
        "configure": [],
        "home": "/opt/jemalloc/9.9.9",
        "files": store.fingerprint(str(tree)),
    }


def make(call: Call, _check: bool = False, **arguments: t.Any) -> t.Dict[str, t.Any]:
    return call(module, _check=_check, **{"base": "base", "tag": "app:1", **arguments})


def test_check_mode_says_what_a_run_does_and_a_second_run_does_nothing(
    call: Call, podman: Podman, packed: Bundle
) -> None:
    wanted = {**packed(), "enabled": True}
    predicted = make(call, True, **wanted)
    assert podman.said("build") == podman.said("tag") == []
    made = make(call, **wanted)
    different = {"image": podman.images["app:1"]["Id"], "mapped": True}
    assert made == {**predicted, **different}
    assert (predicted["image"], predicted["mapped"]) == (None, None)
    assert made == {
        "changed": True,
        "diff": {"before": "", "after": made["diff"]["after"]},
        "tag": "app:1",
        "base": "b" * 64,
        "version": "9.9.9",
        "library": "/opt/jemalloc/current/lib/libjemalloc.so",
        "platform": f"{MACHINE}-glibc2.2",
        "built": None,
        "origin": wanted["bundle"],
        "missing": None,
        **different,
    }
    assert 'ENV LD_PRELOAD="/opt/jemalloc/current/lib/libjemalloc.so"' in made["diff"]["after"]
    podman.asked.clear()
    for check in (True, False):
        again = make(call, check, **wanted)
        assert (again["changed"], again["image"], again["platform"]) == (False, made["image"], made["platform"])
        assert again["diff"] == {"before": made["diff"]["after"], "after": made["diff"]["after"]}
    assert {words[0] for words in podman.asked} == {"image"}
    # One that fits is kept whatever bundle there is; by method bundle it has to be that one.
    assert not make(call, **{**wanted, "bundle_checksum": f"sha256:{'6' * 64}"})["changed"]
    other = make(call, **{**wanted, "bundle_checksum": f"sha256:{'6' * 64}"}, method="bundle")
    assert "SHA-256 is" in other["msg"]


def test_what_a_bundle_comes_to_is_there_already(call: Call, podman: Podman, packed: Bundle) -> None:
    wanted = {**packed(), "enabled": True}
    first = make(call, **wanted)
    recipe = json.loads(podman.images["app:1"]["Config"]["Labels"]["preload.jemalloc.recipe"])
    recipe["library"]["source"] = "7" * 64
    podman.images["app:1"]["Config"]["Labels"]["preload.jemalloc.recipe"] = json.dumps(recipe)
    assert make(call, **wanted)["changed"]
    assert make(call, **wanted)["image"] == first["image"]


def test_what_is_missing(call: Call, podman: Podman) -> None:
    found = make(call, **RELEASE, build="never")
    assert not found["changed"]
    missing = found["missing"]
    assert re.fullmatch(r"2\.[0-9]+", missing.pop("libc_version"))
    assert missing == {
        "version": "9.9.9",
        "checksum": RELEASE["checksum"],
        "sources": ["5" * 64],
        "options": module.OPTIONS,
        "archives": [],
        "architecture": MACHINE,
        "libc": "glibc",
        "lg_page": platform.lg_page(MACHINE),
    }
    assert podman.said("build") == []


def test_pushed_bundle(call: Call, packed: Bundle) -> None:
    given = packed()
    pushed = {"kind": "bundle", "path": given["bundle"], "sha256": given["bundle_checksum"][7:], "origin": "the cache"}
    found = make(call, **RELEASE, pushed=pushed, method="bundle")
    assert (found["changed"], found["origin"]) == (True, "the cache")
    assert not make(call, **RELEASE, pushed=pushed, method="bundle")["changed"]


@pytest.mark.parametrize(
    ("made_for", "reason"),
    [
        ({"libc": "musl"}, f"it is for {MACHINE} with musl, base is {MACHINE} with glibc"),
        ({"libc_lowest": "2.999"}, "it needs glibc 2.999, base has "),
    ],
)
def test_bundle_that_does_not_fit(
    call: Call, podman: Podman, packed: Bundle, made_for: t.Dict[str, t.Any], reason: str
) -> None:
    wanted = packed(**made_for)
    failed = make(call, **wanted, method="bundle")
    assert failed["msg"].startswith(f"The bundle {wanted['bundle']} does not fit: {reason}")
    found = make(call, **wanted, build="never")
    assert found["missing"]["libc"] == "glibc"
    assert podman.warnings == [f"It is not taken, as the bundle does not do: {failed['msg']}"]
    predicted = make(call, True, **wanted)
    assert (predicted["changed"], predicted["built"], predicted["platform"]) == (True, "9.9.9", None)
    assert podman.warnings[1] == f"It is built from source, as the bundle does not do: {failed['msg']}"


def test_check_mode_before_a_build(call: Call) -> None:
    assert make(call, True, **RELEASE)["built"] == "9.9.9"


def test_method_bundle_without_one(call: Call) -> None:
    assert make(call, **RELEASE, method="bundle")["msg"].startswith("bundle: method: bundle needs a bundle; name its ")


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch, library: pathlib.Path) -> t.Dict[str, t.Any]:
    """Let a build succeed; what its receipt says of the platform."""
    made_for: t.Dict[str, t.Any] = {}

    def build(_host: t.Any, stage: t.Any, _request: t.Any, _here: t.Any, work: str) -> t.Tuple[str, t.Any]:
        assert stage.builder == "builder"
        tree = pathlib.Path(work, "built")
        (tree / "lib").mkdir(parents=True)
        shutil.copy(library, tree / "lib")
        receipt = receipt_of(tree, **made_for)
        del receipt["files"]
        return str(tree), {**receipt, "origin": "https://x/y"}

    monkeypatch.setattr(image_build, "make", build)
    return made_for


def test_build(call: Call, podman: Podman, builds: t.Dict[str, t.Any], tmp_path: pathlib.Path) -> None:
    found = make(call, **RELEASE, builder="builder")
    assert (found["changed"], found["built"], found["origin"]) == (True, "9.9.9", "https://x/y")
    (tmp_path / "b").write_bytes(base64.b64decode(found["content"]))
    _tree, receipt = bundle.unpack(str(tmp_path / "b"), str(tmp_path / "u"))
    assert bundle.portable(receipt) == found["receipt"]
    recipe = json.loads(podman.images["app:1"]["Config"]["Labels"]["preload.jemalloc.recipe"])
    assert recipe["library"]["bundle"] == hashlib.sha256((tmp_path / "b").read_bytes()).hexdigest()


def test_default_builder_is_pulled(call: Call, podman: Podman) -> None:
    failed = make(call, **RELEASE)
    assert failed["msg"] == "builder: podman pull ended with 125: Error: no such registry."
    assert podman.said("pull") == [[f"--platform=linux/{GO}", "docker.io/library/debian:11"]]
    failed = make(call, **RELEASE, pull="never")
    assert failed["msg"] == (
        "builder: docker.io/library/debian:11 is not here, and may not be pulled (pull: never); load it."
    )


def test_builder_for_another_machine(call: Call, podman: Podman) -> None:
    podman.images["builder"]["Architecture"] = "riscv64"
    message = f"builder: builder is for linux/riscv64, and linux/{GO} is wanted; name one for that"
    assert make(call, **RELEASE, builder="builder")["msg"] == f"{message} (Error: no such registry)."
    assert make(call, **RELEASE, builder="builder", pull="never")["msg"] == f"{message}."
    assert podman.said("run") == []


def test_base_for_another_machine(call: Call, podman: Podman, packed: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {**packed(), "platform": f"linux/{GO}"}
    podman.registry["base"] = podman.images["base"]
    podman.images["base"] = {**podman.images["base"], "Architecture": "riscv64"}
    assert make(call, **wanted, pull="never")["msg"] == (
        f"base: base is for linux/riscv64, and linux/{GO} is wanted; name one for that."
    )
    assert make(call, True, **wanted)["changed"]
    assert podman.warnings == [f"base is not here for linux/{GO}, so it cannot be looked at before it is pulled."]
    assert make(call, **wanted)["changed"]
    assert not make(call, **wanted)["changed"]
    assert podman.said("pull") == [[f"--platform=linux/{GO}", "base"]]
    assert make(call, **{**wanted, "platform": "arm64"})["msg"].startswith("platform: 'arm64' is none that this ")


def test_machine_that_does_not_run_here(
    call: Call, podman: Podman, packed: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = type("Names", (), {"machine": "another"})
    monkeypatch.setattr(os, "uname", lambda: other)
    assert make(call, **packed())["changed"]
    assert f"--platform=linux/{GO}" in podman.said("build")[0]
    monkeypatch.setattr(podman, "_run", lambda _words: (1, "exec /lib/ld.so: exec format error"))
    assert make(call, **packed(), enabled=True, tag="other:1")["msg"] == (
        f"base: base is for linux/{GO}, whose programs do not run here; install an emulator such as the package "
        "qemu-user-static, or do this on a host for that."
    )


def test_builder_that_is_too_new(call: Call, builds: t.Dict[str, t.Any]) -> None:
    builds["libc_lowest"] = "2.999"
    message = make(call, **RELEASE, builder="builder")["msg"]
    assert message.startswith("builder: what builder built does not fit: it needs glibc 2.999, base has 2.")
    assert message.endswith("; name an older builder.")


def test_base_from_a_registry(call: Call, podman: Podman, packed: Bundle) -> None:
    podman.registry["base"] = podman.images.pop("base")
    wanted = packed()
    predicted = make(call, True, **wanted)
    assert (predicted["changed"], predicted["base"], podman.said("pull")) == (True, None, [])
    assert podman.warnings == ["base is not here, so it cannot be looked at before it is pulled."]
    assert make(call, **wanted, pull="never")["msg"] == (
        "base: base is not here, and may not be pulled (pull: never); load it first."
    )
    assert make(call, **wanted)["changed"]
    assert not make(call, **wanted, pull="always")["changed"]
    assert podman.said("pull") == [["base"], ["base"]]
    podman.registry["base"] = {**podman.registry["base"], "Id": "d" * 64}
    assert make(call, **wanted, pull="always")["changed"]


def test_what_fails_leaves_the_name(call: Call, podman: Podman, packed: Bundle) -> None:
    wanted = packed()
    before = make(call, **wanted)["image"]
    podman.shown = "7f-8f r-xp 0 0:0 1 /lib/libc.so.6\n"
    there = set(podman.images)
    failed = make(call, **wanted, enabled=True)
    assert failed["msg"] == (
        "The library is not fit for base: /bin/cat /proc/self/maps fails in it with jemalloc 9.9.9 (its "
        f"/proc/self/maps does not have {LIBRARY}); no image has got the name."
    )
    assert (podman.images["app:1"]["Id"], set(podman.images)) == (before, there)


def test_library_that_is_not_for_it(call: Call, podman: Podman, packed: Bundle, library: pathlib.Path) -> None:
    wanted = packed()
    # The loader is that of another machine, whatever the image says of itself.
    for name in (LOADER, "/lib/libc.so.6"):
        changed = library.parent / f"changed{name.replace('/', '_')}"
        whole = bytearray(pathlib.Path(os.path.realpath(podman.files[name])).read_bytes())
        whole[18:20] = (8).to_bytes(2, "little")
        changed.write_bytes(whole)
        podman.files[name] = str(changed)
    assert make(call, **wanted)["msg"].startswith("The library is not fit for base: it is for another machine (64 bits")
    assert podman.said("build") == []


def test_image_without_a_shell(call: Call, podman: Podman, packed: Bundle) -> None:
    del podman.files["/bin/sh"]
    del podman.files["/bin/cat"]
    for more, option in (({}, "enabled"), ({"entrypoint": True, "enabled": True}, "entrypoint")):
        assert make(call, **packed(), **more)["msg"] == (
            f"{option}: base has no /bin/sh, which jemalloc.sh is a script for; give enabled: true without entrypoint."
        )
    found = make(call, **packed(), enabled=True)
    assert found["mapped"] is False
    assert podman.warnings == [
        "base has no program that shows what is mapped: of the library only the loader's own look at it is known."
    ]


def test_warnings(call: Call, podman: Podman, packed: Bundle, tmp_path: pathlib.Path) -> None:
    static = tmp_path / "static.c"
    static.write_text("int main(void) { return 0; }")
    assert not os.system(f"gcc -static -o {tmp_path}/static {static}")
    podman.files["/srv/app"] = str(tmp_path / "static")
    podman.images["base"]["Config"] = {"Cmd": ["app"], "Env": ["PATH=/srv:/bin"]}
    assert make(call, **packed())["changed"]
    assert podman.warnings == [
        "/usr/local/bin, where jemalloc.sh is, is not in the PATH of base; call it by that path.",
        "What base starts with, app, is a static program: nothing can be preloaded into it.",
    ]
    podman.images["base"]["Config"] = {}
    assert make(call, **packed(), labels={"a": "b"})["changed"]
    assert len(podman.warnings) == 2


def test_profiling_and_musl(call: Call, podman: Podman) -> None:
    loader = {"x86_64": "/lib/ld-musl-x86_64.so.1", "aarch64": "/lib/ld-musl-aarch64.so.1"}[MACHINE]
    podman.files[loader] = podman.files.pop(LOADER)
    assert make(call, **RELEASE, options={"prof": True})["msg"] == (
        "options: base has musl, with which jemalloc's profiling hangs; leave prof out."
    )
    assert make(call, **RELEASE, build="never")["missing"]["libc"] == "musl"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"tag": "base"},
            "tag: base is the base itself, which the next run could not find any more; take another name.",
        ),
        ({"prefix": "/a b"}, "prefix: '/a b' cannot hold the store; name an absolute path of letters, digits and "),
        ({"version": "1.2.3", "checksum": None}, "version: jemalloc 1.2.3 is not a known release; known are "),
        ({"malloc_conf": {"narenas": "many"}}, "malloc_conf: "),
        ({"labels": {"a b": "c"}}, "labels: 'a b' cannot be set; "),
        ({"base": "--help"}, "base: '--help' is not the name of an image."),
        ({"engine": "docker"}, "engine: this host has no docker; "),
    ],
)
def test_bad_arguments(
    call: Call, monkeypatch: pytest.MonkeyPatch, arguments: t.Dict[str, t.Any], message: str
) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "docker" else which(name))
    found = make(call, **{**RELEASE, **arguments})
    assert found["failed"]
    assert found["msg"].startswith(message)
    assert "\n" not in found["msg"]


def test_disk_that_is_full(call: Call, podman: Podman, packed: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: t.Any) -> None:
        raise OSError(28, "No space left on device", "/tmp/x")

    monkeypatch.setattr(podman, "_export", full)
    assert make(call, **packed())["msg"] == "/tmp/x: No space left on device."
