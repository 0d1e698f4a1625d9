# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation site as `make docs` makes it, and all of its pages as Chromium shows them."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.browser.chromium import Browser
from tests.browser.conftest import browser
from tests.checkout import ROOT
from tests.conftest import Run

__all__ = ["browser"]

SITE = ROOT / "build/docs/html"

#: What leads away from a page, and what can be led to in it.
_LINKS = "return [...document.querySelectorAll('a[href]')].map((link) => link.href)"
_IDS = "return [...document.querySelectorAll('[id]')].map((element) => element.id)"


@dataclass(frozen=True)
class Page:
    """A page: its text, where it leads to, what can be led to in it, what it asked for, and what the console says."""

    text: str
    links: list[str]
    ids: set[str]
    requests: list[str]
    console: list[str]


@pytest.fixture(scope="session")
def site(run: Run, environment: dict[str, str]) -> Path:
    """The directory of the site, which is made without a warning."""
    # as for whoever calls it: without the virtual environment of the tests in front
    run("make", "docs", PATH=environment["PATH"].partition(":")[2])
    return SITE


@pytest.fixture(scope="module")
def pages(browser: Browser, site: Path) -> dict[str, Page]:
    """All pages of the site, by their addresses."""
    found = {}
    browser.requests()
    for path in sorted(site.rglob("*.html")):
        browser.open(path)
        text, links, ids = browser.texts("body")[0], browser.run(_LINKS), set(browser.run(_IDS))
        found[path.as_uri()] = Page(text, t.cast("list[str]", links), ids, browser.requests(), browser.console())
    return found
