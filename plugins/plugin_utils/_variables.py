# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check the names of all variables, and convert their values once, as their specification says."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import difflib
import os
import re
import typing as t
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.common.validation import check_type_dict
from ansible.module_utils.common.yaml import yaml_load
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _malloc_conf as malloc_conf
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

PREFIX = "jemalloc_"

#: The variables of the role, and of the playbooks that call it, which "" stands for too.
_HERE = os.path.dirname(__file__)
_ROLE = os.path.join(_HERE, "..", "..", "roles", "jemalloc", "meta", "argument_specs.yml")
_PLAYBOOKS = os.path.join(_HERE, "variables.yml")
CALL_THE_ROLE = ("", "site", "rollout", "rollback")

Specification = t.Mapping[str, t.Any]
Values = t.Dict[str, t.Any]


def _read(path: str) -> t.Any:
    """Return the contents of a specification."""
    with open(path, encoding="utf-8") as stream:
        return yaml_load(stream)


# Read before Ansible forks for each host, so once for a fleet.
ROLE: t.Dict[str, Specification] = _read(_ROLE)["argument_specs"]["main"]["options"]
PLAYBOOKS: t.Dict[str, Specification] = _read(_PLAYBOOKS)["options"]
KNOWN = {**ROLE, **PLAYBOOKS}

#: What an entry of a list may have when it is a mapping.
_SETTINGS: t.Dict[str, Specification] = {
    "version": {"type": "str"},
    "malloc_conf": {"type": "malloc_conf", "sample": {"narenas": 2}},
}
ENTRIES: t.Dict[str, t.Dict[str, Specification]] = {
    "jemalloc_services": {
        "name": {"type": "str"},
        "scope": {"type": "str"},
        "must_exist": {"type": "bool"},
        "force": {"type": "bool"},
        "environment": {"type": "dict"},
        **_SETTINGS,
    },
    "jemalloc_containers": {name: {"type": "str"} for name in ("quadlet", "compose", "service")} | _SETTINGS,
    "jemalloc_options": {"cxx": {"type": "bool"}, "prof": {"type": "bool"}, "lg_page": {"type": "int"}},
}

#: The variables that hold releases.
_RELEASES = ("jemalloc_version", "jemalloc_bundle_versions", "jemalloc_profile_version")

#: The variables that hold options of jemalloc, which no argument specification knows as a type.
_OPTIONS = ("jemalloc_malloc_conf", "jemalloc_image_malloc_conf")

#: How to write a value, by its type.
_SAMPLES: t.Dict[str, t.Any] = {"bool": True, "int": 60, "list": ["puma", "sidekiq"], "dict": {"prof": True}}

# A fitting text that is not worth a parser.
_NUMBER = re.compile(r"[+-]?[0-9]+")


class _WrongError(Exception):
    """A value that cannot be converted: why."""


def said(variables: t.Mapping[str, t.Any], template: t.Callable[[t.Any], t.Any], playbook: str = "") -> Values:
    """Return the values of all variables with our prefix, and of aliases that the playbook reads, from all variables.

    A result that a play registered is none of them. Names that do not exist are an error.
    """
    own = specifications(playbook)
    aliases = {alias: name for name, each in own.items() for alias in each.get("aliases", ())}
    names = [name for name in variables if name.startswith(PREFIX)]
    names += [alias for alias in aliases if alias in variables and not alias.startswith(PREFIX)]
    strange = [name for name in names if name not in KNOWN and name not in aliases and not _is_result(variables[name])]
    if strange:
        raise JemallocError(" ".join(_unknown(name, own) for name in sorted(strange)))
    found: Values = {}
    for name in names:
        if name in own or name in aliases:
            try:
                found[name] = plain(template(variables[name]))
            except AnsibleError as error:
                raise JemallocError(f"{name}: its template fails: {error}. Nothing was changed.") from error
    return found


