# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Profiles of services that systemd confines, by a genuine jemalloc: what they say, and that nothing is left."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import typing as t
import zlib
from dataclasses import dataclass
from pathlib import Path

import ansible
import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile as profile
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile_session as session
from tests.checkout import ROOT
from tests.conftest import Run

LAB = "/lab"
PREFIX = "/opt/jemalloc"
COLLECTION = f"{LAB}/ansible_collections/preload/jemalloc"

#: What the tool for dumps calls, which the image does not have.
PROGRAMS = ("nm", "addr2line", "objdump", "c++filt")

#: Allocations are recorded and dumped often enough that a few seconds show something.
OFTEN = {"lg_prof_interval": 22, "lg_prof_sample": 12, "prefix": PREFIX, "timeout": 20, "directory": "/nowhere"}

DUMPS = f"/var/cache/private/{profile.NAME}"

# Puts the distribution's library into a store, with its tool.
INSTALL = f"""
import os, shutil, sys
from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
version, prof = sys.argv[1], sys.argv[2] == "prof"
with publish.locked("{PREFIX}") as undo:
    tree = os.path.join(publish.stage("{PREFIX}"), "tree")
    os.makedirs(f"{{tree}}/lib")
    os.makedirs(f"{{tree}}/bin")
    shutil.copy("{LAB}/files/libjemalloc.so.2", f"{{tree}}/lib/")
    shutil.copy("{LAB}/files/jeprof", f"{{tree}}/bin/")
    receipt = {{"library": "libjemalloc.so.2", "options": {{"cxx": True, "prof": prof, "lg_page": None}}}}
    publish.complete(tree, "{PREFIX}", {{**receipt, "release": version, "source": {{"sha256": "0" * 64}}}})
    publish.publish("{PREFIX}", tree, version, undo)
    publish.switch("{PREFIX}", version, undo)
"""

# dynamic preloads jemalloc by a drop-in as ours; nobody has a library and a cache of its own, and no jemalloc.
PREPARE = f"""
install -m 755 {LAB}/files/server /usr/local/bin/server
for program in {" ".join(PROGRAMS)}; do install -m 755 {LAB}/files/$program /usr/local/bin/; done
install -m 644 {LAB}/files/libraries/* /usr/local/lib/
ldconfig
confined='ExecStart=/usr/local/bin/server
Type=exec
ProtectSystem=strict
PrivateTmp=yes'
printf '[Service]\\n%s\\nDynamicUser=yes\\n' "$confined" > /etc/systemd/system/dynamic.service
printf '[Service]\\n%s\\nUser=nobody\\nCacheDirectory=its-own\\nEnvironment=LD_PRELOAD=%s\\n' "$confined" \
  "$(ldconfig -p | sed -n 's/.*libm.so.6 .* => //p')" > /etc/systemd/system/nobody.service
mkdir /etc/systemd/system/dynamic.service.d
printf '# preload.jemalloc\\n[Service]\\nEnvironment=LD_PRELOAD=%s MALLOC_CONF=narenas:2\\n' \
  {PREFIX}/current/lib/libjemalloc.so > /etc/systemd/system/dynamic.service.d/zz-preload-jemalloc.conf
systemctl daemon-reload
systemctl start dynamic nobody
"""

# All files that a profile could leave, and what the services run with.
PICTURE = f"""
for top in /etc/systemd /run/systemd/system /var/cache /var/tmp; do
  find $top -maxdepth 4 -not -path '*/systemd-private-*' -ls |
    awk '{{print $3, $5, $6, $11, $12, $13}}'
done | grep -v '/private$' | sort
ls /run /var/lib /var/log | grep preload | grep -v '[.]lock$' || true
find /run -maxdepth 1 -name '*preload*.lock' -size +0
for unit in dynamic nobody; do
  systemctl show --property=ActiveState,DropInPaths,Environment,CacheDirectory,LogsDirectory,NeedDaemonReload $unit
  tr '\\0' '\\n' < /proc/$(systemctl show --property=MainPID --value $unit)/environ |
    grep -e LD_PRELOAD -e MALLOC_CONF -e DIRECTORY || true
  grep -c {PREFIX} /proc/$(systemctl show --property=MainPID --value $unit)/maps || true
done
systemctl list-units --all --no-legend --plain '*preload*'
"""


