# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Projects of compose: whose containers they are, and which program runs them."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _container as container
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_compose as compose
from ansible_collections.preload.jemalloc.plugins.module_utils import _container_jobs as jobs
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

Answers = t.Dict[str, t.Tuple[int, str]]


def containers(directory: str, service: str = "web", pid: int = 7) -> str:
    """Return what an engine says of a container."""
    labels = {"project": "p", "service": service, "project.working_dir": directory, "project.config_files": ""}
    config = {"Labels": {f"com.docker.compose.{name}": value for name, value in labels.items()}}
    return json.dumps([{"Id": "1", "Image": "2", "State": {"Pid": pid, "Running": bool(pid)}, "Config": config}])


@pytest.fixture
def asked(program: t.Callable[[str, str], pathlib.Path]) -> t.Tuple[Answers, t.Any]:
    """What the programs answer by the start of their command, and what runs them; both are there."""
    program("podman", "")
    program("docker", "")
    answers: Answers = {}

    def run(command: t.Sequence[str], _directory: t.Any, _data: t.Any) -> t.Tuple[int, str]:
        return next((answer for start, answer in answers.items() if " ".join(command).startswith(start)), (0, ""))

    return answers, run


def test_who_has_its_containers_runs_it(asked: t.Tuple[Answers, t.Any]) -> None:
    answers, run = asked
    answers.update({"podman ps": (0, "1"), "podman container": (0, containers("/srv/other"))})
    answers.update({"docker ps": (0, "1"), "docker container": (0, containers("/srv/web"))})
    made = compose.project(run, "/srv/web/compose.yaml", needed=True)
    assert made.engine
    assert made.engine.name == "docker"
    assert made.last_words("missing") == ""
    answers.update({"docker container": (0, containers("/srv/other"))})
    assert compose.project(run, "/srv/web/compose.yaml", needed=True).engine is None
    answers.update({"docker ps": (1, "Cannot connect to the Docker daemon.")})
    with pytest.raises(JemallocError, match="docker ps ended with 1: Cannot connect to the Docker daemon"):
        compose.project(run, "/srv/web/compose.yaml", needed=True)
    assert compose.project(run, "/srv/web/compose.yaml", needed=False).running() == {}
    answers.update({"docker compose": (1, "")})
    assert compose.project(run, "/srv/web/compose.yaml", needed=True).engine is None


def test_a_proof_that_cannot_be_asked_for(asked: t.Tuple[Answers, t.Any]) -> None:
    answers, run = asked
    answers.update({"docker ps": (0, "1"), "docker container": (0, containers("/srv/web", pid=0))})
    made = compose.project(run, "/srv/web/compose.yaml", needed=True)
    answers.update({"docker ps": (1, "gone")})
    job = jobs.Job("/srv/web/compose.yaml", made, "/srv/web/compose.override.yaml")
    reason = jobs.restart_and_prove(job, "web", "5.3.1", False, "/opt/jemalloc", 0)
    assert reason == "containers: docker ps ended with 1: gone"


def test_texts() -> None:
    assert compose.text("/opt/jemalloc", {}) is None
    text = compose.text("/opt/jemalloc", {"b": {"LD_PRELOAD": 'a$b"c'}, "a.1": {"LD_PRELOAD": "x", "MALLOC_CONF": "y"}})
    assert text
    assert text.startswith(container.HEADER)
    assert list(compose.services_in(text)) == ["a.1", "b"]
    assert compose.services_in(text)["b"].endswith('      LD_PRELOAD: "a$$b\\"c"\n')
    assert compose.services_in(None) == {}
    kept = compose.services_in(text)
    assert compose.text("/opt/jemalloc", {}, kept) == text
    more = compose.text("/opt/jemalloc", {"b": {"LD_PRELOAD": "z"}, "c": {"LD_PRELOAD": "z"}}, kept)
    assert compose.services_in(more) == {**kept, **dict.fromkeys("bc", compose.services_in(more)["c"])}