def _is_result(value: t.Any) -> bool:
    """Whether a value is the result of a task."""
    return isinstance(value, Mapping) and "changed" in value and bool({"failed", "skipped"} & set(value))


def specifications(playbook: str) -> t.Dict[str, Specification]:
    """Return the variables that the role or a playbook reads."""
    return {**ROLE, **{name: each for name, each in PLAYBOOKS.items() if playbook in each["playbooks"]}}


def _unknown(name: str, own: t.Iterable[str]) -> str:
    """Return what to write in place of a variable that does not exist."""
    names = [each[len(PREFIX) :] for each in [*own, *(each for each in PLAYBOOKS if each not in own)]]
    near = difflib.get_close_matches(name[len(PREFIX) :], names, n=1)
    rest = f"Did you mean {PREFIX}{near[0]}?" if near else "The page docs/variables.md lists all."
    return f"{name}: the collection preload.jemalloc has no such variable. Nothing was changed. {rest}"


def old_names(given: t.Mapping[str, t.Any], playbook: str) -> t.Dict[str, str]:
    """Return the aliases that are used, each with the name of today."""
    own = specifications(playbook)
    return {alias: name for name, each in own.items() for alias in each.get("aliases", ()) if alias in given}


def converted(given: t.Mapping[str, t.Any], playbook: str = "") -> Values:
    """Return the variables of the role or a playbook by their names without prefix, converted and with defaults.

    A variable that is empty or null counts as not set. One that is not set and has no default is left out.
    """
    found: Values = {}
    old = {name: alias for alias, name in old_names(given, playbook).items()}
    for name, specification in specifications(playbook).items():
        used = name if name in given else old.get(name, name)
        value = given.get(used)
        key = name[len(PREFIX) :]
        if value is not None and value != "":
            found[key] = value_of(name, value, used)
        elif "default" in specification and (name in PLAYBOOKS or playbook in CALL_THE_ROLE):
            found[key] = specification["default"]
        elif specification.get("required"):
            sample = specification["sample"]
            raise JemallocError(
                f"{name}: it is not set, and preload.jemalloc.{playbook} requires it. Nothing was changed. Set it, for "
                f"example with -e {name}={sample}."
            )
    return found


def value_of(name: str, value: t.Any, used: str = "") -> t.Any:
    """Return the value of one variable, converted; used is the name that the user typed."""
    specification = {**KNOWN[name], "type": "malloc_conf"} if name in _OPTIONS else KNOWN[name]
    try:
        done = _convert(value, specification, ENTRIES.get(name))
    except _WrongError as error:
        sample = specification.get("sample", specification.get("default")) or _SAMPLES.get(specification["type"])
        rest = f" Write it as in {used or name}: {_shown(sample)}." if sample is not None else ""
        raise JemallocError(f"{used or name}: {error}. Nothing was changed.{rest}") from error
    if name == "jemalloc_health_url" and "@" in urlsplit(done).netloc:
        raise JemallocError(
            f"{name}: it has a name or a password in it, which results and logs would show. Nothing was changed. Give "
            "an address that answers without."
        )
    for release in _releases(name, done):
        wrong = catalogue.wrong_number(release) if release != "previous" else ""
        if wrong:
            wrong = wrong.replace("latest: true", "jemalloc_latest: true")
            raise JemallocError(f"{used or name}: {wrong} Nothing was changed.")
    return done


def _releases(name: str, value: t.Any) -> t.List[str]:
    """Return the releases that a variable names."""
    if name in _RELEASES:
        return value if isinstance(value, list) else [value]
    entries = value if isinstance(value, list) and name in ENTRIES else []
    return [each["version"] for each in entries if isinstance(each, dict) and each.get("version")]


