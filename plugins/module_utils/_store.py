"""The store: installations beside each other, the links current and previous, and what a run is going to change."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import glob
import json
import os
import re
import typing as t
from dataclasses import dataclass, field

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _wrapper as wrapper
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

RECEIPT = "receipt.json"

#: Where the role builds for other hosts, the default of its jemalloc_build_prefix.
BUILD_PREFIX = "/opt/jemalloc-build"
LOCK = ".lock"
STAGING = ".staging"
LINKS = ("current", "previous")

# The prefix ends up in LD_PRELOAD (where blanks and colons separate), in unit files (%, quotes, backslash) and in
# shell scripts. None of these characters is worth a quoting rule in each.
_PREFIX = re.compile(r"(/[A-Za-z0-9._+@-]+)+")

_INSTALLATION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")


@dataclass(frozen=True)
class Wish:
    """What an installation has to be: release, build options, and where it may come from.

    The digests of source, bundle and packaged library count where they are given; the library's only for a package.
    """

    version: str
    options: t.Mapping[str, t.Any] = field(default_factory=dict)
    method: str = "auto"
    source: t.Optional[str] = None
    bundle: t.Optional[str] = None
    packaged: t.Optional[str] = None


@dataclass(frozen=True)
class Installation:
    """One directory of the store; damage says what is wrong with it, empty when it is as its receipt says."""

    version: str
    receipt: t.Mapping[str, t.Any]
    damage: str = ""

    def suits(self, wish: Wish) -> bool:
        """Whether it is what was asked for. A packaged library is built in its distribution's way, whatever that is."""
        receipt = self.receipt
        packaged = receipt.get("method") == "package"
        if self.damage or packaged != (wish.method == "package"):
            return False
        if packaged:
            return wish.packaged in (None, receipt.get("library_sha256"))
        return (
            receipt.get("options") == wish.options
            and wish.source in (None, receipt.get("source", {}).get("sha256"))
            and (wish.method != "bundle" or wish.bundle in (None, receipt.get("bundle")))
        )


@dataclass(frozen=True)
class Store:
    """What stands in a prefix."""

    prefix: str
    installations: t.Mapping[str, Installation] = field(default_factory=dict)
    current: t.Optional[str] = None
    previous: t.Optional[str] = None
    stale_wrappers: t.Tuple[str, ...] = ()
    foreign: t.Tuple[str, ...] = ()
    exists: bool = False

    def describe(self) -> t.Dict[str, t.Any]:
        """Return what a diff shows."""
        return {
            "installations": sorted(self.installations, key=catalogue.version_number),
            "current": self.current,
            "previous": self.previous,
        }


@dataclass(frozen=True)
class Plan:
    """What a run is going to do: the store after it, and the steps in their order."""

    after: t.Mapping[str, t.Any]
    install: t.Optional[str] = None
    reason: str = ""
    wrappers: t.Tuple[str, ...] = ()
    switch: t.Optional[str] = None
    remove: t.Tuple[str, ...] = ()
    unlink: bool = False
    remove_prefix: bool = False

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.install or self.wrappers or self.switch or self.remove or self.unlink or self.remove_prefix)


def library(prefix: str, version: str = "current") -> str:
    """Return the path of the library: that of current is the same for every release and through every switch."""
    return f"{prefix}/{version}/lib/libjemalloc.so"


def check_prefix(prefix: str) -> str:
    """Return the prefix without a trailing slash when a store can be there."""
    prefix = check_name(prefix)
    if os.path.lexists(prefix) and not os.path.isdir(prefix):
        raise JemallocError(f"prefix: {prefix} is there and is not a directory; move it away or name another prefix.")
    parent = os.path.dirname(prefix)
    if not os.path.isdir(parent):
        raise JemallocError(f"prefix: {parent} is not a directory; make it, or name another prefix than {prefix}.")
    return prefix


def check_name(prefix: str) -> str:
    """Return the prefix without a trailing slash when it has the form of one, wherever that is."""
    prefix = prefix.rstrip("/") or "/"
    if not _PREFIX.fullmatch(prefix) or os.path.normpath(prefix) != prefix:
        raise JemallocError(
            f"prefix: {prefix!r} cannot hold the store; name an absolute path of letters, digits and ._+@- such as "
            "/opt/jemalloc."
        )
    return prefix


