# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the system as sentences."""

from __future__ import annotations

import os

import pytest

from ansible_collections.preload.jemalloc.plugins.module_utils import _errors as errors

FULL, DENIED = (28, "No space left on device"), (13, "Permission denied")


@pytest.mark.parametrize(
    ("error", "user", "so_far", "sentence"),
    [
        (OSError(*FULL), 0, "", "this host: No space left on device."),
        (OSError(*FULL, "/x"), 1000, "all is as before", "/x: No space left on device; all is as before."),
        (OSError(*FULL, "/x", None, "/y"), 0, "", "/y: No space left on device."),
        (OSError(*DENIED, "/x"), 0, "all is as before", "/x: Permission denied; all is as before."),
        (OSError(*DENIED, "/x"), 1000, "all is as before", "/x: Permission denied; run this as root (become: true)."),
        (OSError(*DENIED), 1000, "", "this host: Permission denied; run this as root (become: true)."),
    ],
)
def test_of_system(monkeypatch: pytest.MonkeyPatch, error: OSError, user: int, so_far: str, sentence: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert errors.of_system(error, "this host", so_far) == sentence
