# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A scope whose option is set is made exactly that, or without purge added; one that is not set stays as it is."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from tests.unit.plugins.modules.jemalloc_preload.test_jemalloc_preload import COMMON, MANAGER, running

Call = t.Callable[..., t.Dict[str, t.Any]]

OWN = "etc/systemd/system/{}.service.d/zz-preload-jemalloc.conf"
PUMA, CRON, PHP = (OWN.format(name) for name in ("puma", "cron", "php"))
PROFILE, LOGIN = COMMON[0], "etc/environment"
LIST, WITHOUT = "etc/ld.so.preload", "etc/ld.so.preload.without-jemalloc"

#: What the host has before each run.
SERVICES: t.Dict[str, t.Any] = {"services": ["puma", {"name": "php", "version": "9.9.8"}], "exclude": ["cron"]}
BY_ENVIRONMENT: t.Dict[str, t.Any] = {"host": True, "services": ["puma"], "exclude": ["cron"]}
BY_LIST: t.Dict[str, t.Any] = {**BY_ENVIRONMENT, "via": "ld_so_preload"}

#: What the host has; what is set; the files that change.
RUNS: t.List[t.Tuple[t.Dict[str, t.Any], t.Dict[str, t.Any], t.List[str]]] = [
    (SERVICES, {}, []),
    (SERVICES, {"via": "ld_so_preload"}, []),
    (SERVICES, {"services": []}, [PHP, PUMA]),
    (SERVICES, {"services": ["puma"]}, [PHP]),
    (SERVICES, {"exclude": []}, [CRON]),
    (SERVICES, {"host": False}, []),
    (SERVICES, {"host": True}, [MANAGER, LOGIN, PROFILE]),
    (SERVICES, {"services": ["cron"]}, [CRON, PHP, PUMA]),
    (SERVICES, {"exclude": ["puma"]}, [CRON, PUMA]),
    (BY_ENVIRONMENT, {}, []),
    (BY_ENVIRONMENT, {"host": False}, [MANAGER, LOGIN, PROFILE]),
    (BY_ENVIRONMENT, {"services": []}, [PUMA]),
    (BY_ENVIRONMENT, {"exclude": ["php"]}, [CRON, PHP]),
    (BY_ENVIRONMENT, {"host": True, "via": "ld_so_preload"}, [MANAGER, LOGIN, PROFILE, CRON, LIST, WITHOUT]),
    (BY_LIST, {}, []),
    (BY_LIST, {"services": ["php"]}, [PHP, PUMA]),
    (BY_LIST, {"exclude": ["cron", "php"]}, [PHP]),
    (BY_LIST, {"host": False}, [CRON, LIST, WITHOUT]),
    (BY_LIST, {"host": True}, [MANAGER, LOGIN, PROFILE, CRON, LIST, WITHOUT]),
    (BY_LIST, {"host": True, "services": ["cron"]}, [MANAGER, LOGIN, PROFILE, PUMA, CRON, LIST, WITHOUT]),
]

#: The same where nothing is to be taken away.
ADDS: t.List[t.Tuple[t.Dict[str, t.Any], t.Dict[str, t.Any], t.List[str]]] = [
    (SERVICES, {}, []),
    (SERVICES, {"services": [], "exclude": [], "host": False}, []),
    (SERVICES, {"services": ["puma"]}, []),
    (SERVICES, {"services": ["own"]}, [OWN.format("own")]),
    (SERVICES, {"services": ["php"]}, [PHP]),
    (SERVICES, {"services": ["cron"]}, [CRON]),
    (SERVICES, {"exclude": ["own"]}, [OWN.format("own")]),
    (SERVICES, {"exclude": ["puma"]}, [PUMA]),
    (SERVICES, {"host": True}, [MANAGER, LOGIN, PROFILE]),
    (BY_ENVIRONMENT, {"host": False}, []),
    (BY_ENVIRONMENT, {"host": True}, []),
    (BY_ENVIRONMENT, {"host": True, "via": "ld_so_preload"}, [MANAGER, LOGIN, PROFILE, CRON, LIST, WITHOUT]),
    (
        BY_ENVIRONMENT,
        {"host": True, "via": "ld_so_preload", "exclude": ["own"]},
        [MANAGER, LOGIN, PROFILE, CRON, OWN.format("own"), LIST, WITHOUT],
    ),
    (BY_LIST, {"host": False}, []),
    (BY_LIST, {"host": True}, []),
    (BY_LIST, {"host": True, "exclude": ["own"]}, [OWN.format("own")]),
]


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize(
    ("there", "given", "changed"), [*RUNS, *((there, {**given, "purge": False}, paths) for there, given, paths in ADDS)]
)
def test_only_what_is_set_changes(
    scopes: Call, root: pathlib.Path, there: t.Dict[str, t.Any], given: t.Dict[str, t.Any], changed: t.List[str]
) -> None:
    scopes(**there)
    predicted = scopes(_check=True, **given)
    assert sorted(predicted["files"]) == sorted(str(root / name) for name in changed)
    assert scopes(**given) == predicted
    assert not scopes(**given)["changed"]
    assert not scopes()["changed"]


