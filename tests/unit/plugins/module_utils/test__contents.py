# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the files of scopes say: values, and our part of files that others write too."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.preload.jemalloc.plugins.module_utils import _contents as contents
from ansible_collections.preload.jemalloc.plugins.module_utils import _environment as environment
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

PREFIX = "/opt/jemalloc"
OURS = "/opt/jemalloc/current/lib/libjemalloc.so"
TEMPLATE = "LD_PRELOAD=@LD_PRELOAD@\n"
PART = f"# BEGIN preload.jemalloc\nLD_PRELOAD={OURS}\n# END preload.jemalloc\n"


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
    assert contents.in_front(PREFIX, foreign) == expected


ENTRY = st.one_of(
    st.sampled_from([OURS, "/opt/jemalloc/5.1.0/lib/libjemalloc.so", "/opt/jemalloc2/x.so", ""]),
    st.text(st.characters(blacklist_categories=["Z", "C"], blacklist_characters=":"), max_size=8),
)


@given(st.lists(st.tuples(ENTRY, st.sampled_from([":", " ", "::", " : "]))))
def test_in_front_keeps_the_others_in_their_order(entries: t.List[t.Tuple[str, str]]) -> None:
    value = contents.in_front(PREFIX, "".join(f"{entry}{separator}" for entry, separator in entries))
    foreign = [entry for entry, _separator in entries if entry and not entry.startswith("/opt/jemalloc/")]
    assert value.split(":") == [OURS, *foreign]
    assert contents.in_front(PREFIX, value) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [("/a.so:%h/b", "/a.so:%h/b"), ('/a"b', r"/a\"b"), (r"/a\b", r"/a\\b"), (r"\"", r"\\\""), ("a\tb\n", r"a\tb\n")],
)
def test_an_assignment_is_undone_by_the_reader(value: str, expected: str) -> None:
    line = contents.assignment("LD_PRELOAD", value)
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
    assert contents.environment_with(before, TEMPLATE, PREFIX) == after
    assert contents.environment_with(after, TEMPLATE, PREFIX) == after


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
    assert contents.environment_without(before) == after


@given(st.one_of(st.none(), st.binary(), st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_environment_comes_back_byte_for_byte(data: t.Optional[bytes]) -> None:
    text = None if data is None else data.decode("utf-8", "surrogateescape")
    whole = contents.environment_with(text, TEMPLATE, PREFIX)
    assert contents.environment_without(whole) == text
    assert contents.environment_with(whole, TEMPLATE, PREFIX) == whole
    assert whole.startswith(text or "")


@given(st.lists(st.sampled_from(["A=1", "LD_PRELOAD=/a.so", "# no", "", "\r"])), st.sampled_from(["", "\n"]))
def test_what_others_write_behind_our_part_stays(lines: t.List[str], end: str) -> None:
    whole = contents.environment_with("A=1", TEMPLATE, PREFIX)
    added = "\n".join(lines) + end
    expected = "A=1" if not added else f"A=1\n{added}"
    assert contents.environment_without(whole + added) == expected


@given(st.one_of(st.none(), st.binary(), st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_the_list_of_the_dynamic_linker_comes_back_byte_for_byte(data: t.Optional[bytes]) -> None:
    text = None if data is None else data.decode("utf-8", "surrogateescape")
    assume(sum("#" in line for line in (text or "").split("\n")) < 2)
    whole = contents.preloaded_with(text, PREFIX)
    assert whole.startswith(f"{OURS}::")
    assert whole.endswith(text or "")
    assert contents.preloaded_without(whole) == text
    assert contents.preloaded_with(whole, PREFIX) == whole


@given(st.lists(st.sampled_from(["/a.so", "/b.so:/c.so", "# no", "", "\r"])), st.sampled_from(["", "\n"]))
def test_what_others_add_to_the_list_stays(lines: t.List[str], end: str) -> None:
    added = "\n".join(lines) + end
    whole = contents.preloaded_with("/first.so\n", PREFIX) + added
    assert contents.preloaded_without(whole) == f"/first.so\n{added}"
    assert contents.preloaded_without(f"{added}\n{contents.preloaded_with(None, PREFIX)}") == f"{added}\n"


@pytest.mark.parametrize("comments", ["# one\n# two\n", "/a.so # one\n/b.so\n#two"])
def test_a_list_in_which_glibc_would_misread_a_comment(comments: str) -> None:
    assert contents.preloaded_with("# one # and\n/a.so\n", PREFIX).endswith("::\n# one # and\n/a.so\n")
    with pytest.raises(JemallocError) as caught:
        contents.preloaded_with(comments, PREFIX)
    assert str(caught.value) == (
        "via: /etc/ld.so.preload has more than one comment, and glibc takes later ones for names of libraries when a "
        "line is added; leave one of them."
    )


OLD_PART = PART.replace("current", "5.1.0")
LINE = f"{OURS}::\n"


@pytest.mark.parametrize(
    ("now", "before", "restored"),
    [
        (f"A=1\n{PART}", "A=1\n", "A=1\n"),
        (f"A=1\n{PART}B=2\n", "A=1\n", "A=1\nB=2\n"),
        (f"A=1\n{PART}", f"A=1\n{OLD_PART}", f"A=1\n{OLD_PART}"),
        (f"A=1\nB=2\n{PART}", f"A=1\n{OLD_PART}", f"A=1\nB=2\n{OLD_PART}"),
        (f"A=1\n{PART}", OLD_PART, f"A=1\n{OLD_PART}"),
        ("", OLD_PART, OLD_PART),
        (None, None, None),
    ],
)
def test_only_our_part_is_restored(now: t.Optional[str], before: t.Optional[str], restored: t.Optional[str]) -> None:
    assert contents.environment_restored(now, before) == restored


@pytest.mark.parametrize(
    ("now", "before", "restored"),
    [
        (f"{LINE}/a.so\n", "/a.so\n", "/a.so\n"),
        (f"{LINE}/b.so\n", "/a.so\n", "/b.so\n"),
        (f"{LINE}/a.so\n", f"{LINE.replace('opt', 'srv')}/a.so\n", f"{LINE.replace('opt', 'srv')}/a.so\n"),
        (f"{LINE}/b.so\n", f"{LINE.replace('opt', 'srv')}/a.so\n", f"{LINE.replace('opt', 'srv')}/b.so\n"),
        (None, f"{LINE}/a.so\n", f"{LINE[:-1]}:\n"),
        ("/a.so\n", LINE, f"{LINE}/a.so\n"),
        ("", LINE, LINE),
    ],
)
def test_only_our_line_is_restored(now: t.Optional[str], before: t.Optional[str], restored: t.Optional[str]) -> None:
    assert contents.preloaded_restored(now, before) == restored


def test_our_part_and_our_line() -> None:
    assert contents.part(f"A=1\n{PART}B=2\n") == PART
    assert contents.part(PART.replace("# END", "B=2\n# END")) == contents.part(PART.partition("\n# END")[0]) == PART
    assert contents.line(f"/a.so\n{LINE}/b.so\n") == LINE
    assert contents.part(None) is contents.line(None) is contents.part("A=1\n") is contents.line("/a.so\n") is None
