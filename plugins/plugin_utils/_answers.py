# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The answers of hosts: input from an enemy, parsed by type, grammar and bound before anything of it is used.

A host that is taken over answers anything: it rewrites what a module prints there. Its answer never is a path, a URL or
text with control characters here, and what it asks for is compared with what the task asks for.
"""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import operator
import re
import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archive
from ansible_collections.preload.jemalloc.plugins.module_utils import _arguments as arguments
from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundle
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _shapes as shapes
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _cache as caching

#: The largest answer: a host with 10,000 processes in 5,000 units returns less than half of it.
MOST_VALUES = 500_000
MOST_CHARACTERS = 12 << 20
MOST_LEVELS = 32

# What steers a terminal, ends a line without being seen, or turns the direction of writing; line feed and tab are fine.
_CONTROLS = (
    *(number for number in range(0x20) if chr(number) not in "\n\t"),
    *range(0x7F, 0xA0),
    *(0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)),
    *range(0xD800, 0xE000),
)
# What a service wrote may be colored.
_COLOR = re.compile(r"\x1b\[[0-9;]{0,32}m")

_PLAIN = dict.fromkeys(_CONTROLS, "\N{REPLACEMENT CHARACTER}")

_NAME = shapes.text(r"(?!\.)[A-Za-z0-9:_.\\@-]+", 255)
_LINE = shapes.printable(4096)
_RELEASES = shapes.list_of(shapes.VERSION, 1000)
_STORE: t.Dict[str, shapes.Shape] = {
    "installations": _RELEASES,
    "current": shapes.optional(_LINE),
    "previous": shapes.optional(_LINE),
}

#: What a build would have to be, as jemalloc and jemalloc_image return it.
MISSING: t.Dict[str, shapes.Shape] = {
    "version": shapes.VERSION,
    "checksum": shapes.optional(shapes.text("sha256:[0-9a-f]{64}")),
    "sources": shapes.list_of(shapes.SHA256, 8),
    "options": shapes.OPTIONS,
    "architecture": shapes.ARCHITECTURE,
    "libc": shapes.LIBC,
    "libc_version": shapes.LIBC_VERSION,
    "lg_page": shapes.LG_PAGE,
}

_ANY = shapes.leaf(lambda _value: True)
_UNITS, _UID = 100_000, shapes.number(0, 1 << 32)


def _having(expected: t.Mapping[str, shapes.Shape]) -> shapes.Shape:
    """Return the shape of mappings with some names that the controller reads, among others."""
    return shapes.leaf(
        lambda value: isinstance(value, dict) and all(shape(value.get(key)) is None for key, shape in expected.items())
    )


_NAMES = shapes.list_of(_NAME, 100_000)
_SCOPES: t.Dict[str, shapes.Shape] = {"named": _NAMES, "removed": _NAMES}
_SCOPED = shapes.leaf(
    lambda value: isinstance(value, dict) and all(shape(value.get(name, [])) is None for name, shape in _SCOPES.items())
)
_LIBRARY: t.Dict[str, shapes.Shape] = {
    "version": shapes.optional(shapes.VERSION),
    "library": shapes.optional(shapes.HOME),
    "built": shapes.optional(shapes.VERSION),
    "missing": shapes.optional(shapes.record(MISSING)),
}

#: What modules return that this collection reads on the controller, or the role in its expressions; the rest is only
#: shown. A name may be missing, except where the controller needs all of them.
_WHOLE = ("jemalloc_profile",)
RETURNS: t.Dict[str, t.Dict[str, shapes.Shape]] = {
    "jemalloc": {
        **_LIBRARY,
        **_STORE,
        "packages": shapes.list_of(_LINE, 1000),
        "stays": shapes.list_of(_LINE, 1000),
        "scopes": shapes.optional(_SCOPED),
        "diff": shapes.record({"before": shapes.record(_STORE), "after": shapes.mapping_of(_LINE, _ANY, 10)}),
    },
    "jemalloc_preload": {
        **_SCOPES,
        "restarts": shapes.list_of(
            _having({"name": _NAME, "uid": shapes.optional(_UID), "along": shapes.optional(_NAMES)}), _UNITS
        ),
    },
    "jemalloc_service": {"processes": shapes.mapping_of(_LINE, shapes.number(0, 1 << 32), _UNITS)},
    "jemalloc_container": {
        "proved": shapes.list_of(_LINE, _UNITS),
        "containers": shapes.list_of(_having({"name": _LINE, "reason": _LINE}), _UNITS),
    },
    "jemalloc_image": _LIBRARY,
    "jemalloc_bundle": {"version": shapes.VERSION, "sha256": shapes.SHA256, "platform": _NAME},
    "jemalloc_profile": {
        "unit": _NAME,
        "version": shapes.VERSION,
        "began": shapes.text("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{6}Z"),
        "seconds": shapes.quantity(1e9),
        "early": _LINE,
        "processes": shapes.list_of(shapes.record({"pid": shapes.number(0, 1 << 32), "program": _LINE}), 100_000),
        "top": shapes.list_of(shapes.record({"function": shapes.printable(1 << 16), "mb": shapes.quantity(1e12)}), 100),
        "left_out": shapes.list_of(shapes.printable(1 << 16), 1000),
    },
}

# Whether it failed decides what is read at all.
_ALWAYS: t.Dict[str, shapes.Shape] = {"failed": shapes.BOOLEAN, "changed": shapes.BOOLEAN}

Answer = t.Dict[str, t.Any]


class AnswerError(JemallocError):
    """A host answered what its module never returns; nothing of the answer was used."""

    def __init__(self, host: str, module: str, wrong: str) -> None:
        super().__init__(
            f"{host}: the answer of its module {module} is refused, {wrong}. Nothing of it was used. Look for what "
            "changes the answers of that host: its Python, its files, or another version of this collection."
        )


def check(host: str, module: str, answer: t.Any) -> Answer:
    """Return what a module of ours answered on a host, checked as far as this collection reads it.

    The reason of a failure is only shown, so nothing else of such an answer is looked at.
    """
    if not isinstance(answer, dict):
        raise AnswerError(host, module, "it is no mapping")
    _compare(host, module, answer, _ALWAYS)
    if not answer.get("failed"):
        _compare(host, module, answer, RETURNS.get(module, {}), whole=module in _WHOLE)
    return answer


def _compare(
    host: str, module: str, answer: Answer, expected: t.Mapping[str, shapes.Shape], whole: bool = False
) -> None:
    for name, shape in expected.items():
        flaw = shape(answer[name]) if name in answer else "" if whole else None
        if flaw is not None:
            raise AnswerError(host, module, f"{name}{flaw} is not of the form that it has to have")


def need_of(host: str, module: str, missing: t.Any, task: t.Mapping[str, t.Any]) -> caching.Need:
    """Return the build that a host needs: as the task asks for, and for the platform that the host says it has.

    missing is what the module returned, now or in another task of the play.
    """
    flaw = shapes.record(MISSING)(missing)
    if flaw is not None:
        raise AnswerError(host, module, f"missing{flaw} is not of the form that it has to have")
    if task.get("method") == "package" or task.get("version") == "previous" or task.get("state") == "absent":
        raise AnswerError(host, module, "missing is set where this task leaves nothing to build")
    release, wanted = _asked(task)
    for name, value in wanted.items():
        if missing[name] != value:
            raise AnswerError(host, module, f"missing.{name} is not what this task asks for")
    architecture, libc, version = (str(missing[name]) for name in ("architecture", "libc", "libc_version"))
    here = platform.Here(architecture, libc, version, int(missing["lg_page"]))
    return caching.Need(release.version, tuple(wanted["sources"]), wanted["options"], here)


def _asked(task: t.Mapping[str, t.Any]) -> t.Tuple[catalogue.Release, t.Dict[str, t.Any]]:
    """Return the release that a task asks for, and what the answer missing has to say of it."""
    validated = ArgumentSpecValidator({"options": arguments.LIBRARY["options"]}).validate(
        {"options": task.get("options") or {}}
    )
    if validated.error_messages:
        raise JemallocError(f"options: {'; '.join(validated.error_messages)}.")
    version, checksum = (str(task[key]) if task.get(key) else None for key in ("version", "checksum"))
    release = catalogue.find_release(version, checksum)
    return release, {
        "version": release.version,
        "checksum": f"sha256:{release.sha256}" if checksum else None,
        "sources": [release.sha256, *(packing.sha256 for packing in release.packings)],
        "options": {**arguments.OPTIONS, **validated.validated_parameters["options"]},
    }


def bundle_of(host: str, module: str, answer: Answer) -> t.Tuple[bytes, t.Dict[str, t.Any]]:
    """Return the bundle that a module packed, and the manifest in it, with which the rest of the answer must agree."""
    data = _decoded(host, module, answer.get("content"))
    try:
        manifest = bundle.read_manifest(data)
    except JemallocError as error:
        raise AnswerError(
            host, module, f"content is no bundle of this collection ({str(error).rstrip('.')})"
        ) from error
    true = {
        "version": manifest["release"],
        "platform": platform.name(manifest),
        "receipt": bundle.portable(manifest),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    for name in ("receipt",) if module == "jemalloc_image" else true:
        if answer.get(name) != true[name]:
            raise AnswerError(host, module, f"{name} is not that of the bundle in content")
    return data, manifest


def _decoded(host: str, module: str, content: t.Any) -> bytes:
    """Return the bytes of a text in Base64."""
    if not isinstance(content, str) or len(content) > archive.MAX_PACKED * 4 // 3 + 4:
        raise AnswerError(host, module, f"content is no text for at most {archive.MAX_PACKED >> 20} MiB")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise AnswerError(host, module, "content is not in Base64") from error


def plain(text: str) -> str:
    """Return a text without anything that steers a terminal; line feeds and tabs stay."""
    return text if text.isprintable() else _COLOR.sub("", text).translate(_PLAIN)


def line(text: str) -> str:
    """Return a text in one line that UTF-8 can hold, without anything that is not printable."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    if whole.isprintable():
        return whole
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in whole)


