# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role: from its converted variables to the options of modules, and to the tasks that come next."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import re
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _malloc_conf as malloc_conf
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _variables as variables_util

Values = t.Dict[str, t.Any]

#: The options of the module jemalloc that are variables of the role.
_INSTALLATION = (
    *("version", "checksum", "latest", "method", "bundle", "bundle_checksum", "keep", "verify", "ca_path", "prefix"),
    *("origins", "options", "build_packages", "cache", "cache_size", "cache_mirror", "cache_mirror_checksum"),
    *("build_host", "build_shared"),
)

#: The options of the module jemalloc_preload, each with the variable that it comes from.
_SCOPES = {
    "host": "enabled",
    "via": "enabled_via",
    "malloc_conf": "malloc_conf",
    "exclude": "exclude",
    "services": "services",
    "purge": "purge",
    "prefix": "prefix",
}

#: What to do where the whole host gets no options.
_FOR_ONE = "For one service write malloc_conf in its entry of jemalloc_services."

#: What counts for the release of the role only, not for another one.
_OF_THE_RELEASE = ("checksum", "latest", "bundle_checksum")

#: What later tasks do not read; an address can have a password in it.
_NOT_SHOWN = ("origins", "bundle", "cache_mirror", "checksum", "bundle_checksum", "cache_mirror_checksum")

#: The options of other modules that are variables of the role, each with the variable that it comes from.
_OTHERS = {
    "jemalloc_service": {"timeout": "timeout"},
    "jemalloc_container": {"containers": "containers", "timeout": "timeout"},
    "jemalloc_metrics": {"directory": "metrics_directory", "interval": "metrics_interval"},
}

#: The modules whose messages quote what services wrote: only the beginning is their own.
_QUOTING = ("jemalloc_service", "jemalloc_container")

#: An option at the beginning of a message, or with a value in it, as in "use method: auto".
_OPTION = r"(?<![\w.:/-])({})(?=: )"


def options(variables: Values, given: t.Mapping[str, t.Any]) -> Values:
    """Return the options of the module jemalloc; those that a task gives win.

    A task that gives a version installs another release than the one of the role. Without current nothing is pruned.
    """
    found = {name: variables[name] for name in _INSTALLATION if name in variables}
    if given.get("version"):
        found = {name: value for name, value in found.items() if name not in _OF_THE_RELEASE}
        if found["method"] == "package":  # which release a package is, the distribution says
            found["method"] = "auto"
    if given.get("current") is False:
        found.pop("keep", None)
    if given.get("build") != "chosen":  # what builds for others has not to have them
        found["for_services"] = variables.get("services", [])
        found["for_metrics"] = variables.get("metrics", False)
    found["build"] = "now" if found["method"] == "source" else "never"
    return {**found, **given}


def scopes(variables: Values) -> Values:
    """Return the options of the module jemalloc_preload; a scope that is not set is left out."""
    return {option: variables[name] for option, name in _SCOPES.items() if name in variables}


def check_options(variables: Values) -> None:
    """Refuse options of jemalloc that the release does not have, before any host is asked.

    A host checks what it alone knows, such as how its library was built; by then it has the release.
    """
    given = variables.get("malloc_conf")
    if given and variables.get("enabled") and variables["enabled_via"] != "environment":
        raise JemallocError(f"malloc_conf: it needs via: environment. Nothing was changed. {_FOR_ONE}")
    current = "" if variables["latest"] or variables["method"] == "package" else variables.get("version")
    current = catalogue.DEFAULT_VERSION if current is None else current
    entries = [each for each in variables.get("services", []) if isinstance(each, dict)]
    wanted = [(f"services: {each.get('name')}: ", each.get("malloc_conf"), each.get("version")) for each in entries]
    for where, conf, version in [("", given, None), *wanted]:
        release = version or current
        if conf and release and release != "previous":
            try:
                malloc_conf.encode(malloc_conf.options_of(conf), release, cpus=1)
            except JemallocError as error:
                raise JemallocError(f"{where}{error} Nothing was changed.") from None


def without_effect(variables: Values) -> str:
    """Return a warning of what has no effect, as another variable is not defined; empty where there is nothing."""
    if not variables.get("malloc_conf") or "enabled" in variables:
        return ""
    return f"jemalloc_malloc_conf: it has no effect, as jemalloc_enabled is not defined. {_FOR_ONE}"


def releases(variables: Values) -> t.List[str]:
    """Return the releases that services and containers ask for."""
    entries = [*variables.get("services", []), *variables.get("containers", [])]
    found = [each["version"] for each in entries if isinstance(each, dict) and each.get("version")]
    return list(dict.fromkeys(found))


def builders(variables: Values, groups: t.Mapping[str, t.Sequence[str]], host: str) -> t.List[str]:
    """Return the hosts that a build is delegated to, one after the other until one has the platform."""
    chosen = variables.get("build_host", host)
    return [str(each) for each in groups.get(chosen) or [chosen]]


def shown(variables: Values) -> Values:
    """Return the variables that later tasks read."""
    return {name: value for name, value in variables.items() if name not in _NOT_SHOWN}


def next_tasks(variables: Values, result: t.Mapping[str, t.Any]) -> str:
    """Return the name of the file with the tasks that come after the first call; nothing where nothing is left to do.

    It is one file: a loop over several would run them in another order where hosts differ.
    """
    if variables["state"] == "absent":
        return "remove"
    containers, up_to_date = "containers" in variables, bool(result.get("scopes"))
    if result.get("missing") or (releases(variables) and (containers or not up_to_date)):
        return "build"
    if containers or "metrics" in variables:
        return "more"
    return "" if up_to_date else "preload"


def in_variables(message: str, module: str = "jemalloc") -> str:
    """Return a message of a module with the variables of the role in place of its options."""
    names = {**{option: option for option in (*_INSTALLATION, "state")}, **_SCOPES, **_OTHERS.get(module, {})}
    pattern = re.compile(("^" if module in _QUOTING else "") + _OPTION.format("|".join(names)))
    return pattern.sub(lambda match: variables_util.PREFIX + names[match.group(1)], message)