def read(prefix: str, verify: bool = True, wanted: t.Optional[str] = None) -> Store:
    """Return what stands in a prefix; entries that are not recognised are left out, and so left alone.

    Without verify only the wanted and the current installation are held against their receipts, byte for byte.
    """
    if not os.path.isdir(prefix):
        return Store(prefix)
    names = sorted(set(os.listdir(prefix)) - {LOCK, STAGING, *LINKS})
    current = read_link(prefix, "current")
    found = (
        read_installation(prefix, name, verify or name in (wanted, current))
        for name in names
        if _INSTALLATION.fullmatch(name)
    )
    installations = {installation.version: installation for installation in found if installation}
    texts = wrapper.texts(prefix)
    return Store(
        prefix,
        installations,
        current=current,
        previous=read_link(prefix, "previous"),
        stale_wrappers=tuple(
            version
            for version in installations
            if any(files.read_text(f"{prefix}/{version}/{name}") != text for name, text in texts.items())
        ),
        foreign=tuple(name for name in names if name not in installations and not _is_temporary(name)),
        exists=True,
    )


def usable(store: Store, version: str, name: str) -> Installation:
    """Return the installation of a release, which may be preloaded by this name in the store, itself or current.

    JemallocError when it may not.
    """
    installation = store.installations.get(version)
    if installation is None or installation.damage:
        reason = installation.damage if installation else "no such release is installed there"
        raise JemallocError(
            f"{store.prefix}/{name} cannot be preloaded: {reason}; run preload.jemalloc.jemalloc with this prefix "
            "first."
        )
    page, here = installation.receipt.get("platform", {}).get("lg_page"), platform.here().lg_page
    if page is not None and page < here:
        raise JemallocError(
            f"{store.prefix}/{version} was built for pages of {1 << page} bytes, this host uses {1 << here}; build it "
            "here by method: source."
        )
    return installation


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(files.TEMPORARY_SUFFIX)


def read_link(prefix: str, name: str) -> t.Optional[str]:
    """Return the name of the installation that the link current or previous leads to."""
    try:
        return os.readlink(f"{prefix}/{name}")
    except OSError:
        return None


def read_installation(prefix: str, version: str, verify: bool = True) -> t.Optional[Installation]:
    """Return the installation in a directory, held against its receipt if verify; None when it is not one of ours."""
    directory = f"{prefix}/{version}"
    text = None if os.path.islink(directory) else _read_receipt(directory)
    if text is None:
        return None
    try:
        receipt = json.loads(text)
        recorded = dict(receipt["files"])
    except (KeyError, TypeError, ValueError):
        return Installation(version, {}, "its receipt cannot be read")
    if not verify:
        return Installation(version, receipt)
    found = fingerprint(directory)
    wrong = sorted(name for name in set(recorded) | set(found) if recorded.get(name) != found.get(name))
    return Installation(version, receipt, f"{wrong[0]} is not what its receipt says" if wrong else "")


def is_installed(prefix: str, version: str) -> bool:
    """Whether a store has an installation of a release, damaged or not."""
    return bool(_INSTALLATION.fullmatch(version)) and read_installation(prefix, version, verify=False) is not None


def stays(found: Store) -> t.List[str]:
    """Return what came with a store and stays when it goes: packages that builds installed, and another store."""
    packages = {name for each in found.installations.values() for name in each.receipt.get("packages") or ()}
    stores = [BUILD_PREFIX] if found.prefix != BUILD_PREFIX and os.path.isdir(BUILD_PREFIX) else []
    return [*([f"packages {' and '.join(sorted(packages))}"] if packages else []), *stores]


def _read_receipt(directory: str) -> t.Optional[str]:
    try:
        return files.read_text(f"{directory}/{RECEIPT}")
    except (NotADirectoryError, IsADirectoryError):
        return None


def fingerprint(directory: str) -> t.Dict[str, str]:
    """Return each file of an installation with its digest, each link with its target; receipt and wrappers left out."""
    found = {}
    left_out = (RECEIPT, *wrapper.texts(""))
    for parent, _directories, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, directory)
            if relative not in left_out:
                found[relative] = f"-> {os.readlink(path)}" if os.path.islink(path) else files.sha256(path)
    return found


