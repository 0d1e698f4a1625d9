# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What podman and docker answer, and what is made of it."""

from __future__ import annotations

import json
import pathlib
import shutil
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _image_engine as engines
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

# As podman 4.3 and docker 28 print it, without what nobody asks for.
PODMAN = {
    "Id": "59ae",
    "Digest": "sha256:e065",
    "RepoTags": ["localhost/a:1"],
    "RepoDigests": ["localhost/a@sha256:e065"],
    "Config": {
        "Env": ["PATH=/x:/usr/bin:relative", "A=b=c"],
        "Entrypoint": ["/e"],
        "Cmd": ["c", "d"],
        "Labels": {"l": "m"},
    },
    "Architecture": "arm64",
    "Size": 12,
    "RootFS": {"Type": "layers", "Layers": ["sha256:1", "sha256:2"]},
}
DOCKER = {
    "Id": "sha256:77af",
    "RepoTags": None,
    "RepoDigests": ["debian@sha256:aa"],
    "Config": {"Cmd": None, "Entrypoint": None, "Env": None, "Labels": None},
    "Architecture": "amd64",
}


class Answers:
    """A run() that answers one after the other and remembers what it was asked."""

    def __init__(self, *answers: t.Tuple[int, str]) -> None:
        self.answers = list(answers)
        self.asked: t.List[t.List[str]] = []

    def __call__(
        self, command: t.Sequence[str], _directory: t.Optional[str], _data: t.Optional[str]
    ) -> t.Tuple[int, str]:
        """Run a command."""
        self.asked.append(list(command))
        return self.answers.pop(0) if self.answers else (0, "")


@pytest.mark.parametrize(
    ("there", "wanted", "expected"),
    [
        (["podman", "docker"], "auto", "podman"),
        (["docker"], "auto", "docker"),
        (["podman", "docker"], "docker", "docker"),
    ],
)
def test_find(monkeypatch: pytest.MonkeyPatch, there: t.List[str], wanted: str, expected: str) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name if name in there else None)
    assert engines.find(wanted) == expected


@pytest.mark.parametrize(("wanted", "said"), [("auto", "no podman and no docker"), ("docker", "no docker")])
def test_find_none(monkeypatch: pytest.MonkeyPatch, wanted: str, said: str) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(JemallocError) as caught:
        engines.find(wanted)
    assert str(caught.value) == f"engine: this host has {said}; install one, or run this on a host that has one."


def test_parse() -> None:
    found = engines.parse(json.dumps([PODMAN]))
    assert found == engines.Image(
        id="59ae",
        architecture="arm64",
        digest="sha256:e065",
        size=12,
        environment={"PATH": "/x:/usr/bin:relative", "A": "b=c"},
        entrypoint=("/e",),
        command=("c", "d"),
        labels={"l": "m"},
        layers=("sha256:1", "sha256:2"),
        names=("localhost/a:1",),
    )
    assert found.path == ["/x", "/usr/bin"]
    found = engines.parse(json.dumps([DOCKER]))
    assert found == engines.Image(id="77af", architecture="amd64", digest="sha256:aa")
    assert found.path[:2] == ["/usr/local/sbin", "/usr/local/bin"]
    assert engines.parse('[{"Id": "1", "Architecture": "amd64"}]').digest == ""


@pytest.mark.parametrize("output", ["", "[]", "{}", "[1]", "no JSON", '[{"Id": 1, "Architecture": "x"}]'])
def test_parse_what_is_no_answer(output: str) -> None:
    with pytest.raises(JemallocError, match=r"^the answer is not that of an inspection"):
        engines.parse(output)


@pytest.mark.parametrize(
    "output", ["Error: inspecting object: a: image not known", "Error: No such image: a", "Error response: not found"]
)
def test_image_that_is_not_there(output: str) -> None:
    assert engines.Engine(Answers((125, output)), "podman").image("a", "base") is None


@pytest.mark.parametrize(
    ("status", "output", "message"),
    [
        (1, "x\nError: no space\nError: left\n", "base: podman cannot be asked for a: Error: no space / Error: left."),
        (1, "", "base: podman cannot be asked for a: it printed nothing."),
        (1, "one\nCannot connect.\n", "base: podman cannot be asked for a: Cannot connect."),
        (0, "{}", "base: podman cannot be asked for a: the answer is not that of an inspection ({})."),
    ],
)
def test_engine_that_does_not_work(status: int, output: str, message: str) -> None:
    with pytest.raises(JemallocError) as caught:
        engines.Engine(Answers((status, output)), "podman").image("a", "base")
    assert str(caught.value) == message


