# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers of hosts that were taken over: one sentence, no byte elsewhere, no request, and never much memory."""

from __future__ import annotations

import base64
import copy
import functools
import json
import os
import reprlib
import tempfile
import tracemalloc
import typing as t
import zlib
from pathlib import Path
from unittest import mock

import pytest
from ansible import constants
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from lab import recorded

from ansible_collections.preload.jemalloc.plugins.action import (
    jemalloc,
    jemalloc_bundle,
    jemalloc_image,
    jemalloc_info,
    jemalloc_profile,
    jemalloc_report,
)
from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archive
from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundle
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _answers as answers
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _apt as apt
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _cache as caching
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _display as display
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _download as downloading
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _registered as registered
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _report as reporting
from tests.unit import packed

#: Examples for each kind of parser: all kinds together have 10,000 in full.
EXAMPLES, EXAMPLES_IN_FULL = 60, 2_000

#: Bytes of memory that one answer may take.
MOST_MEMORY = 64 << 20


def nested(levels: int) -> t.Any:
    """Return a list in a list, so many of them."""
    value: t.Any = "x"
    for _level in range(levels):
        value = [value]
    return value


def zipped(data: bytes) -> str:
    """Return a file of a profile as the module sends it."""
    return base64.b64encode(zlib.compress(data)).decode("ascii")


TEXTS = [
    *("", "x", "\x1b[2J\x1b]0;x\a", "a\0b", "\u202e", "\x9b", "\ud800", "5.3.1\n", "é", "..", "."),
    *("/etc/passwd", "/dev/zero", "../../victim", "/root/.ssh/authorized_keys", "~/x", "a/b", "/opt/jemalloc/5.3.1"),
    *("http://127.0.0.1:18999/admin/delete?x=", "file:///etc/passwd", "{{ lookup('pipe', 'id') }}", "5.3.0", "9" * 30),
    *("0" * 64, "A" * 64, "sha256:" + "0" * 64, "x86_64", "glibc", "2.36", "1e9", "12", "true", "\uff11.0"),
    *("x" * 100_000, "\x1b" * 100_000, "9" * 100_000),
]


@functools.cache
def huge() -> list[t.Any]:
    """Return what takes much memory, or may come to do so."""
    return [
        *(nested(40), nested(900), nested(20_000)),
        *(["x"] * 600_000, [["\x1b"]] * 200_000, {str(number): [] for number in range(300_000)}),
        *("\x1b" * (13 << 20), "A" * (23 << 20), [{}] * 100_000, {"x" * 1000: nested(100)}),
        *(zipped(bytes(100 << 20)), base64.b64encode(packed.bundle(bytes(120 << 20))).decode("ascii")),
    ]


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 1 << 63, 1 << 200, 12.0, float("nan"), float("inf"), -0.0]),
    st.sampled_from(TEXTS),
    st.text(max_size=20),
)
GARBAGE = st.one_of(
    SCALARS,
    st.recursive(
        SCALARS,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(TEXTS) | st.text(), inner, max_size=4)
        ),
        max_leaves=10,
    ),
    st.deferred(lambda: st.sampled_from(huge())),
)


def containers(value: t.Any) -> t.Iterator[t.Any]:
    """Return the mappings and lists of a value."""
    if isinstance(value, (dict, list)):
        yield value
        for each in value.values() if isinstance(value, dict) else value:
            yield from containers(each)


def places(value: t.Any, own: t.Container[int]) -> list[tuple[t.Any, t.Any]]:
    """Return the places in an answer, each a container and a key, those of its own containers only."""
    found: list[tuple[t.Any, t.Any]] = []
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        found.append((value, key))
        if id(value[key]) in own:
            found += places(value[key], own)
    return found


