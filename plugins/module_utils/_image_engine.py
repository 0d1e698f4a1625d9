"""What podman and docker are asked about images, and let do with them: by their commands, which are the same."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import json
import os
import re
import shutil
import typing as t
from dataclasses import dataclass, field

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.module_utils._host import with_errors

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run

#: The engines, in the order in which they are looked for.
ENGINES = ("podman", "docker")

# What they say of an image that is not there.
_UNKNOWN = re.compile("no such image|not known|not found|unable to find", re.IGNORECASE)

# The PATH that a container has where its image sets none, of both engines.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Characters of what an engine prints that are enough to see what is wrong.
_MOST_WORDS = 300


@dataclass(frozen=True)
class Image:
    """What an image says of itself; the architecture is by Go's names, layers are the digests of its layers."""

    id: str
    architecture: str
    digest: str = ""
    size: int = 0
    environment: t.Mapping[str, str] = field(default_factory=dict)
    entrypoint: t.Tuple[str, ...] = ()
    command: t.Tuple[str, ...] = ()
    labels: t.Mapping[str, str] = field(default_factory=dict)
    layers: t.Tuple[str, ...] = ()
    names: t.Tuple[str, ...] = ()

    def is_for(self, platform: str) -> bool:
        """Whether it is for a platform such as linux/arm64, or for whatever it is where none is given."""
        return not platform or platform.split("/")[1] == self.architecture

    @property
    def path(self) -> t.List[str]:
        """The directories in which its commands are looked for."""
        return [entry for entry in self.environment.get("PATH", _PATH).split(":") if entry.startswith("/")]


def find(wanted: str) -> str:
    """Return the engine to use; JemallocError when there is none."""
    engines = ENGINES if wanted == "auto" else (wanted,)
    found = next((engine for engine in engines if shutil.which(engine)), "")
    if not found:
        raise JemallocError(
            f"engine: this host has no {' and no '.join(engines)}; install one, or run this on a host that has one."
        )
    return found


def parse(output: str) -> Image:
    """Return the image that an inspection printed; JemallocError when it is not the answer of one."""
    try:
        found = json.loads(output)[0]
        config = found.get("Config") or {}
        pairs = (entry.partition("=") for entry in config.get("Env") or ())
        return Image(
            id=found["Id"].rpartition(":")[2],
            architecture=found["Architecture"],
            digest=_digest(found),
            size=int(found.get("Size") or 0),
            environment={name: value for name, _equals, value in pairs},
            entrypoint=tuple(config.get("Entrypoint") or ()),
            command=tuple(config.get("Cmd") or ()),
            labels=dict(config.get("Labels") or {}),
            layers=tuple((found.get("RootFS") or {}).get("Layers") or ()),
            names=tuple(found.get("RepoTags") or ()),
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise JemallocError(f"the answer is not that of an inspection ({_words(output)})") from error


def _digest(found: t.Mapping[str, t.Any]) -> str:
    """Return the digest of an image's manifest, as registries know it; empty for one that was only made here."""
    named = [name.rpartition("@")[2] for name in found.get("RepoDigests") or ()]
    return str(found.get("Digest") or next(iter(named), ""))


def _words(output: str) -> str:
    """Return what an engine printed as part of a sentence: the errors, where there are any, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return " / ".join(errors or lines[-1:])[:_MOST_WORDS].rstrip(".") or "it printed nothing"


class Engine:
    """podman or docker."""

    def __init__(self, run: Run, name: str) -> None:
        self._run = run
        self.name = name

    def run(
        self, *arguments: str, data: t.Optional[str] = None, limit: int = 0, errors: bool = False
    ) -> t.Tuple[int, str]:
        """Run a command of the engine; return its exit status and its output. limit is in seconds.

        errors: what the command prints to standard error counts as its output, as that of a container's programs does.
        """
        front = ["timeout", "-k", "5", str(limit)] if limit else []
        command = [*front, self.name, *arguments]
        return self._run(with_errors(command) if errors else command, None, data)

    def ask(self, *arguments: str, about: str) -> str:
        """Run a command of the engine that has to succeed; JemallocError begins with what it is about."""
        status, output = self.run(*arguments)
        if status:
            raise JemallocError(f"{about}: {self.name} {arguments[0]} ended with {status}: {_words(output)}.")
        return output

    def image(self, name: str, about: str) -> t.Optional[Image]:
        """Return an image that is here, None when it is not; JemallocError when the engine does not work."""
        if not name or name.startswith("-"):
            raise JemallocError(f"{about}: {name!r} is not the name of an image.")
        status, output = self.run("image", "inspect", name)
        if status and _UNKNOWN.search(output):
            return None
        if status:
            raise JemallocError(f"{about}: {self.name} cannot be asked for {name}: {_words(output)}.")
        try:
            return parse(output)
        except JemallocError as error:
            raise JemallocError(f"{about}: {self.name} cannot be asked for {name}: {error}.") from error

    def pulled(self, name: str, about: str, always: bool = False, platform: str = "") -> Image:
        """Return an image, which is brought from its registry if it is not here, or not for this platform, or always.

        One that is here for another architecture keeps its name where none is brought in its place.
        """
        found = self.image(name, about)
        if found is None or always or not found.is_for(platform):
            options = [f"--platform={platform}"] if platform else []
            status, output = self.run("pull", *options, name)
            if status and found and not found.is_for(platform):
                raise JemallocError(f"{self.misfit(about, name, found, platform)} ({_words(output)}).")
            if status:
                raise JemallocError(f"{about}: {self.name} pull ended with {status}: {_words(output)}.")
            found = self.image(name, about)
        if found is None:
            raise JemallocError(f"{about}: {self.name} pulled {name} and does not have it; name it in full.")
        if not found.is_for(platform):
            raise JemallocError(f"{self.misfit(about, name, found, platform)}.")
        return found

    @staticmethod
    def misfit(about: str, name: str, found: Image, platform: str) -> str:
        """Return that an image is for another platform than the wanted one, as a sentence without its end."""
        return f"{about}: {name} is for linux/{found.architecture}, and {platform} is wanted; name one for that"

    def export(self, image: Image, name: str, path: str, about: str = "base") -> None:
        """Write the files of an image to an archive, by way of a container of that name in which nothing is run."""
        self.remove(name)  # a killed run may have left it
        try:
            self.ask("create", f"--name={name}", "--network=none", image.id, "/nothing", about=about)
            self.ask("export", f"--output={path}", name, about=about)
        finally:
            self.remove(name)

    def name_for_builder(self, image: Image, name: str) -> str:
        """Return how a Containerfile is to call an image: by its id, which docker's builder does not take."""
        return image.id if self.name == "podman" else name

    def remove(self, name: str) -> None:
        """Remove a container, which may run, or not be there."""
        self.run("rm", "--force", name)

    def build(self, directory: str, platform: str = "") -> str:
        """Build the Containerfile of a directory, whose context is in context; return the image's id.

        platform is what it is for, where that is not what the engine builds for by itself.
        """
        listed, context = os.path.join(directory, "id"), os.path.join(directory, "context")
        where = [f"--file={directory}/Containerfile", f"--iidfile={listed}", "--pull=false"]
        where += [f"--platform={platform}"] if platform else []
        self.ask("build", *where, context, about="base")
        with open(listed, encoding="ascii") as stream:
            return stream.read().strip().rpartition(":")[2]

    def discard(self, image: str) -> None:
        """Remove an image that has no name; one that has a name was there before, and stays."""
        found = self.image(image, "tag")
        if found and not found.names:
            self.run("rmi", image)
