# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command of the pages, on a host whose services a playbook enabled: none takes the library from a service.

Commands of docs/roll-back.md are those of test_roll_back.py.
"""

from __future__ import annotations

import json
import re
import typing as t

import pytest
from markdown_it import MarkdownIt

from tests.checkout import ROOT
from tests.status.lab import NAME, Host
from tests.status.test_roll_back import NOTHING
from tests.status.test_status import STATUS

OTHER_PAGE = "docs/roll-back.md"

#: The languages of blocks that have no commands; those of {include} bring what is in another page.
NO_COMMANDS = ("dockerfile", "text", "yaml", "{include}", "{toctree}")

OLD, NEW = "9.9.8", "9.9.9"


def prepare_nothing(_host: Host) -> None:
    """Do nothing: the command needs nothing more."""


class Elsewhere(t.NamedTuple):
    """Another test that runs a command, and the text by which it does so, in a file beside it."""

    test: str
    text: str


class Here(t.NamedTuple):
    """How a command runs in the lab, and what it has to print."""

    #: The release that the enabled services run with afterwards, nothing if they run without the library.
    release: str
    #: What it prints, and, where they do not run with the library any more, what the page says of that.
    prints: str
    says: str = ""
    #: What is typed behind the command, and what of it is replaced: a released version by one of the lab.
    more: str = ""
    replace: tuple[str, str] = ("", "")
    on_the_host: bool = False
    fails: bool = False
    prepare: t.Callable[[Host], None] = prepare_nothing
    #: A command that succeeds on the controller afterwards, and one that does so on the host.
    then: str = "true"
    then_on_the_host: str = "true"
    #: A test of what the lab cannot do.
    elsewhere: t.Optional[Elsewhere] = None


def write_programs(host: Host) -> None:
    """Let the programs of the examples show what they map."""
    for name in ("bundle", "redis-server"):
        host.shell(
            f"printf '#!/bin/sh\\necho $0 $*; cat /proc/self/maps\\n' > /usr/bin/{name}; chmod 755 /usr/bin/{name}"
        )


def install_for_bundles(host: Host) -> None:
    """Put the releases where bundles are built, as nobody has pinned them."""
    host.shell(f"mkdir /opt/jemalloc-build; cp -a /opt/jemalloc/{OLD} /opt/jemalloc/{NEW} /opt/jemalloc-build")


def bring_bundle(host: Host) -> None:
    """Put a bundle on the host, as the page says, which does not have its release any more."""
    host.shell(f"mkdir /srv/jemalloc; rm -r /opt/jemalloc/{NEW} /opt/jemalloc/previous")
    (path,) = host.directory.glob(f"dist/*/jemalloc-{NEW}.tar.gz")
    for each in (path, path.with_name("SHA256SUMS")):
        host.run("podman", "cp", str(each), f"{NAME}:/srv/jemalloc/")


SITE = "tests/site/test_make_site.py::test_make_site"
IMAGES = "tests/images/test_images.py::test_every_command_has_it"
BUILDAH = "tests/connections/test_plain_containers.py::test_an_image_with_the_environment"
PLAY = "ansible-playbook"
IMAGE = f"{PLAY} preload.jemalloc.image -e jemalloc_image_base=debian:12-slim"
PROFILE = f"{PLAY} preload.jemalloc.profile -i hosts -l web1 -e jemalloc_profile_unit=puma"
CACHE = "-e jemalloc_cache=$PWD/cache"
RESTARTED = "web1: jemalloc {}; restarted and verified puma (1 process), sidekiq (1); pending: none"
MAPPED = f"/opt/jemalloc/{OLD}/lib/libjemalloc.so.2"

#: How each command is run. Those that run here do so one after the other, on the same host.
TABLE: dict[str, t.Union[Here, Elsewhere]] = {
    "git clone https://github.com/preload/ansible-jemalloc.git && cd ansible-jemalloc": Elsewhere(SITE, "git clone"),
    "make site": Elsewhere(SITE, 'shell("make site")'),
    ". .venv/bin/activate": Elsewhere(SITE, ". .venv/bin/activate; ansible-playbook site.yml"),
    f"{IMAGE} -e jemalloc_image_tag=debian-jemalloc:12 -e jemalloc_enabled=true": Elsewhere(
        IMAGES, '"preload.jemalloc.image"'
    ),
    f"{IMAGE} -e jemalloc_image_tag=debian-jemalloc:12-arm64 -e jemalloc_image_platform=linux/arm64"
    " -e jemalloc_enabled=true": Elsewhere(
        "tests/images/test_arm64.py::test_image", '"jemalloc_image_platform": "linux/arm64"'
    ),
    "buildah from --name app debian:12 && buildah run app -- sh -c 'apt-get update && apt-get install -y python3'": (
        Elsewhere(BUILDAH, '"buildah", "from"')
    ),
    f"{PLAY} preload.jemalloc.site -i app, -e"
    ' \'{"ansible_connection": "containers.podman.buildah", "ansible_user": "root"}\'': (
        Elsewhere(BUILDAH, 'f"containers.podman.{self.engine}"')
    ),
    "buildah config --env LD_PRELOAD=/opt/jemalloc/current/lib/libjemalloc.so app && buildah commit app"
    " app-jemalloc:12": Elsewhere(BUILDAH, '"--env=LD_PRELOAD=/opt/jemalloc/current/lib/libjemalloc.so"'),
    # It runs this test.
    "make test": Here(OLD, "-m pytest tests", replace=("make", f"make --directory={ROOT} --dry-run")),
    STATUS: Here(OLD, "web1  9.9.8    -         as configured: 2 services"),
    "ansible -i hosts web1 -b -m preload.jemalloc.jemalloc_info": Here(OLD, f'"jemalloc {OLD}": 1'),
    f"{PLAY} preload.jemalloc.report -i hosts": Here(
        OLD,
        "For 2 units with jemalloc the measurements are too few",
        more="-e jemalloc_report_database=$PWD/measurements.sqlite",
        then="ls report/report.html report/report.json report/report.csv",
    ),
    f"{PLAY} site.yml -i hosts --check --diff": Here(
        OLD, f"web1: jemalloc {NEW}; would restart puma, sidekiq;", more=f"-e @{NEW}.json"
    ),
    # This machine is web1, by the inventory.
    f"{PLAY} site.yml -e jemalloc_version=5.1.0": Here(
        NEW, RESTARTED.format(NEW), more=f"-e @{NEW}.json", replace=(PLAY, f"ANSIBLE_INVENTORY=hosts {PLAY}")
    ),
    f"{PLAY} preload.jemalloc.rollback -i hosts": Here(OLD, RESTARTED.format(OLD)),
    f"{PLAY} preload.jemalloc.rollout -i hosts -e @jemalloc.yml": Here(
        NEW, RESTARTED.format(NEW), replace=("jemalloc.yml", f"{NEW}.json")
    ),
    f"{PLAY} site.yml -i hosts -e jemalloc_version=5.1.0": Here(
        OLD, RESTARTED.format(OLD), more=f"-e @{OLD}.json", replace=("5.1.0", OLD)
    ),
    f"{PLAY} preload.jemalloc.site -i hosts": Here(OLD, f"web1: jemalloc {OLD}; pending: none", more=f"-e @{OLD}.json"),
    "jemalloc.sh grep -o '/opt/jemalloc/.*' /proc/self/maps | sort -u": Here(OLD, MAPPED, on_the_host=True),
    "sudo grep -o '/opt/jemalloc/.*' /proc/$(systemctl show -P MainPID puma)/maps | sort -u": Here(
        OLD, MAPPED, replace=("sudo ", ""), on_the_host=True
    ),
    "jemalloc.sh bundle exec puma": Here(OLD, MAPPED, on_the_host=True, prepare=write_programs),
    "JEMALLOC_VERSION=5.1.0 jemalloc.sh redis-server": Here(
        OLD, f"/opt/jemalloc/{NEW}/lib", replace=("5.1.0", NEW), on_the_host=True
    ),
    f'{PLAY} preload.jemalloc.bundle -i build-hosts -e \'{{"jemalloc_bundle_versions": ["5.3.0", "5.3.1"]}}\'': Here(
        OLD,
        f"changed: [web1] => (item={OLD})",
        replace=('"5.3.0", "5.3.1"', f'"{OLD}", "{NEW}"'),
        prepare=install_for_bundles,
        then=f"ls dist/*/jemalloc-{OLD}.tar.gz dist/*/jemalloc-{NEW}.tar.gz dist/*/SHA256SUMS",
    ),
    f"{PLAY} preload.jemalloc.bundle -i build-hosts": Here(
        OLD, f"ok: [web1] => (item={NEW})", more=f"-e jemalloc_version={NEW}"
    ),
    f"{PLAY} preload.jemalloc.cache": Here(OLD, f"jemalloc {NEW} for x86_64-glibc, built on web1 at ", more=CACHE),
    f"{PLAY} preload.jemalloc.cache -e jemalloc_cache_builder=web1 -e jemalloc_cache_state=absent": Here(
        OLD, "bundles of web1 removed from ", more=CACHE
    ),
    f"{PLAY} site.yml -i hosts -e jemalloc_bundle=/srv/jemalloc/jemalloc-{{version}}.tar.gz": Here(
        NEW,
        RESTARTED.format(NEW),
        more=f"-e @{NEW}.json",
        prepare=bring_bundle,
        then_on_the_host=f"""grep '"method": "bundle"' /opt/jemalloc/{NEW}/receipt.json""",
    ),
    # The releases of the lab have no profiling: here the service stays as it is.
    f"{PROFILE} -e jemalloc_profile_duration=120": Here(
        NEW,
        "was built without profiling",
        replace=("120", "1"),
        fails=True,
        elsewhere=Elsewhere(
            "tests/profile/test_profile.py::test_the_playbook_brings_the_files_here", '"profile.yml"), "-e", variables'
        ),
    ),
    f"{PLAY} preload.jemalloc.site -i hosts.yml -e jemalloc_enabled=true -e jemalloc_enabled_via=ld_so_preload": Here(
        NEW,
        f"web1: jemalloc {NEW}; pending: none",
        more=f"-e @{NEW}.json",
        then_on_the_host="grep jemalloc /etc/ld.so.preload",
    ),
    f"{PLAY} site.yml -i hosts -e jemalloc_state=absent": Here(
        "",
        "/cache on the controller; restarted and verified puma (1 process), sidekiq (1); pending: none",
        says="Services that run with it are restarted first, unless `jemalloc_restart` is `false`.",
    ),
}


def pages() -> dict[str, str]:
    """Return the pages that a user reads."""
    names = ["README.md", "roles/jemalloc/README.md"]
    names += sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in names if name != OTHER_PAGE}


def commands(text: str) -> t.Iterator[str]:
    """Yield the commands of a page: of its blocks, and calls of playbooks in its sentences."""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        lines = token.content.replace("\\\n", " ").splitlines() if token.type == "fence" else []
        if token.info == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        elif token.info != "sh":
            assert not lines or token.info.split()[0] in NO_COMMANDS, token.info
            lines = []
        inside = [child.content for child in token.children or () if child.type == "code_inline"]
        lines += [code for code in inside if code.startswith(f"{PLAY} ")]
        yield from filter(None, (" ".join(re.sub(r"(^|\s+)# .*", "", line).split()) for line in lines))


PAGES = pages()

#: The pages on which each command is.
FOUND: dict[str, list[str]] = {}
for _page, _text in PAGES.items():
    for _command in commands(_text):
        FOUND.setdefault(_command, []).append(_page)


def test_every_command_is_in_the_table() -> None:
    assert sorted(FOUND) == sorted(TABLE)
    assert len(FOUND) > 20


OTHERS = [way.elsewhere if isinstance(way, Here) else way for way in TABLE.values()]


@pytest.mark.parametrize("other", [other for other in OTHERS if other], ids=lambda other: other.text)
def test_what_another_test_runs(other: Elsewhere) -> None:
    name, _each, function = other.test.partition("::")
    assert f"\ndef {function}(" in (ROOT / name).read_text(encoding="utf-8")
    assert any(other.text in path.read_text(encoding="utf-8") for path in (ROOT / name).parent.glob("*.py"))


@pytest.fixture
def controller(host: Host, releases: dict[str, dict[str, t.Any]]) -> t.Iterator[Host]:
    """The host, and beside its inventory what the commands name: the clone's playbook, inventories, variables."""
    links = {
        "site.yml": str(ROOT / "site.yml"),
        "playbooks": str(ROOT / "playbooks"),
        "hosts.yml": "hosts",
        "build-hosts": "hosts",
    }
    for name, target in links.items():
        (host.directory / name).symlink_to(target)
    for version, variables in releases.items():
        (host.directory / f"{version}.json").write_text(json.dumps(variables))
    yield host
    for name in links:
        (host.directory / name).unlink()
    host.shell("rm -rf /opt/jemalloc-build /srv/jemalloc /usr/bin/bundle /usr/bin/redis-server")


