# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""podman, podman-compose, docker and systemctl for the tests of containers, by the name that this is called by.

Containers are processes of this machine, with the environment that files of ours give them; a program in an image is
the same program of this machine. What there is, and how they misbehave, stands in a file beside this one.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import typing as t

STATE = pathlib.Path(__file__).resolve().parent / "state.json"

State = t.Dict[str, t.Any]


def export(state: State, path: str) -> None:
    """Write the files of an image."""
    with tarfile.open(path, "w") as tar:
        for name, original in state["files"].items():
            data = pathlib.Path(original).read_bytes() if isinstance(original, str) else bytes(original)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            for parent in list(pathlib.PurePosixPath(name).parents)[:-1]:
                directory = tarfile.TarInfo(str(parent))
                directory.type = tarfile.DIRTYPE
                tar.addfile(directory)


def start(state: State, key: str, text: str) -> int:
    """Start the container of a unit anew, with the environment that a file of ours gives it."""
    found = state["containers"][key]
    own = dict(re.findall(r'(LD_PRELOAD|MALLOC_CONF)(?:=|: ")([^"]*)"', text.replace("$$", "$").replace("%%", "%")))
    environment = {**found["env"], **own}
    if found["pid"]:
        os.kill(found["pid"], 9)
    found.update(pid=0, seen=environment)
    if state.get("refuses") and (own or state["refuses"] == "all"):
        return 1
    if state.get("ends") and own:
        return 0
    if state.get("ignores"):
        environment.pop("LD_PRELOAD", None)
    found["pid"] = subprocess.Popen(
        [state["program"], "1000"],
        env={**os.environ, **environment},
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ).pid
    return 0


def engine(state: State, words: t.List[str]) -> int:
    """Be podman or docker."""
    options = dict(each[2:].partition("=")[::2] for each in words if each.startswith("--"))
    names = [each for each in words[1:] if not each.startswith("-")]
    if words[0] in state.get("fails", {}):
        print(state["fails"][words[0]])
        return 125
    if words[0] in ("ps", "container"):
        tell(state, words, names, options)
    elif words[0] == "--version":
        print(f"podman version {state['version']}")
    elif words[0] == "image":
        found = [each for each in state["images"].values() if names[1] in (each["Id"], *each["RepoTags"])]
        print(json.dumps(found) if found else "Error: no such image")
        return 0 if found else 125
    elif words[0] == "pull":
        state["images"].update(state.pop("registry", {}))
    elif words[0] == "export":
        export(state, options["output"])
    elif words[0] == "run":
        variables = [each[len("--env=") :].partition("=")[::2] for each in words if each.startswith("--env=")]
        command = [options["entrypoint"], *words[words.index("image1") + 1 :]]
        return subprocess.run(command, env={**os.environ, **dict(variables)}, check=False).returncode
    elif words[0] == "logs":
        print("what it\nwrote last")
    return 0


def tell(state: State, words: t.List[str], names: t.List[str], options: t.Dict[str, str]) -> None:
    """Tell of containers."""
    if words[0] == "container":
        print(json.dumps([inspected(state["containers"][each], each) for each in names[1:]]))
        return
    wanted = [each.partition("label=")[2] for each in words if "label=" in each]
    for key, found in state["containers"].items():
        if all(each in found["labels"] for each in wanted) and (found["pid"] or "all" in options):
            print(key)


def inspected(found: State, key: str) -> State:
    """Return what an inspection says of a container."""
    seen: t.Dict[str, str] = found["seen"] if "seen" in found else found["env"]
    environment = [f"{name}={value}" for name, value in seen.items()]
    state = {"Pid": found["pid"], "Running": bool(found["pid"])}
    return {
        "Id": key,
        "Image": "sha256:image1",
        "State": state,
        "Config": {"Env": environment, "Labels": found["labels"]},
    }


def systemctl(state: State, words: t.List[str]) -> int:
    """Be systemd; the containers of quadlets have the names of their services."""
    if words[0] in state.get("fails", {}):
        print(state["fails"][words[0]])
        return 4
    if words[0] == "show":
        pid = state["containers"].get(words[-1], {"pid": 0})["pid"]
        print(f"ActiveState={'active' if pid else 'failed'}\nNRestarts={state.get('again', 0)}")
    elif words[0] == "restart":
        quadlet = re.sub(r"@[^.]+", "@", words[-1]).replace(".service", ".container")
        drop_in = pathlib.Path(state["root"], "etc/containers/systemd", f"{quadlet}.d", "zz-preload-jemalloc.conf")
        status = start(state, words[-1], drop_in.read_text() if drop_in.exists() else "")
        if status:
            print(f"Job for {words[-1]} failed.")
        return status
    return 0


def compose(state: State, words: t.List[str]) -> int:
    """Be podman-compose; the containers have the names of their services."""
    if "up" in words or "restart" in words:
        if state.get("hangs"):
            return 124
        status = 0
        overrides = list(pathlib.Path.cwd().glob("*compose.override.y*ml"))
        text = overrides[0].read_text() if overrides else ""
        for key in [key for key in state["containers"] if key.split("-")[0] == words[-1]]:
            mine = text.partition(f'"{words[-1]}":')[2].partition('":\n')[0]
            status = start(state, key, mine) or status
        if status:
            print("Error: it does not start")
        return status
    return int(bool(state.get("no_compose")))


def main() -> int:
    """Do what is asked for, and remember it."""
    name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
    with open(STATE.parent / "calls.log", "a", encoding="utf-8") as log:
        log.write(f"{name} {' '.join(words)}\n")
    state = json.loads(STATE.read_text())
    if name == "docker" and words[0] == "compose":
        name, words = "compose", words[1:]
    programs = {"systemctl": systemctl, "podman": engine, "docker": engine}
    status = programs.get(name, compose)(state, words)
    STATE.write_text(json.dumps(state))
    return status


if __name__ == "__main__":
    sys.exit(main())