@dataclass(frozen=True)
class Host:
    """A container with the two services."""

    run: Run
    name: str
    version: str

    def shell(self, script: str, check: bool = True) -> str:
        """Run a script in it."""
        return self.run("podman", "exec", self.name, "sh", "-euc", script, check=check)

    def start(self, **arguments: t.Any) -> subprocess.Popen[str]:
        """Start the module, whose process leaves its number in /tmp/module."""
        command = 'echo $$ > /tmp/module; exec python3 "$@"'
        runner = f"{COLLECTION}/tests/faults/run_module.py"
        whole = json.dumps({**OFTEN, **arguments})
        return subprocess.Popen(
            ["podman", "exec", self.name, "sh", "-c", command, "sh", runner, "jemalloc_profile", whole],
            env={**os.environ, "CONTAINERS_CONF": str(ROOT / ".ci" / "containers.conf")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )

    @staticmethod
    def end(process: subprocess.Popen[str]) -> dict[str, t.Any]:
        """Wait for the module and return its result."""
        output = process.communicate()[0]
        assert "Traceback" not in output, output
        lines = [line for line in output.splitlines() if line.startswith("{")]
        assert lines, output
        result: dict[str, t.Any] = json.loads(lines[-1])
        packed = result.get("contents", {})
        result["contents"] = {name: zlib.decompress(base64.b64decode(each)).decode() for name, each in packed.items()}
        return result

    def profile(self, **arguments: t.Any) -> dict[str, t.Any]:
        """Run the module to its end."""
        return self.end(self.start(**arguments))

    def wait_for(self, script: str) -> None:
        """Wait until a script succeeds."""
        self.shell(f"for _ in $(seq 300); do if {script}; then exit; fi; sleep 0.1; done; {script}")

    def wait_for_dumps(self, directory: str = DUMPS) -> None:
        """Wait until two processes have left dumps."""
        self.wait_for(f"[ $(ls {directory} 2>/dev/null | grep -o 'dump[.][0-9]*' | sort -u | wc -l) = 2 ]")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """The distribution's jemalloc, which is built with profiling, what its tool needs, and the server."""
    if not Path("/usr/bin/apt-get").exists():
        pytest.skip("there is no apt here to get the distribution's package by")
    directory = tmp_path_factory.mktemp("files")
    (directory / "libraries").mkdir()
    run("apt-get", "--quiet", "--quiet", "download", "libjemalloc2", "libjemalloc-dev", cwd=directory)
    for package in directory.glob("*.deb"):
        run("dpkg", "--extract", str(package), "package", cwd=directory)
    shutil.copy(next(directory.glob("package/usr/lib/**/libjemalloc.so.2")), directory)
    shutil.copy(directory / "package/usr/bin/jeprof", directory)
    for program in PROGRAMS:
        path = shutil.which(program)
        assert path
        shutil.copy(path, directory / program)
        for line in run("ldd", path).splitlines():
            library = line.partition("=> ")[2].partition(" (")[0]
            if library and "libc.so" not in library:
                shutil.copy(library, directory / "libraries")
    source = str(Path(__file__).with_name("server.c"))
    run("gcc", "-O1", "-fno-optimize-sibling-calls", "-o", str(directory / "server"), source)
    return directory


@pytest.fixture(scope="module")
def host(files: Path, run: Run) -> t.Iterator[Host]:
    """A container of this machine's own Debian release, as that of the package."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    image = run(str(ROOT / ".ci" / "build-image"), release.get("VERSION_CODENAME", "bookworm")).splitlines()[-1]
    name = f"preload-jemalloc-profile-{os.getpid()}"
    volumes = {ROOT: COLLECTION, Path(ansible.__file__).parent: f"{LAB}/ansible", files: f"{LAB}/files"}
    run(
        *("podman", "run", "--detach", "--rm", "--replace", f"--name={name}", "--network=none", "--systemd=always"),
        *("--cap-add=SYS_PTRACE,SYS_ADMIN", f"--env=PYTHONPATH={LAB}"),
        *(f"--volume={source}:{target}:ro" for source, target in volumes.items()),
        *(image, "/sbin/init"),
    )
    version = platform.library_version((files / "libjemalloc.so.2").read_bytes())
    assert version
    this = Host(run, name, version)
    try:
        this.shell("for _ in $(seq 60); do systemctl is-system-running --wait && exit; sleep 0.5; done; exit 1")
        run("podman", "exec", name, "python3", "-c", INSTALL, version, "prof")
        this.shell(PREPARE)
        yield this
    finally:
        run("podman", "rm", "--force", "--time=0", name)


@pytest.fixture
def unchanged(host: Host) -> t.Iterator[None]:
    """See that a test leaves no trace in the container."""
    before = host.shell(PICTURE)
    yield
    assert host.shell(PICTURE) == before


@pytest.mark.usefixtures("unchanged")
def test_a_profile_tells_who_allocates_most(host: Host, files: Path) -> None:
    predicted = host.profile(unit="dynamic", _ansible_check_mode=True)
    assert (predicted["changed"], predicted["version"], predicted["contents"]) == (True, host.version, {})
    result = host.profile(unit="dynamic", duration=3)
    assert not result.get("failed"), result
    assert {key: result[key] for key in ("changed", "unit", "version", "early", "cleared", "left_out")} == {
        "changed": True,
        "unit": "dynamic.service",
        "version": host.version,
        "early": "",
        "cleared": [],
        "left_out": [],
    }
    assert [each["program"] for each in result["processes"]] == ["/usr/local/bin/server"] * 2
    assert result["top"][0]["function"] == "allocates_most"
    pids = [each["pid"] for each in result["processes"]]
    endings = ("collapsed", "dot", "growth.txt", "heap", "txt")
    contents = result["contents"]
    assert sorted(contents) == sorted(f"{pid}.{ending}" for pid in pids for ending in endings)
    for pid in pids:
        assert "allocates_most" in contents[f"{pid}.txt"].splitlines()[1]
        assert "main;serve;allocates_most " in contents[f"{pid}.collapsed"]
        assert "allocates_most" in contents[f"{pid}.dot"]
        assert contents[f"{pid}.growth.txt"].startswith("Total: ")
        # the dump with names says the same without the program and its libraries
        (files / "again.heap").write_text(contents[f"{pid}.heap"])
        again = host.shell(f"{PREFIX}/current/bin/jeprof --text {LAB}/files/again.heap 2>/dev/null")
        assert again == contents[f"{pid}.txt"]


@pytest.mark.usefixtures("unchanged")
def test_what_its_user_puts_among_the_dumps_is_not_followed(host: Host) -> None:
    process = host.start(unit="nobody", version=host.version, duration=600)
    dumps = f"/var/log/{profile.NAME}"  # as its cache is its own
    host.wait_for_dumps(dumps)
    assert host.shell(f"stat -c '%a %U' {dumps}") == "700 nobody\n"
    assert "libm.so" in host.shell("grep libm.so /proc/$(systemctl show --property=MainPID --value nobody)/maps")
    plant = f"""cd {dumps}
ln -s /etc/shadow dump.1.0.i0.heap
ln -s /etc/shadow dump.2.9999.i9999.heap
mkfifo dump.3.0.i0.heap
mkdir dump.4.0.i0.heap
echo nothing > dump.5.0.i0.heap
ln -s / dump.6.0.i0.heap"""
    host.run(
        *("podman", "exec", host.name, "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"),
        *("sh", "-euc", plant),
    )
    host.shell("systemctl kill --signal=KILL nobody")
    result = host.end(process)
    assert not result.get("failed"), result
    assert result["early"]
    assert len(result["processes"]) == 2
    assert not {1, 2, 3, 4, 5, 6} & {each["pid"] for each in result["processes"]}
    assert "root:" not in "".join(result["contents"].values())


@pytest.mark.usefixtures("unchanged")
def test_a_run_that_is_killed_is_taken_back_at_once(host: Host) -> None:
    process = host.start(unit="dynamic", duration=600)
    host.wait_for_dumps()
    host.shell("kill -KILL $(cat /tmp/module)")
    process.wait()
    host.wait_for(f"[ ! -s {session.LOCK} ]")
    assert host.shell("systemctl is-active dynamic") == "active\n"


@pytest.mark.usefixtures("unchanged")
def test_the_next_run_takes_back_what_nobody_did(host: Host) -> None:
    process = host.start(unit="dynamic", duration=600)
    host.wait_for_dumps()
    host.shell(f"systemctl kill --signal=KILL {profile.NAME}-guard; kill -KILL $(cat /tmp/module)")
    process.wait()
    assert "prof:true" in host.shell("systemctl show --property=Environment dynamic")
    # which has other work to do, but not with that unit
    result = host.profile(unit="nobody")
    assert (result["changed"], result["cleared"]) == (True, ["dynamic.service"])
    assert result["msg"] == (
        "unit: nobody.service is not configured to preload jemalloc; name it in jemalloc_services first, or give the "
        "installed version to profile it with."
    )


@pytest.mark.usefixtures("unchanged")
def test_a_run_that_is_to_end_clears_up_first(host: Host) -> None:
    process = host.start(unit="dynamic", duration=600)
    host.wait_for_dumps()
    meanwhile = host.shell("tr '\\0' '\\n' < /proc/$(systemctl show --property=MainPID --value dynamic)/environ")
    assert "MALLOC_CONF=narenas:2,prof:true,prof_active:true" in meanwhile
    host.shell("kill -TERM $(cat /tmp/module)")
    result = host.end(process)
    assert result["msg"] == "unit: dynamic.service: signal 15 ended this run; it runs again as before."


@pytest.mark.usefixtures("unchanged")
def test_a_service_that_ends_meanwhile_is_started_again(host: Host) -> None:
    process = host.start(unit="dynamic", duration=600)
    host.wait_for_dumps()
    host.shell("sleep 1; systemctl kill --signal=KILL dynamic")
    result = host.end(process)
    assert not result.get("failed"), result
    assert result["early"] == "it ended meanwhile, it is failed"
    assert result["top"][0]["function"] == "allocates_most"


@pytest.mark.usefixtures("unchanged")
def test_dumps_stay_below_their_limit(host: Host) -> None:
    process = host.start(unit="dynamic", duration=600, lg_prof_interval=16, lg_prof_sample=10, size_limit=1)
    # a process numbers its dumps from 0, and two of them wrote: fewer are there than one of them wrote
    host.wait_for(
        f"""dumps=$(ls {DUMPS} 2>/dev/null | grep '^dump[.]')
          [ "$(echo "$dumps" | wc -l)" -lt "$(echo "$dumps" | cut -d. -f3 | sort -n | tail -n1)" ]"""
    )
    host.shell("systemctl kill --signal=KILL dynamic")
    result = host.end(process)
    assert not result.get("failed"), result
    assert result["early"] == "it ended meanwhile, it is failed"


@pytest.mark.usefixtures("unchanged")
def test_the_playbook_brings_the_files_here(host: Host, tmp_path: Path, run: Run) -> None:
    # by ssh, but without a network: the server is started in the container for this connection alone
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key"))
    host.shell(
        f"install -d -m 700 /root/.ssh; echo '{(tmp_path / 'key.pub').read_text()}' > /root/.ssh/authorized_keys"
    )
    options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ControlMaster=no"
    proxy = f"-o ProxyCommand='podman exec -i {host.name} /usr/sbin/sshd -i'"
    (tmp_path / "hosts").write_text(
        f"web1 ansible_user=root ansible_ssh_private_key_file={tmp_path}/key "
        f'ansible_python_interpreter=/usr/bin/python3 ansible_ssh_common_args="{options} {proxy}"\n'
    )
    often = {f"jemalloc_profile_{key}": value for key, value in OFTEN.items() if key.startswith("lg_")}
    variables = json.dumps({"jemalloc_profile_unit": "dynamic", "jemalloc_profile_duration": 3, **often})
    command = ("ansible-playbook", "-i", "hosts", str(ROOT / "playbooks" / "profile.yml"), "-e", variables)
    predicted = run(*command, "--check", cwd=tmp_path, PWD=str(tmp_path))
    assert "changed=1" in predicted
    assert not (tmp_path / "profile").exists()
    said = run(*command, cwd=tmp_path, PWD=str(tmp_path))
    assert "changed=1" in said
    assert " MB  allocates_most" in said
    (place,) = (tmp_path / "profile" / "web1" / "dynamic.service").iterdir()
    assert str(place) in said
    assert [path.stat().st_mode & 0o777 for path in (place, *place.iterdir())] == [0o700] + [0o600] * len(
        list(place.iterdir())
    )
    assert {path.name for path in place.iterdir() if path.name not in said} == set()
    assert len(list(place.glob("*.svg"))) == (2 if shutil.which("dot") else 0)
    assert ("Pictures are left out" in said) == (not shutil.which("dot"))
    host.shell("rm -r /root/.ssh")


def test_a_release_without_profiling_is_refused(host: Host) -> None:
    before = host.shell(PICTURE)
    host.run("podman", "exec", host.name, "python3", "-c", INSTALL, "9.9.9", "none")
    try:
        result = host.profile(unit="dynamic")
        assert result["msg"] == (
            f"jemalloc 9.9.9 in {PREFIX} was built without profiling; install it with options: {{prof: true}} (the "
            "role's jemalloc_options)."
        )
        assert not result["changed"]
    finally:
        host.shell(f"ln -sfn {host.version} {PREFIX}/current; rm -r {PREFIX}/9.9.9 {PREFIX}/previous")
    assert host.shell(PICTURE) == before