def _convert(value: t.Any, specification: Specification, entries: t.Optional[t.Mapping[str, Specification]]) -> t.Any:
    """Return a value as a specification says; entries describes the mappings in it."""
    done = _CONVERSIONS.get(specification["type"], lambda each: each)(value)
    if isinstance(done, list):
        element = {"type": specification.get("elements", "raw")}
        done = [_entry(each, entries) if element["type"] == "raw" else _convert(each, element, None) for each in done]
    elif isinstance(done, dict):
        done = _entry(done, entries)
    choices = specification.get("choices")
    if choices and done not in choices:
        raise _WrongError(f"{_shown(done)} is none of {', '.join(choices)}")
    return done


def _entry(value: t.Any, known: t.Optional[t.Mapping[str, Specification]]) -> t.Any:
    """Return an entry of a list, converted as far as it is a mapping."""
    if not isinstance(value, dict) or not known:
        return value
    done = dict(value)
    for key, specification in known.items():
        if done.get(key) is None:
            continue
        try:
            done[key] = _convert(done[key], specification, None)
        except _WrongError as error:
            where = f"{value['name']}: " if "name" in value else ""
            raise _WrongError(f"{where}{key}: {error}") from error
    return done


def _bool(value: t.Any) -> bool:
    """Return a truth value."""
    try:
        return bool(boolean(value))
    except TypeError:
        raise _WrongError(f"{_shown(value)} is neither true nor false") from None


def _int(value: t.Any) -> int:
    """Return a whole number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and float(value).is_integer():
        return int(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return int(value)
    raise _WrongError(f"{_shown(value)} is not a whole number")


def _str(value: t.Any) -> str:
    """Return a text."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _WrongError(f"{_shown(value)} is not a text")
    return str(value)


def _list(value: t.Any) -> t.List[t.Any]:
    """Return a list: from a text in JSON or YAML, or with commas, blanks beside them, or lines."""
    if isinstance(value, str):
        if value.lstrip().startswith(("[", "{")):
            value = _parsed(value)
        else:
            return [each.strip() for each in re.split(r"[,\n]", value) if each.strip()]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return [value]
    if not isinstance(value, list):
        raise _WrongError(f"{_shown(value)} is not a list")
    return value


def _dict(value: t.Any) -> t.Dict[str, t.Any]:
    """Return a mapping: from a text in JSON or YAML, or with names and values."""
    if isinstance(value, str):
        value = _parsed(value) if value.lstrip().startswith(("{", "[")) else _pairs(value)
    if not isinstance(value, dict):
        raise _WrongError(f"{_shown(value)} is not a mapping")
    return value


def _malloc_conf(value: t.Any) -> t.Dict[str, t.Any]:
    """Return options of jemalloc by name: from a mapping, or from the string that jemalloc reads."""
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        try:
            return malloc_conf.options_of(value.strip())
        except JemallocError as error:
            raise _WrongError(str(error).partition(": ")[2].rstrip(".")) from None
    return _dict(value)


def _pairs(value: str) -> t.Any:
    """Return the mapping that a text such as a=1,b=2 stands for."""
    try:
        return check_type_dict(value)
    except (TypeError, ValueError):
        return value


def _parsed(text: str) -> t.Any:
    """Return what a text in JSON or YAML holds."""
    try:
        return yaml_load(text)
    except yaml.YAMLError:
        raise _WrongError(f"{_shown(text)} is neither JSON nor YAML") from None


_CONVERSIONS: t.Dict[str, t.Callable[[t.Any], t.Any]] = {
    "bool": _bool,
    "int": _int,
    "str": _str,
    "path": _str,
    "list": _list,
    "dict": _dict,
    "malloc_conf": _malloc_conf,
}


def plain(value: t.Any) -> t.Any:
    """Return a value without Ansible's own kinds of texts, lists and mappings."""
    if isinstance(value, Mapping):
        return {plain(key): plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [plain(each) for each in value]
    return str.__str__(value) if isinstance(value, str) else value


def _shown(value: t.Any) -> str:
    """Return a value as it is written in YAML, in a line that is not too long."""
    if isinstance(value, str):
        return repr(value[:80])
    return yaml.safe_dump(value, default_flow_style=True, width=1000).replace("\n...", "").strip()[:80]