class TooLargeError(Exception):
    """An answer has more values, levels or characters than a host can have to say."""


def clean(answer: t.Any) -> t.Any:
    """Return an answer with every text in it plain, at any level; TooLargeError: it is too large for an answer."""
    return _Cleaner().clean(answer)


class _Cleaner:
    """Cleans one answer, and counts what it has."""

    def __init__(self) -> None:
        self._values, self._characters = MOST_VALUES, MOST_CHARACTERS

    def clean(self, value: t.Any, level: int = 0) -> t.Any:
        """Return a value with plain texts; one that has no others is returned as it is."""
        self._values -= 1
        self._characters -= len(value) if isinstance(value, str) else 0
        if self._values < 0 or self._characters < 0 or level > MOST_LEVELS:
            raise TooLargeError
        if isinstance(value, str):
            return plain(value)
        if isinstance(value, dict):
            mapping = {self.clean(key): self.clean(each, level + 1) for key, each in value.items()}
            same = all(map(operator.is_, [*mapping, *mapping.values()], [*value, *value.values()]))
            return value if same and len(mapping) == len(value) else mapping
        if isinstance(value, (list, tuple)):
            items = [self.clean(each, level + 1) for each in value]
            return value if all(map(operator.is_, items, value)) else items if isinstance(value, list) else tuple(items)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):  # Ansible's own errors and warnings
            fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value) if each.init}
            return dataclasses.replace(value, **self.clean(fields, level))
        return value
