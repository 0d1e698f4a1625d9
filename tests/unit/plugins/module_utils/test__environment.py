# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unit tests of the files that give processes their environment; tests/faults asks systemd and PAM themselves."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.preload.jemalloc.plugins.module_utils import _environment as environment

SETTINGS: t.List[t.Tuple[t.List[str], str]] = [
    ([], ""),
    (["[Service]\nEnvironment=LD_PRELOAD=/a.so\n"], "/a.so"),
    (['[Service]\nEnvironment="LD_PRELOAD=/a.so /b.so" X=1\n'], "/a.so /b.so"),
    (["[Service]\nEnvironment=X=1 'LD_PRELOAD=/a.so'\n"], "/a.so"),
    (["[Service]\n  Environment = LD_PRELOAD=/a.so  \n"], "/a.so"),
    (["[Service]\nEnvironment=X=1 \\\n  LD_PRELOAD=/a.so\n"], "/a.so"),
    (["[Service]\r\nEnvironment=LD_PRELOAD=/a.so\r\n"], "/a.so"),
    (["[Service]\nEnvironment=LD_PRELOAD=%h/a.so\n"], "%h/a.so"),
    (["[Service]\nEnvironment=LD_PRELOAD=/a.so LD_PRELOAD=/b.so\n"], "/b.so"),
    (["[Service]\nEnvironment=LD_PRELOAD=/a.so\n", "[Service]\nEnvironment=LD_PRELOAD=/b.so\n"], "/b.so"),
    (["[Service]\nEnvironment=LD_PRELOAD=/a.so\n", "[Service]\nEnvironment=\n"], ""),
    (["[Service]\nEnvironment=LD_PRELOAD=/a.so\nEnvironment=\nEnvironment=X=1\n"], ""),
    (["[Service]\nEnvironment=LD_PRELOAD=/a.so\nEnvironment=LD_PRELOAD=\n"], ""),
    (["[Service]\nEnvironment=XLD_PRELOAD=/a.so LD_PRELOADX=/b.so LD_PRELOAD\n"], ""),
    (["[Service]\n#Environment=LD_PRELOAD=/a.so\n;Environment=LD_PRELOAD=/b.so\n"], ""),
    (["[Service]\nPassEnvironment=LD_PRELOAD=/a.so\nenvironment=LD_PRELOAD=/b.so\n"], ""),
    (["Environment=LD_PRELOAD=/a.so\n[Unit]\nEnvironment=LD_PRELOAD=/b.so\n"], ""),
    (["[Service]\n[Unit]\n[Service]\nEnvironment=LD_PRELOAD=/a.so\n[Install]\n"], "/a.so"),
    (["[Service]\nEnvironment=LD_PRELOAD=/a.so", "Environment=LD_PRELOAD=/b.so\n"], "/a.so"),
    (['[Service]\nEnvironment="LD_PRELOAD=/unbalanced\n'], ""),
    (["[Service]\nEnvironment\n"], ""),
    (["[Service]\nEnvironment=LD_PRELOAD=/a.so 'X=unbalanced\n"], "/a.so"),
    (["[Service]\nEnvironment=LD_PRELOAD=/a.so \\q LD_PRELOAD=/b.so\n"], "/a.so"),
    (["[Service]\nEnvironment=LD_PRELOAD=/\\x61\\142\\u0063\\U00000064.so\n"], "/abcd.so"),
    (["[Service]\nEnvironment=LD_PRELOAD=/a\\sb'\"'\\'\"c\"\n"], "/a b\"'c"),
    (["[Service]\nEnvironment=LD_PRELOAD=/a.so LD_PRELOAD=/\\ab.so LD_PRELOAD=\\U00110000\n"], "/a.so"),
    (["[Service]\nEnvironment=LD_PRELOAD=/a.so\\\n# amid\n  ;it\n  X=1\n"], "/a.so"),
    (["[Service]\nEnvironment=X=1 \\\n\nEnvironment=LD_PRELOAD=/a.so\n"], "/a.so"),
    (["[Service]\nEnvironment=X=\\\\\nEnvironment=LD_PRELOAD=/a.so\n"], "/a.so"),
    (["[Service]\nEnvironment=X=1 \\\nEnvironment=LD_PRELOAD=/a.so\n"], ""),
    (["[Service]\rEnvironment=LD_PRELOAD=/a.so\r"], "/a.so"),
    (["[Service]\n\fEnvironment=LD_PRELOAD=/a.so\nEnvironment=\x0bLD_PRELOAD=/b.so\n"], ""),
    (["[Service]\nEnvironment=X=\u2028LD_PRELOAD=/a.so\n"], ""),
    (["[Service]\nEnvironment=LD_PRELOAD=/a.so\n[Broken\nEnvironment=LD_PRELOAD=/b.so\n"], "/a.so"),
    (["\ufeff[Service]\nEnvironment=LD_PRELOAD=/a.so\n"], "/a.so"),
    (["[Service]\nEnvironment=LD_PRELOAD=/a.so \\"], "/a.so"),
    (['[Service]\nEnvironment=LD_PRELOAD=/a.so\nEnvironment=""\n'], "/a.so"),
]


