# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the system as sentences, and what messages show of URLs."""

from __future__ import annotations

import os
import types
import typing as t

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _errors as errors

SPACE = "make room there"
FULL, DENIED = (28, "No space left on device"), (13, "Permission denied")


@pytest.mark.parametrize(
    ("error", "user", "so_far", "sentence"),
    [
        (OSError(*FULL), 0, "", f"this host: No space left on device; {SPACE}."),
        (OSError(*FULL, "/x"), 1000, "all is as before", f"/x: No space left on device; all is as before; {SPACE}."),
        (OSError(*FULL, "/x", None, "/y"), 0, "", f"/y: No space left on device; {SPACE}."),
        (OSError(*DENIED, "/x"), 0, "all is as before", "/x: Permission denied; all is as before."),
        (OSError(*DENIED, "/x"), 1000, "all is as before", "/x: Permission denied; run this as root (become: true)."),
        (OSError(*DENIED), 1000, "", "this host: Permission denied; run this as root (become: true)."),
    ],
)
def test_of_system(monkeypatch: pytest.MonkeyPatch, error: OSError, user: int, so_far: str, sentence: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert errors.of_system(error, "this host", so_far) == sentence


SHOWN = [
    ("http://u:s3cret@h/x", "http://h/x", {"u:s3cret"}),
    ("fetch 'https://u:s3@cret@h:1/x@y' failed", "fetch 'https://h:1/x@y' failed", {"u:s3@cret"}),
    ("http://token@h", "http://h", {"token"}),
    ("http://u:@h http://u:s3/cret@h/x", "http://h http://h/x", {"u:", "u:s3/cret"}),
    ("http://h:80/x@y", "http://h:80/x@y", set()),
    ("http://h:80 http://h/x@y foo@bar.service", "http://h:80 http://h/x@y foo@bar.service", set()),
    ("http://@h", "http://h", set()),
]


@pytest.mark.parametrize(("text", "expected", "_hidden"), SHOWN)
def test_no_password_is_shown(text: str, expected: str, _hidden: t.Set[str]) -> None:
    assert errors.shown(text) == expected
    assert str(errors.JemallocError(text)) == f"{errors.JemallocError(expected)}" == expected


@pytest.mark.parametrize(("text", "_expected", "hidden"), SHOWN)
def test_hide_credentials(text: str, _expected: str, hidden: t.Set[str]) -> None:
    for params in ({"origins": ["/x", text], "bundle": None}, {"bundle": text}, {"latest_url": text}):
        module = types.SimpleNamespace(params=params, no_log_values={"other"})
        errors.hide_credentials(t.cast(t.Any, module))
        assert module.no_log_values == {"other", *hidden}