def plan_present(
    store: Store,
    wish: Wish,
    make_current: bool,
    keep: t.Optional[int] = None,
    referred: t.Collection[str] = (),
) -> Plan:
    """Return the steps that lead to the wish being installed, and being current if that is wanted.

    keep is how many other installations stay, the newest first; None keeps all. What current and previous lead to
    and what scopes refer to stays whatever it says.
    """
    version = wish.version
    have = store.installations.get(version)
    if version in store.foreign:
        raise JemallocError(
            f"{store.prefix}/{version} is there but has no {RECEIPT}, so this collection did not make it; move it away."
        )
    install = reason = None
    if have is None:
        install, reason = version, "it is not installed"
    elif not have.suits(wish):
        install, reason = version, have.damage or "it came in another way, from another source or with other options"
    switch = version if make_current and store.current != version else None
    current = switch or store.current
    previous = store.current if switch and store.current in store.installations else store.previous
    prune = () if keep is None else _surplus(store, version, keep, {current, previous, *referred})
    rest = {*store.installations, version} - set(prune)
    after = {
        "installations": sorted(rest, key=catalogue.version_number),
        "current": current,
        "previous": previous,
    }
    wrappers = tuple(name for name in store.stale_wrappers if name != install and name not in prune)
    return Plan(after, install, reason or "", wrappers, switch, remove=prune)


def _surplus(store: Store, version: str, keep: int, needed: t.Collection[t.Optional[str]]) -> t.Tuple[str, ...]:
    """Return what is too many beside a version: the oldest installations, as far as nothing needs them."""
    others = [name for name in store.installations if name != version]
    age = {name: str(store.installations[name].receipt.get("installed_at")) for name in others}
    newest_first = sorted(others, key=lambda name: (name in needed, age[name]), reverse=True)
    return tuple(name for name in newest_first[keep:] if name not in needed)


def wish_for_installed(store: Store, version: str) -> Wish:
    """Return the wish that an installation fulfils as it is; previous is the one that was current before."""
    found = store.installations.get(store.previous or "" if version == "previous" else version)
    if found is None:
        raise JemallocError(
            f"version: there is no previous installation in {store.prefix} to go back to; name a release instead, or "
            "disable jemalloc: services: [] for its services, host: false for the whole host, state: absent for all."
        )
    if found.damage:
        what = "previous installation" if version == "previous" else "installation"
        raise JemallocError(
            f"version: the {what} {store.prefix}/{found.version} is damaged ({found.damage}); name {found.version} "
            "to have it installed again, with its checksum if it is not a known release."
        )
    method = "package" if found.receipt.get("method") == "package" else "auto"
    return Wish(found.version, found.receipt.get("options", {}), method)


def plan_absent(store: Store, version: t.Optional[str]) -> Plan:
    """Return the steps that take away one release, or without a version everything of ours."""
    if version is None:
        after: t.Dict[str, t.Any] = {"installations": [], "current": None, "previous": None}
        links = bool(store.current or store.previous)
        remove_prefix = store.exists and not store.foreign
        return Plan(after, remove=tuple(store.installations), unlink=links, remove_prefix=remove_prefix)
    if version not in store.installations:
        return Plan(store.describe())
    rest = [name for name in store.describe()["installations"] if name != version]
    if store.current == version and rest:
        raise JemallocError(
            f"jemalloc {version} is what {store.prefix}/current leads to and cannot be removed; make another release "
            f"current first ({', '.join(rest)} are installed)."
        )
    if not rest:
        return plan_absent(store, None)
    previous = None if store.previous == version else store.previous
    return Plan({"installations": rest, "current": store.current, "previous": previous}, remove=(version,))


def leftovers(prefix: str) -> t.List[str]:
    """Return what only a run that is at work has in a store."""
    patterns = (STAGING, f".*{files.TEMPORARY_SUFFIX}", f"*/bin/.*{files.TEMPORARY_SUFFIX}")
    return [path for pattern in patterns for path in glob.glob(f"{prefix}/{pattern}")]
