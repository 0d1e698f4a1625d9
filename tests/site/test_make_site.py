# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The README's first command as a newcomer runs it: a clean clone on a machine with Python, git, make and sudo."""

from __future__ import annotations

import re
from typing import Callable, Iterator

import pytest

from tests import checkout
from tests.checkout import ROOT
from tests.conftest import Run

Shell = Callable[[str], str]


@pytest.fixture
def shell(run: Run, suite: str, user: str) -> Iterator[Shell]:
    """Runs a script as that user in the clone, on a fresh container of that Debian release with systemd."""
    name = f"preload-jemalloc-site-{suite}"
    image = run(str(ROOT / ".ci" / "build-image"), suite).splitlines()[-1]
    run(
        *("podman", "run", "--detach", "--replace", f"--name={name}", f"--hostname={name}", "--systemd=always"),
        # what root of a real host may do: read the maps of another user's process
        *("--cap-add=SYS_PTRACE", f"--volume={ROOT}:/checkout:ro", *checkout.index_options(), image, "/sbin/init"),
    )

    def run_script(script: str, by: str = user) -> str:
        return run("podman", "exec", f"--user={by}", name, "sh", "-euc", f"cd; export HOME=$PWD; {script}")

    run_script("for _ in $(seq 30); do systemctl is-system-running --wait && exit; sleep 1; done; exit 1", "root")
    run_script("apt-get -q update; apt-get -qy install --no-install-recommends python3-venv git make", "root")
    if user != "root":
        run_script(
            f"useradd --create-home {user}; echo '{user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{user}", "root"
        )
    run_script("git config --global safe.directory '*'; git clone --quiet /checkout collection")
    yield lambda script: run_script(f"cd collection; {script}")
    run("podman", "rm", "--force", "--time=0", name)


def playbook(arguments: str) -> str:
    return f". .venv/bin/activate; ansible-playbook site.yml {arguments}"


@pytest.mark.parametrize(("suite", "user"), [("bookworm", "root"), ("trixie", "deploy")])
def test_make_site(shell: Shell) -> None:
    printed = shell("make site").splitlines()
    assert printed[-1] == "jemalloc 5.3.1 is in /opt/jemalloc; run any command with it: jemalloc.sh <cmd>"
    assert set(shell("jemalloc.sh grep -o '/opt/.*' /proc/self/maps").split()) == {
        "/opt/jemalloc/5.3.1/lib/libjemalloc.so.2"
    }

    assert re.search(r"changed=0 .* failed=0", shell(playbook("")))

    shell(playbook("-e jemalloc_version=5.3.0"))
    assert shell("readlink /opt/jemalloc/current /opt/jemalloc/previous").split() == ["5.3.0", "5.3.1"]

    pulled = ". .venv/bin/activate; ansible-pull --url $PWD --directory ../pulled --inventory localhost, site.yml"
    assert re.search(r"changed=0 .* failed=0", shell(f"{pulled} -e jemalloc_version=5.3.0"))

    shell("printf 'app ansible_connection=local\n' > hosts")
    shell(playbook("-i hosts -e jemalloc_enabled=true"))
    assert "/opt/jemalloc/current/lib/libjemalloc.so" in shell("cat /etc/environment")

    shell(playbook("-i hosts -e jemalloc_state=absent"))
    assert shell("ls -d /opt/jemalloc* /usr/local/bin/jemalloc* 2>/dev/null || true") == ""