@pytest.mark.parametrize(("texts", "expected"), SETTINGS)
def test_setting(texts: t.List[str], expected: str) -> None:
    assert environment.setting(texts, "Service", "Environment", "LD_PRELOAD") == expected


#: What one line of a unit file says, as text, and what it does to the variables; None forgets them all.
LINES = st.one_of(
    st.lists(
        st.tuples(st.sampled_from(["LD_PRELOAD", "OTHER"]), st.sampled_from(["", "/a", "/b:%h/c", "/d e", "x=y"])),
        min_size=1,
        max_size=3,
    ),
    st.none(),
)


@given(st.lists(st.lists(LINES, max_size=4), max_size=3))
def test_setting_is_what_a_model_says(files: t.List[t.List[t.Optional[t.List[t.Tuple[str, str]]]]]) -> None:
    texts = []
    model: t.Dict[str, str] = {}
    for lines in files:
        text = "[Unit]\nEnvironment=LD_PRELOAD=/no\n[Service]\n"
        for line in lines:
            if line is None:
                model.clear()
            model.update(line or [])
            text += f"Environment={' '.join(f'{chr(34)}{name}={value}{chr(34)}' for name, value in line or [])}\n"
        texts.append(f"{text}# the end\n")
    for variable in ("LD_PRELOAD", "OTHER"):
        assert environment.setting(texts, "Service", "Environment", variable) == model.get(variable, "")


@given(st.lists(st.text(alphabet="ab \t\\\"'#=", max_size=8)))
def test_words_of_what_was_quoted(given_words: t.List[str]) -> None:
    quoted = ['"{}"'.format(word.replace("\\", "\\\\").replace('"', '\\"')) for word in given_words]
    assert environment.words(" \t".join(quoted)) == given_words


@given(st.text(alphabet="LDPREOA_=/a.so \n\r\t\\\"'#;:%[]\f\0"))
def test_any_text_is_read(text: str) -> None:
    for texts in ([text], [f"[Service]\n{text}"], [f"[Service]\nEnvironment={text}"]):
        assert isinstance(environment.setting(texts, "Service", "Environment", "LD_PRELOAD"), str)
    assert isinstance(environment.file_value(text, "LD_PRELOAD") or "", str)
    assert isinstance(environment.login_value(text, "LD_PRELOAD"), str)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("LD_PRELOAD=/a.so\n", "/a.so"),
        ("LD_PRELOAD=/a.so\nLD_PRELOAD=/b.so", "/b.so"),
        ("LD_PRELOAD=/a.so\nLD_PRELOAD=\n", ""),
        ("export LD_PRELOAD=/a.so\n", None),
        ("  LD_PRELOAD = /a.so  \r\n", "/a.so"),
        ('LD_PRELOAD="/a.so\n/b.so"\n', "/a.so\n/b.so"),
        ("LD_PRELOAD='/a.so' \"/b\\\"\\c.so\"/d'e'\n", "/a.so/b\"\\c.so/d'e'"),
        ("LD_PRELOAD=/a.so \\\n /b\\.so\n", "/a.so  /b.so"),
        ("LD_PRELOAD='/a.so", "/a.so"),
        ('LD_PRELOAD="/a.so\\', "/a.so"),
        ("LD_PRELOAD=/a.so\\", "/a.so"),
        ("#LD_PRELOAD=/a.so\n;LD_PRELOAD=/a.so\nXLD_PRELOAD=/b.so\nLD_PRELOAD\n", None),
        ("A='\nLD_PRELOAD=/a.so\n'\n", None),
        ("PATH=/bin\nLD_PRELOAD=/a.so\nLANG=C\n", "/a.so"),
    ],
)
def test_file_value(text: str, expected: t.Optional[str]) -> None:
    assert environment.file_value(text, "LD_PRELOAD") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("LD_PRELOAD=/a.so\n", "/a.so"),
        ("LD_PRELOAD=/a.so\nLD_PRELOAD=/b.so", "/b.so"),
        ("LD_PRELOAD=/a.so\nLD_PRELOAD=\n", ""),
        ("export LD_PRELOAD=/a.so\n", "/a.so"),
        ("\t LD_PRELOAD=/a.so#/b.so\n", "/a.so"),
        ("LD_PRELOAD='/a.so /b.so'\n", "/a.so /b.so"),
        ('LD_PRELOAD="/a"b.so"\n', '/a"b.so'),
        ("LD_PRELOAD =/a.so\n#LD_PRELOAD=/b.so\nLD_PRELOAD\n", ""),
    ],
)
def test_login_value(text: str, expected: str) -> None:
    assert environment.login_value(text, "LD_PRELOAD") == expected
