# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers of hosts: what is read, what is refused, and what a terminal gets of the rest."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _answers as answers
from tests.unit import packed

DONE: t.Dict[str, t.Any] = {
    "changed": True,
    "version": "5.3.1",
    "library": "/opt/jemalloc/current/lib/libjemalloc.so",
    "built": "5.3.1",
    "origin": "https://example.com/",
    "packages": ["gcc"],
    "missing": None,
    "scopes": None,
    "installations": ["5.3.0", "5.3.1"],
    "current": "5.3.1",
    "previous": None,
    "diff": {
        "before": {"installations": [], "current": None, "previous": None},
        "after": {"installations": ["5.3.1"], "current": "5.3.1", "previous": None, "installed anew": "5.3.1, as x"},
    },
    "something": object(),
}


def refusal(module: str, answer: t.Any) -> str:
    """Return what is wrong with an answer."""
    with pytest.raises(answers.AnswerError) as caught:
        answers.check("web1", module, answer)
    start, end = f"web1: the answer of its module {module} is refused, ", ". Nothing of it was used. Look for what "
    message = str(caught.value)
    assert message.startswith(start)
    assert end in message
    return message[len(start) :].partition(end)[0]


def test_check() -> None:
    assert answers.check("web1", "jemalloc", DONE) is DONE
    assert answers.check("web1", "jemalloc", {"changed": False}) == {"changed": False}
    assert answers.check("web1", "jemalloc_info", {"units": 1}) == {"units": 1}
    failed = {"failed": True, "msg": "It burns.", "version": "no release", "library": 5}
    assert answers.check("web1", "jemalloc", failed) == failed


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"changed": 1}, "changed"),
        ({"failed": "yes"}, "failed"),
        ({"version": "5.3.1\n"}, "version"),
        ({"library": "relative"}, "library"),
        ({"library": "/a/../b"}, "library"),
        ({"built": 5}, "built"),
        ({"packages": "gcc"}, "packages"),
        ({"installations": ["../.."]}, "installations"),
        ({"current": "\x1b"}, "current"),
        ({"previous": []}, "previous"),
        ({"missing": {}}, "missing.version"),
        ({"missing": {**packed.missing(), "archives": []}}, "missing"),
        ({"diff": []}, "diff"),
        ({"diff": {"before": {}, "after": {}}}, "diff.before.installations"),
        ({"diff": {"before": {**DONE["diff"]["before"], "current": 1}, "after": {}}}, "diff.before.current"),
    ],
)
def test_what_is_refused(change: t.Dict[str, t.Any], wrong: str) -> None:
    assert refusal("jemalloc", {**DONE, **change}) == f"{wrong} is not of the form that it has to have"


@pytest.mark.parametrize(
    ("module", "name", "good", "bad"),
    [
        ("jemalloc_preload", "restarts", [{"name": "a.service", "uid": None, "more": 1}, {"name": "b", "uid": 1}], [1]),
        ("jemalloc_preload", "restarts", [], [{"name": "a b", "uid": None}]),
        ("jemalloc_service", "processes", {"a.service of user 1000": 3}, {"\x1b": 3}),
        ("jemalloc_container", "proved", ["web.service"], "web"),
        ("jemalloc_container", "containers", [{"name": "web", "reason": ""}], [{"name": "web"}]),
    ],
)
def test_what_the_line_for_a_host_is_made_of(module: str, name: str, good: t.Any, bad: t.Any) -> None:
    assert answers.check("web1", module, {name: good}) == {name: good}
    assert refusal(module, {name: bad}) == f"{name} is not of the form that it has to have"


@pytest.mark.parametrize("answer", [None, [], "x", 1])
def test_no_mapping(answer: t.Any) -> None:
    assert refusal("jemalloc", answer) == "it is no mapping"


def test_need_of() -> None:
    need = answers.need_of("web1", "jemalloc", packed.missing(), {"version": "", "options": None})
    assert (need.version, need.here) == ("5.3.1", platform.Here("x86_64", "glibc", "2.36", 12))
    assert need.sources[0] == catalogue.RELEASES["5.3.1"].sha256
    checksum = f"sha256:{'A' * 64}"
    missing = packed.missing(version="9.9.9", checksum=checksum.lower().replace("sha", "sha"), sources=["a" * 64])
    need = answers.need_of("web1", "jemalloc", missing, {"version": "9.9.9", "checksum": checksum})
    assert (need.version, need.sources) == ("9.9.9", ("a" * 64,))
    with pytest.raises(JemallocError, match=r"^version: jemalloc 9\.9\.9 is not a known release; "):
        answers.need_of("web1", "jemalloc", missing, {"version": "9.9.9"})


def test_plain() -> None:
    assert answers.plain("a é 漢 b") == "a é 漢 b"
    assert answers.plain("\x1b[1;31mError\x1b[0m: \x1b[mno\x1b[31") == "Error: no\ufffd[31"
    assert (
        answers.plain("a\n\tb\r\0\x1b[2J\x9b\x7f\u202e\u2028\ud800c")
        == "a\n\tb\ufffd\ufffd\ufffd[2J" + "\ufffd" * 5 + "c"
    )


@dataclasses.dataclass(frozen=True)
class Event:
    """As Ansible has them for warnings and errors."""

    msg: str
    events: t.Optional[t.Tuple[Event, ...]] = None
    type: t.ClassVar[str] = "event"
    kept: int = dataclasses.field(default=1, init=False)


def test_clean() -> None:
    clean: t.Dict[str, t.Any] = {
        "a": [1, None, True, 1.5, "b", {"c": ("d",)}],
        "e": Event("f", (Event("g"),)),
        "h": Event,
    }
    assert answers.clean(clean) == clean
    unchanged = {"a": [1, "b", {"c": ("d",)}]}
    assert answers.clean(unchanged) is unchanged
    found = answers.clean({"\x1b": ["\x1b"], "b": ("\a", 1), "c": Event("\x1b", (Event("\x9b"),)), "d": [["e"]]})
    assert found == {
        "\ufffd": ["\ufffd"],
        "b": ("\ufffd", 1),
        "c": Event("\ufffd", (Event("\ufffd"),)),
        "d": [["e"]],
    }
    assert answers.clean({"\x1b": 1, "\x1c": 2}) == {"\ufffd": 2}


def test_clean_what_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    deep: t.Any = 1
    for _level in range(answers.MOST_LEVELS):
        deep = [deep]
    assert answers.clean(deep) is deep
    for large in ([deep], {"a": deep}, deep):
        if large is deep:
            monkeypatch.setattr(answers, "MOST_VALUES", answers.MOST_LEVELS)
        with pytest.raises(answers.TooLargeError):
            answers.clean(large)
    monkeypatch.setattr(answers, "MOST_CHARACTERS", 3)
    assert answers.clean(["a", "bc"]) == ["a", "bc"]
    with pytest.raises(answers.TooLargeError):
        answers.clean(["a", "bcd"])
