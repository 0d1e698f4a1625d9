"""What several kinds of tests share: running a command and showing what it printed when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest

ROOT = Path(__file__).resolve().parent.parent

Run = Callable[..., str]


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
