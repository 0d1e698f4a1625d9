# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a service can be profiled, and the drop-in that does it, with a made-up systemd."""

from __future__ import annotations

import os
import pathlib
import re
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places
from ansible_collections.preload.jemalloc.plugins.module_utils import _profile as profile
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

Program = t.Callable[[str, str], pathlib.Path]


class Fake:
    """A systemd with one service, and a library that takes every MALLOC_CONF but what it complains of."""

    def __init__(self, root: pathlib.Path, prefix: str) -> None:
        self.root, self.prefix = root, prefix
        self.units: t.Dict[str, t.Dict[str, str]] = {"puma.service": {}}
        self.complains_of = ""
        self.probed: t.List[str] = []

    def __call__(
        self, arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
    ) -> t.Tuple[int, str]:
        """Answer a command."""
        if arguments[0] != "systemctl":
            conf = next(item for item in arguments if item.startswith("MALLOC_CONF="))
            self.probed.append(conf)
            wrong = self.complains_of and self.complains_of in conf
            return 0, f"<jemalloc>: Invalid conf pair: {self.complains_of}\n" if wrong else ""
        blocks = []
        for unit in arguments[arguments.index("--") + 1 :]:
            known = {"Id": unit, "LoadState": "loaded", "ActiveState": "active", "FragmentPath": ""}
            known.update(self.units.get(unit, {"LoadState": "not-found"}))
            blocks.append("".join(f"{name}={value}\n" for name, value in known.items()))
        return 0, "\n".join(blocks)

    def add(self, unit: str = "puma.service", **properties: str) -> None:
        """Let systemd say more of a service."""
        self.units.setdefault(unit, {}).update(properties)

    def file(self, text: str, path: str = "etc/systemd/system/puma.service") -> pathlib.Path:
        """Write a file of the service."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        self.units["puma.service"]["FragmentPath"] = str(target)
        return target

    def process(self, pid: int = 100, release: str = "", unit: str = "puma.service") -> None:
        """Let a process of the service run with a release."""
        directory = self.root / "proc" / str(pid)
        directory.mkdir()
        (directory / "cgroup").write_text(f"0::/system.slice/{unit}\n")
        path = f"{self.prefix}/{release}/lib/libjemalloc.so.2" if release else "/lib/libc.so.6"
        (directory / "maps").write_text(f"7f00-7f01 r-xp 0 08:01 12   {path}\n")

    def plan(self, unit: str = "puma", version: t.Optional[str] = None, **more: int) -> profile.Plan:
        """Return the plan."""
        wanted = profile.Wanted(unit, version, more.get("interval", 26), more.get("sample", 19), more.get("limit", 1))
        return profile.plan(self, wanted, self.prefix, str(self.root), str(self.root / "proc"))

    def refused(self, **arguments: t.Any) -> str:
        """Return why there is no plan."""
        with pytest.raises(JemallocError) as error:
            self.plan(**arguments)
        assert str(error.value).endswith(".")
        return str(error.value)


@pytest.fixture
def fake(root: pathlib.Path, installed: t.Callable[..., None], program: Program) -> Fake:
    """A service that can be profiled with 5.3.1, which is current, but is not configured for anything."""
    options = {"cxx": False, "prof": True, "lg_page": None}
    installed(f"{root}/store", "5.3.1", options=options)
    (root / "store" / "current").symlink_to("5.3.1")
    for place in ("cache", "log", "lib"):
        (root / "var" / place).mkdir(parents=True)
    for name in ("jeprof", "perl", "nm", "addr2line", "objdump", "c++filt"):
        program(name, "")
    this = Fake(root, f"{root}/store")
    this.process()
    return this


def ours(fake: Fake) -> None:
    """Configure the service as the collection does."""
    path = pathlib.Path(places.drop_in_path("puma.service"))
    path.parent.mkdir(parents=True)
    path.write_text(
        f"# preload.jemalloc\n[Service]\nEnvironment=LD_PRELOAD={fake.prefix}/current/lib/libjemalloc.so:/a.so\n"
        'Environment="MALLOC_CONF=narenas:2,prof:false,lg_prof_sample:9,log:a%%b"\n'
    )
    fake.add(DropInPaths=str(path))


def test_the_drop_in_of_a_service_that_is_configured(fake: Fake) -> None:
    ours(fake)
    fake.file("[Service]\nEnvironment=LD_PRELOAD=/a.so\n")
    left = fake.root / "run/systemd/system/puma.service.d" / profile.DROP_IN
    left.parent.mkdir()
    left.write_text(f"[Service]\nEnvironment=LD_PRELOAD={fake.prefix}/9.9.9/lib/libjemalloc.so MALLOC_CONF=zero:true\n")
    fake.add(DropInPaths=f"{fake.units['puma.service']['DropInPaths']} {left}")
    plan = fake.plan()
    conf = (
        "narenas:2,log:a%%b,prof:true,prof_active:true,prof_final:false,lg_prof_sample:19,lg_prof_interval:26,"
        f"prof_prefix:{fake.root}/var/cache/preload-jemalloc-profile/dump"
    )
    assert plan.text.splitlines()[1:] == [
        "[Service]",
        f'Environment="LD_PRELOAD={fake.prefix}/5.3.1/lib/libjemalloc.so:/a.so"',
        f'Environment="MALLOC_CONF={conf}"',
        "CacheDirectory=preload-jemalloc-profile",
        "CacheDirectoryMode=0700",
    ]
    assert (plan.conf, plan.drop_in) == (conf, str(left))
    assert plan.service == plan.before == restarts.Service("puma.service", "5.3.1")
    # what the library is asked is what the service gets, but for what writes files
    assert (
        fake.probed[-1]
        == f"MALLOC_CONF={conf.replace('%%', '%').replace('interval:26', 'interval:-1')},prof_final:false"
    )


def test_systemd_reads_it_behind_ours_and_those_of_others(fake: Fake) -> None:
    assert sorted([profile.DROP_IN, changes_util.DROP_IN, "override.conf"])[-1] == profile.DROP_IN


def test_a_service_that_is_not_configured(fake: Fake) -> None:
    assert fake.refused() == (
        "unit: puma.service is not configured to preload jemalloc; name it in jemalloc_services first, or give the "
        "installed version to profile it with."
    )
    settings = fake.root / "etc/systemd/system.conf"
    settings.parent.mkdir()
    settings.write_text("[Manager]\nDefaultEnvironment=LD_PRELOAD=/b.so MALLOC_CONF=zero:true\n")
    plan = fake.plan(version="5.3.1")
    assert "5.3.1/lib/libjemalloc.so:/b.so" in plan.text
    assert plan.conf.startswith("zero:true,prof:true")
    assert plan.before == restarts.Service("puma.service", None)
    fake.process(101, "5.3.1")  # by a script, say, of which nothing is known
    assert fake.plan(version="5.3.1").before == restarts.Service("puma.service", "any")


def test_the_unit_has_to_be_a_service_that_runs(fake: Fake) -> None:
    assert fake.refused(unit="sidekiq@") == "unit: sidekiq@ is a template; name one of its instances, as sidekiq@1."
    assert "knows no such service" in fake.refused(unit="nginx")
    fake.add("app.socket", Triggers="app.service other.service")
    fake.add("app.service")
    fake.add("other.service")
    assert fake.refused(unit="app.socket") == "unit: app.socket starts 2 services; name one of them."
    fake.add(ActiveState="failed")
    assert fake.refused() == "unit: puma.service is failed; start it first."
    fake.add(ActiveState="")
    assert fake.refused() == "unit: puma.service is not known; start it first."
    fake.add(ActiveState="active")
    (fake.root / "proc/100/cgroup").write_text("0::/\n")
    assert fake.refused(version="5.3.1") == "unit: puma.service has no process that could be profiled."


def test_the_release_has_to_be_there_with_profiling(fake: Fake, installed: t.Callable[..., None]) -> None:
    what = "run preload.jemalloc.jemalloc first."
    assert fake.refused(version="5.1.0") == (
        f"{fake.prefix}/5.1.0 cannot be used: no such release is installed there; {what}"
    )
    without = (
        f"jemalloc 5.2.1 in {fake.prefix} was built without profiling; install it with options: {{prof: true}} (the "
        "role's jemalloc_options)."
    )
    installed(fake.prefix, "5.2.1")
    assert fake.refused(version="5.2.1") == without
    # what a package has only its library tells
    installed(fake.prefix, "5.3.0", method="package", options={})
    assert fake.plan(version="5.3.0").service.version == "5.3.0"
    fake.complains_of = "prof:true"
    assert fake.refused(version="5.3.0") == without.replace("5.2.1", "5.3.0")
    fake.complains_of = "prof_prefix"
    assert f"jemalloc 5.3.1 in {fake.prefix} does not take prof:true," in fake.refused(version="5.3.1")
    with open(f"{fake.prefix}/5.3.1/lib/libjemalloc.so.2", "ab") as stream:
        stream.write(b"x")
    assert f"cannot be used: lib/libjemalloc.so.2 is not what its receipt says; {what}" in fake.refused(version="5.3.1")


def test_what_jemalloc_does_not_take_is_refused(fake: Fake) -> None:
    assert fake.refused(version="5.3.1", interval=64).startswith("malloc_conf: lg_prof_interval: 64 is not what")
    assert fake.refused(version="5.3.1", sample=-1).startswith("malloc_conf: lg_prof_sample: -1 is not what")


def test_what_would_win_over_the_drop_in_is_refused(fake: Fake) -> None:
    file = fake.root / "puma.env"
    file.write_text("A=1\n")
    fake.add(EnvironmentFiles=f"{file} (ignore_errors=yes)")
    assert fake.plan(version="5.3.1")
    file.write_text("MALLOC_CONF=zero:true\n")
    assert fake.refused(version="5.3.1") == (
        f"unit: puma.service cannot be profiled: {file} sets MALLOC_CONF and would win; write it as Environment= in a "
        "drop-in of the unit."
    )
    fake.add(EnvironmentFiles="", UnsetEnvironment="A LD_PRELOAD=x")
    assert fake.refused(version="5.3.1") == (
        "unit: puma.service cannot be profiled: its UnsetEnvironment= takes LD_PRELOAD away, which keeps it out of "
        "jemalloc."
    )
    fake.add(UnsetEnvironment="", RootDirectory="/srv")
    assert "cannot be profiled: RootDirectory=/srv hides" in fake.refused(version="5.3.1")


def test_the_directory_is_of_a_kind_that_the_unit_does_not_use(fake: Fake) -> None:
    for kind, place in (("CacheDirectory", "cache"), ("LogsDirectory", "log"), ("StateDirectory", "lib")):
        plan = fake.plan(version="5.3.1")
        assert plan.directory == f"{fake.root}/var/{place}/preload-jemalloc-profile"
        assert plan.text.splitlines()[-2:] == [f"{kind}=preload-jemalloc-profile", f"{kind}Mode=0700"]
        fake.add(**{kind: "its-own"})
    assert fake.refused(version="5.3.1") == (
        "unit: puma.service uses CacheDirectory, LogsDirectory, StateDirectory all by itself, so that none is left "
        "whose mode could be that of private dumps; take one out for the time of the profile."
    )


def test_with_a_user_of_its_own_the_directory_is_elsewhere(fake: Fake) -> None:
    plan = fake.plan(version="5.3.1")
    private = f"{fake.root}/var/cache/private/preload-jemalloc-profile"
    assert plan.directories == [private, plan.directory]
    os.makedirs(plan.directory)
    assert plan.real_directory() == plan.directory
    assert profile.present_directories(str(fake.root)) == [plan.directory]
    os.rmdir(plan.directory)
    os.makedirs(private)
    os.symlink("private/preload-jemalloc-profile", plan.directory)
    assert plan.real_directory() == private
    assert profile.present_directories(str(fake.root)) == [private, plan.directory]


def test_the_disk_has_to_have_room(fake: Fake) -> None:
    said = fake.refused(version="5.3.1", limit=1 << 62)
    assert re.fullmatch(
        rf"size_limit: {fake.root}/var/cache has [0-9]+ MiB free, and twice {1 << 42} are needed; make room there, or "
        r"give a lower limit\.",
        said,
    )


def test_the_tool_and_what_it_calls(fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    assert fake.plan(version="5.3.1").tool == f"{tmp_path}/programs/jeprof"
    own = pathlib.Path(fake.prefix, "5.3.1", "bin", "pprof")
    own.parent.mkdir(exist_ok=True)
    own.write_text("")
    own.chmod(0o755)
    assert profile._tool(fake.prefix, "5.3.1") == str(own)
    for name in ("nm", "perl"):
        (tmp_path / "programs" / name).unlink()
    monkeypatch.setenv("PATH", f"{tmp_path}/programs")
    with pytest.raises(JemallocError) as error:
        profile._tool(fake.prefix, "5.3.1")
    assert str(error.value) == f"{own} needs perl, nm on the host; install the package perl, binutils."
    own.unlink()
    (tmp_path / "programs" / "jeprof").unlink()
    with pytest.raises(JemallocError, match=r"has no jeprof, and there is none on the PATH; build 5\.3\.1 from source"):
        profile._tool(fake.prefix, "5.3.1")


def test_what_was_left_behind_is_found(fake: Fake) -> None:
    assert profile.present_drop_ins(str(fake.root)) == []
    paths = [fake.root / f"run/systemd/system/{unit}.service.d" / profile.DROP_IN for unit in ("a", "b@1")]
    for path in paths:
        path.parent.mkdir()
        path.write_text("")
    assert profile.present_drop_ins(str(fake.root)) == [str(path) for path in paths]
