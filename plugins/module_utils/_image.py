"""An image with jemalloc: the recipe that it is made by, the Containerfile and the one layer that come of it."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _environment as environment
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _wrapper as wrapper
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._image_engine import Image

#: How an image is to be made; all of it, and what library it got (library), stands in one of its labels.
Recipe = t.Dict[str, t.Any]

#: Begins the names of our labels.
LABEL = "preload.jemalloc."

#: The layer's name in the build's context.
LAYER = "layer.tar"

#: Where the wrappers are found by their names.
COMMANDS = "/usr/local/bin"

_RECIPE, _DIGEST, _PLATFORM = f"{LABEL}recipe", f"{LABEL}library-sha256", f"{LABEL}platform"
_WRAPPERS = ("jemalloc.sh", "no-jemalloc.sh")

# What a later version of this collection makes in another way gets a higher number, and images are made anew.
_FORMAT = 1

# The grammar of names, github.com/distribution/reference: a host and its port, directories, a tag.
_DOMAIN = r"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?/)?"
_TAG = re.compile(rf"{_DOMAIN}[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?P<tag>:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?")

# Names of labels, as the OCI's specification of annotations wants them.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


def check_tag(tag: str, base: str) -> str:
    """Return the name of an image in full, with a tag; JemallocError for what is no name, or is that of the base."""
    found = _TAG.fullmatch(tag)
    if not found:
        raise JemallocError(f"tag: {tag!r} is not the name of an image; write it like team/app:1.0, in small letters.")
    whole = tag if found["tag"] else f"{tag}:latest"
    if base in (tag, whole):
        raise JemallocError(
            f"tag: {tag} is the base itself, which the next run could not find any more; take another name."
        )
    return whole


def check_labels(labels: t.Mapping[str, t.Any]) -> t.Dict[str, str]:
    """Return labels as texts; JemallocError for a name or a value that a label cannot have."""
    found = {str(name): str(value) for name, value in labels.items()}
    for name, value in found.items():
        if not _NAME.fullmatch(name) or name.startswith(LABEL):
            raise JemallocError(
                f"labels: {name!r} cannot be set; take letters, digits and ._/- and another start than {LABEL}"
            )
        if any(ord(letter) < ord(" ") for letter in value):
            raise JemallocError(f"labels: the value of {name} holds a line break or control character; leave it out.")
    return found


def recipe(base: Image, start: str, params: t.Mapping[str, t.Any], release: str, conf: str) -> Recipe:
    """Return how an image is to be made of a base by the module's parameters, but for the library.

    start is how the engine's builder knows the base. JemallocError for a base that has jemalloc from here already.
    """
    if _RECIPE in base.labels:
        raise JemallocError(
            f"base: {params['base']} was itself made with jemalloc; name the image that it was made of, which its "
            "label org.opencontainers.image.base.name has."
        )
    prefix = params["prefix"]
    others = [
        entry
        for entry in environment.entries(base.environment.get("LD_PRELOAD", ""))
        if not entry.startswith(f"{prefix}/")
    ]
    front = f"{COMMANDS}/jemalloc.sh"
    started = [front, *base.entrypoint] if params["entrypoint"] else []
    texts = json.dumps(wrapper.texts(prefix), sort_keys=True)
    return {
        "format": _FORMAT,
        "base": params["base"],
        "base_id": base.id,
        "from": start,
        "base_digest": base.digest,
        "release": release,
        "options": params["options"],
        "prefix": prefix,
        "wrappers": hashlib.sha256(texts.encode("ascii")).hexdigest(),
        "ld_preload": ":".join([store.library(prefix), *others]) if params["enabled"] else "",
        "malloc_conf": conf,
        "entrypoint": started,
        # An image that gets an entry point loses the command of its base.
        "command": list(base.command) if started else [],
        "labels": check_labels(params["labels"]),
    }


def recipe_of(image: t.Optional[Image]) -> Recipe:
    """Return the recipe that an image was made by, empty for one that was not made here."""
    try:
        found = json.loads(image.labels[_RECIPE]) if image else {}
        return found if containerfile(found) else {}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def suits(present: Recipe, wanted: Recipe, source: t.Optional[str], bundle: t.Optional[str]) -> bool:
    """Whether an image is as it is to be; a digest of the source or of the bundle counts where it is given."""
    library = present.get("library") or {}
    return (
        {key: value for key, value in present.items() if key != "library"} == wanted
        and source in (None, library.get("source"))
        and bundle in (None, library.get("bundle"))
    )


def with_library(wanted: Recipe, receipt: t.Mapping[str, t.Any], bundle: str, platform: str) -> Recipe:
    """Return a recipe with the library that a bundle of this digest brings."""
    library = {
        "libc": receipt["platform"]["libc"],
        "platform": platform,
        "source": receipt["source"]["sha256"],
        "sha256": receipt["library_sha256"],
        "bundle": bundle,
    }
    return {**wanted, "library": library}


def labels(whole: Recipe) -> t.Dict[str, str]:
    """Return the labels that say what a build came to: it is not known before, and so no part of what a diff shows."""
    library = whole["library"]
    return {_PLATFORM: library["platform"], _DIGEST: library["sha256"], _RECIPE: json.dumps(whole, sort_keys=True)}


def containerfile(found: Recipe, more: t.Optional[t.Mapping[str, str]] = None) -> str:
    """Return the Containerfile of a recipe, with more labels; empty where there is no recipe."""
    if not found:
        return ""
    variables = {"LD_PRELOAD": found["ld_preload"], "MALLOC_CONF": found["malloc_conf"]}
    described = {
        "org.opencontainers.image.base.name": found["base"],
        "org.opencontainers.image.base.digest": found["base_digest"],
        f"{LABEL}release": found["release"],
        **found["labels"],
        **(more or {}),
    }
    lines = [
        f"# {found['base']} with jemalloc {found['release']}, made by the Ansible collection preload.jemalloc",
        f"FROM {found['from']}",
        f"ADD {LAYER} /",
        _line("ENV", variables),
        _line("LABEL", described),
    ]
    if found["entrypoint"]:
        lines += [f"ENTRYPOINT {json.dumps(found['entrypoint'])}", f"CMD {json.dumps(found['command'])}"]
    return "".join(f"{line}\n" for line in lines if line)


def _line(instruction: str, pairs: t.Mapping[str, str]) -> str:
    """Return an instruction of pairs, empty where none has a value."""
    words = [f"{name}={_quoted(value)}" for name, value in pairs.items() if value]
    return f"{instruction} {' '.join(words)}" if words else ""


def _quoted(value: str) -> str:
    """Return a value as a Containerfile has it, in which quotes, backslashes and dollars count."""
    return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'


def layer(tree: str, prefix: str, release: str) -> bytes:
    """Return the layer for an installation's tree: nothing in it depends on who makes it, when and where."""
    members: t.Dict[str, t.Union[bytes, str, None]] = {}
    modes: t.Dict[str, int] = {}
    for directory, _directories, names in os.walk(tree):
        inside = os.path.normpath(os.path.join(prefix, release, os.path.relpath(directory, tree)))
        members[inside] = None
        for name in names:
            path, target = os.path.join(directory, name), f"{inside}/{name}"
            if os.path.islink(path):
                members[target] = os.readlink(path)
                continue
            with open(path, "rb") as stream:
                members[target] = stream.read()
            modes[target] = 0o755 if os.access(path, os.X_OK) else 0o644
    members[prefix] = None
    members[f"{prefix}/current"] = release
    for name in _WRAPPERS:
        members[f"{COMMANDS}/{name}"] = f"{prefix}/current/bin/{name}"
    return _packed(members, modes)


def _packed(members: t.Mapping[str, t.Union[bytes, str, None]], modes: t.Mapping[str, int]) -> bytes:
    """Return a tar of directories (None), links (a text) and files (bytes) by their absolute paths, all root's."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, content in sorted(members.items()):
            member = tarfile.TarInfo(path.lstrip("/"))
            member.mode = modes.get(path, 0o755)
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, content, 0o777
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return packed.getvalue()
