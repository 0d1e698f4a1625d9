# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Chromium for all tests of a file."""

from __future__ import annotations

import typing as t

import pytest

from tests.browser.chromium import Browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Browser]:
    """Such a browser."""
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.driver.quit()
