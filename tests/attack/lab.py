# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet whose last host is in the hands of somebody else: its Python rewrites what modules answer."""

from __future__ import annotations

import contextlib
import json
import typing as t
from pathlib import Path

from tests.conftest import Run
from tests.fleet import lab

#: Rewrites what modules print on a host, whose Python loads it at every start: values of the key missing, of the answer
#: that has a bundle, of all answers, and what is printed beside an answer.
SITECUSTOMIZE = """
import json, sys

class Liar:
    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        try:
            answer, lies = json.loads(text), json.load(open("/root/lies.json"))
        except ValueError:
            return self.stream.write(text)
        if isinstance(answer, dict):
            if answer.get("missing"):
                answer["missing"].update(lies.get("missing", {}))
            if "content" in answer:
                answer.update(lies.get("packed", {}))
            answer.update(lies.get("answer", {}))
        return self.stream.write(json.dumps(answer) + lies.get("beside", ""))

sys.stdout = Liar(sys.stdout)
"""


@contextlib.contextmanager
def taken_over(run: Run, directory: Path, hosts: int, **place: str) -> t.Iterator[lab.Fleet]:
    """Start hosts that are alike, and take over the last one."""
    with lab.fleet(run, directory, ("bookworm",) * hosts, **place) as made:
        script = "cat > $(python3 -c 'import sysconfig; print(sysconfig.get_path(\"stdlib\"))')/sitecustomize.py"
        lie(made)
        put(made, made.hosts[-1], "/root/sitecustomize.py", SITECUSTOMIZE)
        made.shell(made.hosts[-1], f"{script} < /root/sitecustomize.py")
        yield made


def put(fleet: lab.Fleet, host: str, path: str, text: str) -> None:
    """Write a file on a host."""
    file = fleet.directory / "put"
    file.write_text(text)
    fleet.run("podman", "cp", str(file), f"{host}:{path}")


def lie(fleet: lab.Fleet, **lies: t.Any) -> None:
    """Let the last host answer so: missing, packed, answer, beside. Without any of these it tells the truth."""
    put(fleet, fleet.hosts[-1], "/root/lies.json", json.dumps(lies))
