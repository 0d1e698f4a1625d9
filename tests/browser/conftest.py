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
