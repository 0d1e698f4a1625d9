# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scopes: texts, plans, and the change of all files or none."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.preload.jemalloc.plugins.module_utils import _environment as environment
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _preload as preload
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

PREFIX = "/opt/jemalloc"
OURS = "/opt/jemalloc/current/lib/libjemalloc.so"
TEXTS = preload.Texts(
    service="# preload.jemalloc\n[Service]\n@SETTINGS@\n",
    manager="# preload.jemalloc\n[Manager]\n@SETTINGS@\n",
    environment="LD_PRELOAD=@LD_PRELOAD@\n",
    profile="# preload.jemalloc\nexport X=1\n",
)
PART = f"# BEGIN preload.jemalloc\nLD_PRELOAD={OURS}\n# END preload.jemalloc\n"
SERVICE = TEXTS.service.replace("@SETTINGS@", f'Environment="LD_PRELOAD={OURS}"')
MANAGER = TEXTS.manager.replace("@SETTINGS@", f'DefaultEnvironment="LD_PRELOAD={OURS}"')


def put(path: pathlib.Path, text: str, mode: int = 0o644) -> str:
    """Write a file and the directories that lead to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def drop_in(root: pathlib.Path, unit: str) -> pathlib.Path:
    """Return where our drop-in of a unit stands."""
    return root / "etc/systemd/system" / f"{unit}.d" / "zz-preload-jemalloc.conf"


def test_paths() -> None:
    path = preload.drop_in_path("a@1.service")
    assert path == "/etc/systemd/system/a@1.service.d/zz-preload-jemalloc.conf"
    assert preload.unit_of_drop_in(path) == "a@1.service"


@pytest.mark.parametrize(
    ("foreign", "expected"),
    [
        ("", OURS),
        (" : ", OURS),
        ("/a.so", f"{OURS}:/a.so"),
        ("/a.so:/b.so /c.so", f"{OURS}:/a.so:/b.so:/c.so"),
        (OURS, OURS),
        (f"/a.so:/opt/jemalloc/5.1.0/lib/libjemalloc.so:{OURS}:/b.so", f"{OURS}:/a.so:/b.so"),
        ("/opt/jemalloc-old/x.so:/opt/jemallocx", f"{OURS}:/opt/jemalloc-old/x.so:/opt/jemallocx"),
        ("libx.so:%h/y.so", f"{OURS}:libx.so:%h/y.so"),
    ],
)
def test_in_front(foreign: str, expected: str) -> None:
    assert preload.in_front(PREFIX, foreign) == expected


ENTRY = st.one_of(
    st.sampled_from([OURS, "/opt/jemalloc/5.1.0/lib/libjemalloc.so", "/opt/jemalloc2/x.so", ""]),
    st.text(st.characters(blacklist_categories=["Z", "C"], blacklist_characters=":"), max_size=8),
)


@given(st.lists(st.tuples(ENTRY, st.sampled_from([":", " ", "::", " : "]))))
def test_in_front_keeps_the_others_in_their_order(entries: t.List[t.Tuple[str, str]]) -> None:
    value = preload.in_front(PREFIX, "".join(f"{entry}{separator}" for entry, separator in entries))
    foreign = [entry for entry, _separator in entries if entry and not entry.startswith("/opt/jemalloc/")]
    assert value.split(":") == [OURS, *foreign]
    assert preload.in_front(PREFIX, value) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [("/a.so:%h/b", "/a.so:%h/b"), ('/a"b', r"/a\"b"), (r"/a\b", r"/a\\b"), (r"\"", r"\\\""), ("a\tb\n", r"a\tb\n")],
)
def test_an_assignment_is_undone_by_the_reader(value: str, expected: str) -> None:
    line = preload.assignment("LD_PRELOAD", value)
    assert line == f'Environment="LD_PRELOAD={expected}"'
    assert environment.setting([f"[Service]\n{line}\n"], "Service", "Environment", "LD_PRELOAD") == value


ENVIRONMENTS: t.List[t.Tuple[t.Optional[str], str]] = [
    (None, PART.replace("jemalloc\nLD", "jemalloc (made this file)\nLD")),
    ("", PART),
    ("A=1\n", f"A=1\n{PART}"),
    ("A=1", "A=1\n" + PART.replace("jemalloc\nLD", "jemalloc (after a line without its end)\nLD")),
    ("LD_PRELOAD=/a.so\n", "LD_PRELOAD=/a.so\n" + PART.replace(OURS, f"{OURS}:/a.so")),
    (f"LD_PRELOAD={OURS}\n", f"LD_PRELOAD={OURS}\n{PART}"),
    (f"A=1\n{PART}B=2\n", f"A=1\nB=2\n{PART}"),
    (PART.replace(OURS, "/old"), PART),
]


@pytest.mark.parametrize(("before", "after"), ENVIRONMENTS)
def test_environment_with(before: t.Optional[str], after: str) -> None:
    assert preload.environment_with(before, TEXTS.environment, PREFIX) == after
    assert preload.environment_with(after, TEXTS.environment, PREFIX) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, None),
        ("", ""),
        ("A=1\n", "A=1\n"),
        (PART, ""),
        (PART.replace("jemalloc\nLD", "jemalloc (made this file)\nLD"), None),
        (PART.replace("jemalloc\nLD", "jemalloc (made this file)\nLD") + "B=2\n", "B=2\n"),
        ("A=1\n" + PART.replace("jemalloc\nLD", "jemalloc (after a line without its end)\nLD"), "A=1"),
        ("A=1\n" + PART.replace("jemalloc\nLD", "jemalloc (after a line without its end)\nLD") + "B=2", "A=1\nB=2"),
        (f"A=1\n{PART}B=2", "A=1\nB=2"),
        (PART.rstrip(), ""),
    ],
)
def test_environment_without(before: t.Optional[str], after: t.Optional[str]) -> None:
    assert preload.environment_without(before) == after


@given(st.one_of(st.none(), st.binary(), st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_environment_comes_back_byte_for_byte(data: t.Optional[bytes]) -> None:
    text = None if data is None else data.decode("utf-8", "surrogateescape")
    whole = preload.environment_with(text, TEXTS.environment, PREFIX)
    assert preload.environment_without(whole) == text
    assert preload.environment_with(whole, TEXTS.environment, PREFIX) == whole
    assert whole.startswith(text or "")


@given(st.lists(st.sampled_from(["A=1", "LD_PRELOAD=/a.so", "# no", "", "\r"])), st.sampled_from(["", "\n"]))
def test_what_others_write_behind_our_part_stays(lines: t.List[str], end: str) -> None:
    whole = preload.environment_with("A=1", TEXTS.environment, PREFIX)
    added = "\n".join(lines) + end
    expected = "A=1" if not added else f"A=1\n{added}"
    assert preload.environment_without(whole + added) == expected


NOBODY = preload.Scopes()


def unit(root: pathlib.Path, name: str = "puma.service", text: str = "", environment: str = "") -> systemd.Unit:
    """Return a unit with one unit file, and one environment file if that has a text."""
    path = put(root / "usr/lib/systemd/system" / name, f"[Service]\n{text}\n")
    environments = (put(root / "etc/default" / name, environment),) if environment else ()
    return systemd.Unit(name, "active", (path,), environments)


def test_service_text(root: pathlib.Path) -> None:
    assert preload.service_text(unit(root), TEXTS.service, PREFIX, NOBODY) == SERVICE
    foreign = unit(root, text="Environment='LD_PRELOAD=%h/a \"b\"'", environment="A=1\n")
    value = f'{OURS}:%h/a:\\"b\\"'
    assert preload.service_text(foreign, TEXTS.service, PREFIX, NOBODY) == SERVICE.replace(OURS, value)


def test_service_text_leaves_our_own_drop_in_out(root: pathlib.Path) -> None:
    path = put(drop_in(root, "puma.service"), "[Service]\nEnvironment=LD_PRELOAD=/old.so\n")
    found = systemd.Unit("puma.service", "active", (*unit(root).unit_files, path, str(root / "missing.conf")))
    assert preload.service_text(found, TEXTS.service, PREFIX, NOBODY) == SERVICE


def test_service_text_refuses_what_would_win(root: pathlib.Path) -> None:
    found = unit(root, environment="LD_PRELOAD=/a.so\n")
    with pytest.raises(JemallocError) as caught:
        preload.service_text(found, TEXTS.service, PREFIX, NOBODY)
    assert str(caught.value) == (
        f"services: {root}/etc/default/puma.service sets LD_PRELOAD=/a.so for puma.service and would win over our "
        "drop-in; take that line out, or write it as Environment= in a drop-in of puma.service."
    )


def test_references(root: pathlib.Path) -> None:
    assert preload.references(PREFIX, str(root)) == []
    manager = put(root / "etc/systemd/system.conf.d/zz-preload-jemalloc.conf", MANAGER)
    service = put(drop_in(root, "a.service"), SERVICE.replace("current", "5.1.0"))
    environment = put(root / "etc/environment", PART)
    put(drop_in(root, "b.service"), "[Service]\nEnvironment=LD_PRELOAD=/opt/jemalloc/x.so\n")
    put(drop_in(root, "c.service"), SERVICE.replace("/opt/jemalloc/", "/opt/jemalloc2/"))
    assert preload.references(PREFIX, str(root)) == [manager, service, environment]
    assert preload.references(f"{PREFIX}/5.1.0", str(root)) == [service]
    assert preload.references(f"{PREFIX}/5.1", str(root)) == []


def planned(
    root: pathlib.Path,
    *units: systemd.Unit,
    host: bool = False,
    texts: t.Optional[preload.Texts] = TEXTS,
    prefix: str = PREFIX,
) -> t.Tuple[t.Dict[str, t.Optional[str]], t.List[str]]:
    """Return what a plan changes, by the path below the root, and what is foreign."""
    scopes = preload.Scopes("environment" if host else None, units)
    changes, foreign = preload.plan(scopes, texts, prefix, str(root))
    return (
        {os.path.relpath(change.path, str(root)): change.after for change in changes},
        [os.path.relpath(path, str(root)) for path in foreign],
    )


COMMON = {
    "etc/profile.d/jemalloc.sh": TEXTS.profile,
    "usr/local/bin/jemalloc.sh": "/opt/jemalloc/current/bin/jemalloc.sh",
    "usr/local/bin/no-jemalloc.sh": "/opt/jemalloc/current/bin/no-jemalloc.sh",
}
PUMA = "etc/systemd/system/puma.service.d/zz-preload-jemalloc.conf"
MANAGER_PATH = "etc/systemd/system.conf.d/zz-preload-jemalloc.conf"


def test_plan_of_a_service(root: pathlib.Path) -> None:
    assert planned(root, unit(root)) == ({PUMA: SERVICE, **COMMON}, [])


def test_plan_of_the_host(root: pathlib.Path) -> None:
    put(root / "etc/environment", "A=1\n")
    put(root / "etc/systemd/system.conf", "[Manager]\nDefaultEnvironment=LD_PRELOAD=/a.so\n")
    manager = MANAGER.replace(OURS, f"{OURS}:/a.so")
    assert planned(root, host=True) == ({MANAGER_PATH: manager, "etc/environment": f"A=1\n{PART}", **COMMON}, [])


def test_plan_of_a_host_without_systemd(root: pathlib.Path) -> None:
    (root / "run/systemd/system").rmdir()
    changes, _foreign = planned(root, host=True)
    assert sorted(changes) == ["etc/environment", *sorted(COMMON)]


def test_plan_of_nobody(root: pathlib.Path) -> None:
    assert planned(root) == (COMMON, [])


def test_plan_follows_the_link_of_the_environment(root: pathlib.Path) -> None:
    put(root / "etc/default/locale", "A=1\n")
    (root / "etc/environment").symlink_to("default/locale")
    changes, _foreign = preload.plan(preload.Scopes("environment"), TEXTS, PREFIX, str(root))
    preload.apply(changes)
    assert os.readlink(str(root / "etc/environment")) == "default/locale"
    assert (root / "etc/default/locale").read_text() == f"A=1\n{PART}"


def make(root: pathlib.Path, *units: systemd.Unit, host: bool = False, present: bool = True) -> t.List[preload.Change]:
    """Plan and apply."""
    scopes = preload.Scopes("environment" if host else None, units)
    changes, _foreign = preload.plan(scopes, TEXTS if present else None, PREFIX, str(root))
    preload.apply(changes)
    return changes


Snapshot = t.Callable[[pathlib.Path], t.Dict[str, t.Tuple[int, t.Any, float]]]


@pytest.mark.parametrize("environment", [None, b"", b"A=1", b"A=1\n", b"\xff\r\n"])
def test_there_and_back(root: pathlib.Path, environment: t.Optional[bytes]) -> None:
    if environment is not None:
        (root / "etc/environment").write_bytes(environment)
        (root / "etc/environment").chmod(0o640)
    units = [unit(root), unit(root, "cron.service")]
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert len(make(root, *units, host=True)) == 7
    assert make(root, *units, host=True) == []
    assert (root / "usr/local/bin/jemalloc.sh").is_symlink()
    assert len(make(root, units[0])) == 3
    assert not drop_in(root, "cron.service").parent.exists()
    assert drop_in(root, "puma.service").exists()
    assert len(make(root, present=False)) == 4
    assert make(root, present=False) == []
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    if environment is not None:
        assert (root / "etc/environment").stat().st_mode & 0o777 == 0o640


def test_a_drop_in_directory_with_something_foreign_stays(root: pathlib.Path) -> None:
    make(root, unit(root))
    foreign = put(drop_in(root, "puma.service").parent / "a.conf", "[Service]\n")
    make(root, present=False)
    assert os.listdir(os.path.dirname(foreign)) == ["a.conf"]


def test_order_is_such_that_nothing_ever_leads_nowhere(root: pathlib.Path) -> None:
    first = [change.path for change in make(root, unit(root), host=True)]
    assert [os.path.relpath(path, str(root)) for path in first] == [
        MANAGER_PATH,
        "etc/environment",
        "etc/profile.d/jemalloc.sh",
        PUMA,
        "usr/local/bin/jemalloc.sh",
        "usr/local/bin/no-jemalloc.sh",
    ]
    last = [os.path.relpath(change.path, str(root)) for change in make(root, present=False)]
    assert last[0] == PUMA
    assert last[-1] == "usr/local/bin/no-jemalloc.sh"


@pytest.mark.parametrize("link", [True, False])
def test_foreign_files_of_our_names_are_left_alone(root: pathlib.Path, link: bool) -> None:
    put(root / "etc/profile.d/jemalloc.sh", "# somebody else's\n")
    command = root / "usr/local/bin/jemalloc.sh"
    command.parent.mkdir(parents=True)
    if link:
        command.symlink_to("/opt/other/jemalloc.sh")
    else:
        command.write_text("#!/bin/sh\n")
    names = ["etc/profile.d/jemalloc.sh", "usr/local/bin/jemalloc.sh"]
    other = "usr/local/bin/no-jemalloc.sh"
    assert planned(root) == ({other: COMMON[other]}, names)
    assert planned(root, texts=None) == ({}, [])


def test_a_profile_of_ours_that_changed_is_put_right(root: pathlib.Path) -> None:
    put(root / "etc/profile.d/jemalloc.sh", "# preload.jemalloc\nold\n", 0o600)
    make(root)
    assert (root / "etc/profile.d/jemalloc.sh").read_text() == TEXTS.profile
    assert (root / "etc/profile.d/jemalloc.sh").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_new_files_and_directories_can_be_read_by_everybody(root: pathlib.Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        make(root, unit(root), host=True)
    finally:
        os.umask(before)
    assert drop_in(root, "puma.service").stat().st_mode & 0o777 == 0o644
    assert drop_in(root, "puma.service").parent.stat().st_mode & 0o777 == 0o755
    assert (root / "usr/local/bin").stat().st_mode & 0o777 == 0o755


def contents(root: pathlib.Path) -> t.Dict[str, t.Union[str, bytes]]:
    """Return every file and link below the root; empty directories that were made on the way do not count."""
    return {
        str(path): os.readlink(str(path)) if path.is_symlink() else path.read_bytes()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_write_over_a_foreign_link(root: pathlib.Path) -> None:
    target = put(root / "etc/target", "kept", 0o600)
    files.replace_link(str(root / "etc/link"), target)
    preload.apply([preload.Change(str(root / "etc/link"), "kept", "new")])
    assert pathlib.Path(target).read_text() == "kept"
    assert (root / "etc/link").read_text() == "new"


@given(st.one_of(st.none(), st.binary(), st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_the_list_of_the_dynamic_linker_comes_back_byte_for_byte(data: t.Optional[bytes]) -> None:
    text = None if data is None else data.decode("utf-8", "surrogateescape")
    assume(sum("#" in line for line in (text or "").split("\n")) < 2)
    whole = preload.preloaded_with(text, PREFIX)
    assert whole.startswith(f"{OURS}::")
    assert whole.endswith(text or "")
    assert preload.preloaded_without(whole) == text
    assert preload.preloaded_with(whole, PREFIX) == whole


@given(st.lists(st.sampled_from(["/a.so", "/b.so:/c.so", "# no", "", "\r"])), st.sampled_from(["", "\n"]))
def test_what_others_add_to_the_list_stays(lines: t.List[str], end: str) -> None:
    added = "\n".join(lines) + end
    whole = preload.preloaded_with("/first.so\n", PREFIX) + added
    assert preload.preloaded_without(whole) == f"/first.so\n{added}"
    assert preload.preloaded_without(f"{added}\n{preload.preloaded_with(None, PREFIX)}") == f"{added}\n"


@pytest.mark.parametrize("comments", ["# one\n# two\n", "/a.so # one\n/b.so\n#two"])
def test_a_list_in_which_glibc_would_misread_a_comment(comments: str) -> None:
    assert preload.preloaded_with("# one # and\n/a.so\n", PREFIX).endswith("::\n# one # and\n/a.so\n")
    with pytest.raises(JemallocError) as caught:
        preload.preloaded_with(comments, PREFIX)
    assert str(caught.value) == (
        "via: /etc/ld.so.preload has more than one comment, and glibc takes later ones for names of libraries when a "
        "line is added; leave one of them."
    )


def test_references_by_the_list_of_the_dynamic_linker(root: pathlib.Path) -> None:
    path = put(root / "etc/ld.so.preload", f"/a.so {PREFIX}/5.1.0/lib/libjemalloc.so\n")
    assert preload.references(PREFIX, str(root)) == [path]
    assert preload.references(f"{PREFIX}/5.3.1", str(root)) == []


def test_find_command(tmp_path: pathlib.Path) -> None:
    for name in ("a", "usr/local/bin"):
        (tmp_path / name).mkdir(parents=True)
    tool = put(tmp_path / "a" / "tool", "", 0o755)
    put(tmp_path / "usr/local/bin/tool", "", 0o755)
    path = f":{tmp_path}/usr/local/bin:{tmp_path}/missing:{tmp_path}/a"
    assert preload.find_command("tool", path, str(tmp_path)) == tool
    assert preload.find_command("other", path, str(tmp_path)) == ""