def check(host: Host, command: str, way: Here) -> None:
    """Run a command, and see what it printed, what it left, and what the services run with then."""
    way.prepare(host)
    typed = f"{command.replace(*way.replace)} {way.more}".strip()
    printed = host.shell(typed) if way.on_the_host else host.type(typed, check=False)
    assert way.prints in printed, f"{typed}:\n{printed}"
    assert "Traceback" not in printed
    assert re.findall(r"^web1 .* failed=(\d+)", printed, re.MULTILINE) in ([], ["1" if way.fails else "0"]), printed
    host.type(way.then)
    host.shell(way.then_on_the_host)
    expected = {**NOTHING, "puma": way.release, "sidekiq": way.release}
    assert host.running() == expected, f"{typed}:\n{printed}"
    assert bool(way.release) != bool(way.says)
    assert all(way.says in " ".join(PAGES[page].split()) for page in FOUND[command])


def test_no_command_takes_the_library_from_a_service(controller: Host, releases: dict[str, dict[str, t.Any]]) -> None:
    controller.enable(**releases[OLD], jemalloc_services=["puma", "sidekiq"])
    assert controller.running() == {**NOTHING, "puma": OLD, "sidekiq": OLD}
    for command, way in TABLE.items():
        if isinstance(way, Here):
            check(controller, command, way)