class Drawn:
    """An answer that was drawn; huge ones have a short name, as the report of a failure names them."""

    def __init__(self, value: t.Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        """Return the answer, cut."""
        return reprlib.repr(self.value)


def near(right: t.Any) -> st.SearchStrategy[t.Any]:
    """Return answers that are right but for some places; now and then one is right, or garbage as a whole."""
    return changed(right).map(Drawn)


@st.composite
def changed(draw: st.DrawFn, right: t.Any) -> t.Any:
    """Return an answer with some changes."""
    whole = {"answer": copy.deepcopy(right)}
    kept = list(containers(whole))
    own = {id(each) for each in kept}  # what comes into it is shared by all examples, and is not changed
    for _change in range(draw(st.integers(0, 3))):
        parent, key = draw(st.sampled_from(places(whole, own)))
        kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if kind == "remove" and parent is not whole:
            del parent[key]
        elif kind == "add" and isinstance(parent, dict) and parent is not whole:
            parent[draw(st.sampled_from(TEXTS))] = draw(GARBAGE)
        else:
            parent[key] = draw(GARBAGE)
    return whole["answer"]


MISSING = packed.missing()
STORE = {"installations": ["5.3.0"], "current": "5.3.0", "previous": None}
LOOK = {
    "changed": False,
    "version": "5.3.1",
    "library": "/opt/jemalloc/current/lib/libjemalloc.so",
    "built": "5.3.1",
    "diff": {"before": STORE, "after": {**STORE, "installed anew": "x"}},
    "missing": MISSING,
    **STORE,
}
BUILT = {**LOOK, "changed": True, "missing": None}
PACKED = packed.answer(packed.bundle())
IMAGE = {"changed": True, "built": "5.3.1", "content": PACKED["content"], "receipt": PACKED["receipt"]}
PROFILE = {
    "changed": True,
    "unit": "puma.service",
    "version": "5.3.1",
    "began": "2026-11-26T103000Z",
    "seconds": 60.3,
    "early": "",
    "contents": {"12.txt": zipped(b"most\n"), "12.heap": zipped(b"dump\n"), "12.dot": zipped(b'digraph "x" {\n}\n')},
    "processes": [{"pid": 12, "program": "/usr/bin/ruby"}],
    "top": [{"function": "most", "mb": 19.4}],
    "left_out": [],
}
UNIT = {
    "name": "puma.service",
    "scope": "system",
    "container": "",
    "pss": 1000,
    "uptime": 5000,
    "processes": 2,
    "threads": 9,
    "rss": 2000,
    "swap": 0,
    "allocators": {"glibc": 1, "jemalloc 5.3.1": 1},
    "configured": "5.3.1",
    "malloc_conf": "",
    "drift": ["It runs with 5.3.0."],
    "candidate": {"why": "It is large."},
}
INFO = {
    "changed": False,
    "time": 1_700_000_000,
    "installations": [{"version": "5.3.1", "current": True, "damage": ""}],
    "scopes": [{"kind": "service", "unit": "puma.service", "ours": True}],
    "units": [UNIT, {**UNIT, "name": "sidekiq.service"}],
    "unreadable": {"processes": 1, "reason": "No rights."},
}


class Controller:
    """A controller in a directory, which runs actions with hosts that answer anything."""

    def __init__(self, top: Path, examples: int, patch: pytest.MonkeyPatch) -> None:
        """Make the directories that may be written to, and what may not be touched."""
        self._top = top
        self.settings = settings(
            max_examples=examples,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.reuse, Phase.generate),  # a huge example takes minutes to shrink
        )
        self.cache, self.dist, self.profiles, self.reports = (
            top / name for name in ("cache", "dist", "profile", "report")
        )
        self._temporary, self._planted = top / "tmp", top / "planted"
        self._temporary.mkdir()
        self._planted.write_text("planted")
        TEXTS.append(str(self._planted))
        self.requests: list[str] = []
        patch.setattr(constants, "DEFAULT_LOCAL_TMP", str(self._temporary))
        patch.setattr(tempfile, "tempdir", str(self._temporary))
        patch.setattr(apt, "archive_roots", list)
        patch.setattr(downloading, "download", self._download)
        patch.setattr(display, "say", self._shown)

    def _download(self, url: str, *_more: t.Any) -> None:
        self.requests.append(url)
        raise JemallocError("there is no network")

    @staticmethod
    def _shown(text: str, **_more: t.Any) -> None:
        assert answers.plain(text) == text

    def act(self, action: t.Any, replies: t.Mapping[str, t.Any], **arguments: t.Any) -> dict[str, t.Any]:
        """Run an action with a host that answers so, by module and value of build."""
        given = {"cache": str(self.cache), "dist": str(self.dist), "directory": str(self.profiles), **arguments}
        task = mock.MagicMock(args=given, async_val=0, check_mode=False, delegate_to=None)
        plugin = action.ActionModule(task, *[mock.MagicMock() for _each in range(4)], None)

        def execute(module_name: str, module_args: t.Any = None, **_more: t.Any) -> t.Any:
            leaf = module_name.rpartition(".")[2]
            return copy.copy(replies.get(f"{leaf} {(module_args or {}).get('build')}", replies.get(leaf)))

        plugin._execute_module = execute
        plugin._connection._shell.join_path = os.path.join
        plugin._transfer_file = plugin._fixup_perms2 = mock.MagicMock()
        return dict(plugin.run(task_vars={"inventory_hostname": "web1", "groups": {"all": ["web1"]}}))

    def watch(self, use: t.Callable[[], t.Any]) -> None:
        """Do something with answers, and see that it ends well or by one sentence and leaves all else alone."""
        tracemalloc.start()
        try:
            with recorded() as written:
                result = use()
            memory = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert memory <= MOST_MEMORY, f"{memory >> 20} MiB"
        allowed = [self.cache, self.dist, self.profiles, self.reports, self._temporary]
        assert [path for path in written if not any(path.startswith(str(each)) for each in allowed)] == []
        assert self._planted.read_text() == "planted"
        assert [url for url in self.requests if not url.startswith("https://github.com/jemalloc/")] == []
        if isinstance(result, dict) and result.get("failed") and result["msg"].startswith("web1: the answer"):
            assert set(result) == {"failed", "msg"}
            assert result["msg"].count("Nothing of it was used.") == 1
            assert result["msg"].endswith(".")
            assert len(result["msg"]) < 1000
        assert answers.clean(result) == result
        with open(os.devnull, "w", encoding="utf-8") as terminal:
            terminal.write(json.dumps(result, ensure_ascii=False, default=str))


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> t.Iterator[Controller]:
    """Such a controller."""
    examples = EXAMPLES_IN_FULL if pytestconfig.getoption("full") else EXAMPLES
    texts = list(TEXTS)
    yield Controller(tmp_path, examples, monkeypatch)
    TEXTS[:] = texts