THERE = (0, json.dumps([PODMAN]))
MISSING = (1, "Error: no such image")


def test_pulled() -> None:
    run = Answers(THERE)
    assert engines.Engine(run, "podman").pulled("a", "base").id == "59ae"
    assert run.asked == [["podman", "image", "inspect", "a"]]
    run = Answers(MISSING, (0, ""), THERE)
    assert engines.Engine(run, "docker").pulled("a", "base").id == "59ae"
    assert run.asked[1] == ["docker", "pull", "a"]
    run = Answers(THERE, (0, ""), THERE)
    assert engines.Engine(run, "podman").pulled("a", "base", always=True).id == "59ae"
    assert run.asked[1] == ["podman", "pull", "a"]


def test_pulled_for_another_platform() -> None:
    run = Answers(THERE)
    assert engines.Engine(run, "podman").pulled("a", "base", platform="linux/arm64/v8").id == "59ae"
    assert len(run.asked) == 1
    amd64 = (0, json.dumps([{**PODMAN, "Architecture": "amd64"}]))
    run = Answers(amd64, (0, ""), THERE)
    assert engines.Engine(run, "podman").pulled("a", "base", platform="linux/arm64").architecture == "arm64"
    assert run.asked[1] == ["podman", "pull", "--platform=linux/arm64", "a"]
    message = "base: a is for linux/amd64, and linux/arm64 is wanted; name one for that"
    for answers, end in (((amd64, (125, "Error: no route")), " (Error: no route)."), ((amd64, (0, ""), amd64), ".")):
        with pytest.raises(JemallocError) as caught:
            engines.Engine(Answers(*answers), "podman").pulled("a", "base", platform="linux/arm64")
        assert str(caught.value) == message + end


@pytest.mark.parametrize("name", ["", "--help"])
def test_name_that_is_none(name: str) -> None:
    run = Answers()
    with pytest.raises(JemallocError) as caught:
        engines.Engine(run, "podman").pulled(name, "builder", always=True)
    assert (str(caught.value), run.asked) == (f"builder: {name!r} is not the name of an image.", [])


def test_pulled_from_nowhere() -> None:
    with pytest.raises(JemallocError) as caught:
        engines.Engine(Answers(MISSING, (125, "Error: no route to host")), "podman").pulled("a", "builder")
    assert str(caught.value) == "builder: podman pull ended with 125: Error: no route to host."
    with pytest.raises(JemallocError, match=r"^base: podman pulled a and does not have it; name it in full.$"):
        engines.Engine(Answers(MISSING, (0, ""), MISSING), "podman").pulled("a", "base")


def test_run_with_a_limit() -> None:
    run = Answers()
    engines.Engine(run, "podman").run("run", "x", limit=7)
    assert run.asked == [["timeout", "-k", "5", "7", "podman", "run", "x"]]


def test_export_leaves_no_container() -> None:
    found = engines.parse(THERE[1])
    run = Answers((0, ""), (0, ""), (1, "Error: disk full"))
    with pytest.raises(JemallocError, match=r"^base: podman export ended with 1: Error: disk full.$"):
        engines.Engine(run, "podman").export(found, "n", "/x.tar")
    assert [asked[1] for asked in run.asked] == ["rm", "create", "export", "rm"]


def test_build(tmp_path: pathlib.Path) -> None:
    (tmp_path / "id").write_text("sha256:abc\n")
    run = Answers()
    assert engines.Engine(run, "podman").build(str(tmp_path), "linux/arm64") == "abc"
    assert run.asked == [
        [
            *("podman", "build", f"--file={tmp_path}/Containerfile", f"--iidfile={tmp_path}/id", "--pull=false"),
            *("--platform=linux/arm64", f"{tmp_path}/context"),
        ]
    ]


@pytest.mark.parametrize(
    ("answer", "removed"),
    [(THERE, False), (MISSING, False), ((0, json.dumps([{**PODMAN, "RepoTags": []}])), True)],
)
def test_discard_nothing_that_has_a_name(answer: t.Tuple[int, str], removed: bool) -> None:
    run = Answers(answer)
    engines.Engine(run, "podman").discard("59ae")
    assert (["podman", "rmi", "59ae"] in run.asked) == removed


def test_name_for_builder() -> None:
    found = engines.parse(THERE[1])
    assert engines.Engine(Answers(), "podman").name_for_builder(found, "a") == "59ae"
    assert engines.Engine(Answers(), "docker").name_for_builder(found, "a") == "a"