@pytest.mark.parametrize("check", [True, False])
def test_what_a_run_names_and_takes_away(scopes: Call, root: pathlib.Path, check: bool) -> None:
    scopes(services=["puma", {"name": "agent", "scope": "user", "must_exist": False}], exclude=["cron"])
    found = scopes(_check=check, services=["php"], exclude=["own"])
    assert found["named"] == ["php.service", "own.service"]
    assert found["removed"] == ["cron.service", "puma.service", "agent.service"]
    again = scopes(_check=check, services=["php"], purge=False)
    assert (again["named"], again["removed"]) == (["php.service"], [])
    absent = scopes(_check=check, state="absent")
    assert absent["files"]
    assert (absent["named"], absent["removed"]) == ([], [])


@pytest.mark.usefixtures("watched")
def test_a_run_without_options_undoes_nothing_that_options_said(scopes: Call, root: pathlib.Path) -> None:
    scopes(**BY_LIST)
    assert (root / CRON).read_text().splitlines()[-1] == f"InaccessiblePaths=-{root / LIST}"
    scopes(host=True)
    assert (root / CRON).read_text().splitlines()[-1] == "UnsetEnvironment=LD_PRELOAD"
    scopes(host=True, via="ld_so_preload")
    assert (root / CRON).read_text().splitlines()[-1] == f"InaccessiblePaths=-{root / LIST}"
    assert "{JEMALLOC_ENABLED-}" in (root / PROFILE).read_text()


def test_an_excluded_service_that_is_gone_stays_excluded(scopes: Call, root: pathlib.Path) -> None:
    scopes(exclude=["cron"])
    (root / CRON).parent.rename(root / "etc/systemd/system/missing.service.d")
    text = (root / OWN.format("missing")).read_text()
    assert OWN.format("missing") not in scopes(host=True)["files"]
    assert (root / OWN.format("missing")).read_text() == text


def test_what_stays_is_verified_with_the_release_that_it_is_to_have(
    scopes: Call, root: pathlib.Path, prefix: str
) -> None:
    scopes(services=["puma"])
    running(root, f"{prefix}/9.9.8/lib/libjemalloc.so.2")
    found = scopes()
    assert not found["changed"]
    assert [(each["name"], each["version"]) for each in found["restarts"]] == [("puma.service", "9.9.9")]
    assert found["services"] == [{"name": "puma.service", "version": "9.9.9", "uid": None, "unit": "puma.service"}]
    scopes(services=[], exclude=["puma"])
    running(root, "/usr/bin/puma")
    assert scopes()["services"] == [{"name": "puma.service", "version": None, "uid": None, "unit": "puma.service"}]


@pytest.mark.usefixtures("watched")
def test_the_list_of_the_dynamic_linker_has_one_release_for_what_stays_too(scopes: Call) -> None:
    scopes(services=["puma", {"name": "php", "version": "9.9.8"}])
    assert scopes(host=True, via="ld_so_preload")["msg"] == (
        "services: php.service wants jemalloc 9.9.8, but with via: ld_so_preload every process has 9.9.9; leave out "
        "its version, or use via: environment."
    )