def test_what_is_right_stays_right(controller: Controller) -> None:
    replies = {"jemalloc never": LOOK, "jemalloc now": BUILT, "jemalloc_bundle": PACKED}
    assert controller.act(jemalloc, replies)["built"] == "5.3.1"
    assert len(list((controller.cache / "bundles").iterdir())) == 1
    found = controller.act(jemalloc_bundle, {"jemalloc_bundle": PACKED})
    assert found["path"] == f"{controller.dist}/x86_64-glibc2.34/jemalloc-5.3.1.tar.gz"
    image = {"jemalloc_image never": {"changed": False, "missing": MISSING}, "jemalloc_image now": IMAGE}
    made = controller.act(jemalloc_image, image, cache=str(controller.cache / "other"))
    assert made == {"changed": True, "built": "5.3.1", "builder": "web1"}
    assert len(controller.act(jemalloc_profile, {"jemalloc_profile": PROFILE})["files"]) >= 3
    assert controller.act(jemalloc_info, {"jemalloc_info": INFO}) == INFO


def test_installations(controller: Controller) -> None:
    @controller.settings
    @given(
        near(LOOK), near(BUILT), near(PACKED), near(MISSING), st.sampled_from(["never", "now", "chosen"]), st.booleans()
    )
    def property_of(look: t.Any, built: t.Any, made: t.Any, missing: t.Any, build: str, handed: bool) -> None:
        replies = {"jemalloc never": look.value, "jemalloc now": built.value, "jemalloc_bundle": made.value}
        more = {"missing": missing.value} if handed or build == "chosen" else {}
        controller.watch(lambda: controller.act(jemalloc, replies, build=build, **more))

    property_of()


def test_images(controller: Controller) -> None:
    @controller.settings
    @given(near({"changed": False, "missing": MISSING}), near(IMAGE))
    def property_of(look: t.Any, built: t.Any) -> None:
        replies = {"jemalloc_image never": look.value, "jemalloc_image now": built.value}
        controller.watch(lambda: controller.act(jemalloc_image, replies))

    property_of()


def test_bundles(controller: Controller) -> None:
    manifest = packed.manifest()

    @controller.settings
    @given(near(PACKED), near(manifest), st.binary(max_size=200), st.sampled_from(["text", "manifest", "cut", "given"]))
    def property_of(made: t.Any, wrong: t.Any, data: bytes, kind: str) -> None:
        text, answer = dumped(wrong.value), made.value
        content = {
            "text": data,
            "manifest": archive.pack({"j/receipt.json": (text.encode("utf-8", "replace"), False)}),
            "cut": packed.bundle()[: -len(data) or None] + data,
            "given": b"",
        }[kind]
        if kind != "given" and isinstance(answer, dict):
            answer["content"] = base64.b64encode(content).decode("ascii")
        controller.watch(lambda: controller.act(jemalloc_bundle, {"jemalloc_bundle": answer}))
        controller.watch(lambda: told(bundle.read_manifest, content))
        controller.watch(lambda: told(bundle.parse_manifest, text))
        controller.watch(lambda: caching.parse_index(text))

    property_of()


def test_profiles(controller: Controller) -> None:
    @controller.settings
    @given(near(PROFILE))
    def property_of(profile: t.Any) -> None:
        controller.watch(lambda: controller.act(jemalloc_profile, {"jemalloc_profile": profile.value}))

    property_of()


def test_reports(controller: Controller) -> None:
    wanted = {"keep": 300, "keep_days": 400, "min_uptime": 600}
    wanted.update(database=str(controller.reports / "m.sqlite"), directory=str(controller.reports))  # type: ignore[call-overload]  # paths
    controller.reports.mkdir()

    @controller.settings
    @given(near(INFO))
    def property_of(info: t.Any) -> None:
        controller.watch(lambda: controller.act(jemalloc_info, {"jemalloc_info": info.value}))
        result = controller.act(jemalloc_info, {"jemalloc_info": info.value})
        controller.watch(lambda: jemalloc_report.report({"web1": registered.plain(result)}, wanted, False))
        reporting.read("web1", registered.plain(info.value))

    property_of()


def dumped(value: t.Any) -> str:
    """Return a value as JSON; one that is too deep for that as nested lists."""
    try:
        return json.dumps(value, ensure_ascii=False, skipkeys=True, default=str)
    except RecursionError:
        return "[" * 100_000


def told(parse: t.Callable[[t.Any], t.Any], value: t.Any) -> t.Any:
    """Return what a parser makes of something, or its sentence."""
    try:
        return parse(value)
    except JemallocError as error:
        return str(error).splitlines() == [answers.line(str(error))] or pytest.fail(f"{error!r} is no sentence")
