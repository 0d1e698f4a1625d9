# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation site in a browser: every page, every link, without a network, and nothing of the tree left out."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urldefrag, urlsplit

import pytest
import yaml

from tests.browser.chromium import DESKTOP, PHONE, Browser
from tests.checkout import ROOT
from tests.docs.conftest import Page

SPECS = yaml.safe_load((ROOT / "roles/jemalloc/meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]

#: One of each kind: pictures, tables, quoted sentences, and what is generated.
PAGES = ("index", "how-it-works", "comparison", "troubleshooting", "reference/jemalloc_module")


def test_no_page_asks_the_network_for_anything(pages: dict[str, Page], site: Path) -> None:
    inside = (site.as_uri(), "data:", "blob:", "chrome:")  # the last is the browser's own first page
    outside = [
        f"{page}: {url}" for page, found in pages.items() for url in found.requests if not url.startswith(inside)
    ]
    assert outside == []
    assert all(page in found.requests for page, found in pages.items())


def test_no_page_writes_to_the_console(pages: dict[str, Page]) -> None:
    assert [f"{page}: {found.console}" for page, found in pages.items() if found.console] == []


def dead(link: str, pages: dict[str, Page]) -> str:
    """Return why a link leads nowhere, nothing when it leads somewhere."""
    address, anchor = urldefrag(link)
    parts = urlsplit(address)
    if parts.scheme != "file":
        # no server is asked: an address has to be whole, and safe on the way
        whole = parts.scheme == "https" and "." in (parts.hostname or "") and "@" not in parts.netloc
        return "" if whole and " " not in link else "no https:// address of a host"
    if address not in pages:
        return "" if not anchor and Path(parts.path).is_file() else "no such file"
    return "" if anchor in {"", *pages[address].ids} else "no such place in that page"


def test_no_link_is_dead(pages: dict[str, Page]) -> None:
    found = {
        f"{page}: {link}: {dead(link, pages)}" for page in pages for link in pages[page].links if dead(link, pages)
    }
    assert sorted(found) == []


def page_of(pages: dict[str, Page], site: Path, name: str) -> Page:
    """Return the page of that name, to which the first page leads."""
    address = (site / name).as_uri()
    assert address in [urldefrag(link).url for link in pages[(site / "index.html").as_uri()].links]
    return pages[address]


def test_every_page_is_in_the_navigation(pages: dict[str, Page], site: Path) -> None:
    for path in site.rglob("*.html"):
        if path.name not in ("index.html", "search.html"):
            page_of(pages, site, str(path.relative_to(site)))


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "plugins/modules").glob("*.py"))])
def test_every_module_has_its_page(pages: dict[str, Page], site: Path, name: str) -> None:
    page = page_of(pages, site, f"reference/{name}_module.html")
    source = (ROOT / f"plugins/modules/{name}.py").read_text(encoding="utf-8")
    options = yaml.safe_load(source.split('DOCUMENTATION = r"""')[1].split('"""')[0])["options"]
    assert {f"parameter-{option}" for option in options} <= page.ids
    assert f"preload.jemalloc.{name}" in pages[(site / "contents.html").as_uri()].text


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "plugins/filter").glob("*.py"))])
def test_every_filter_has_its_page(pages: dict[str, Page], site: Path, name: str) -> None:
    assert page_of(pages, site, f"reference/{name}_filter.html").ids
    assert f"preload.jemalloc.{name}" in pages[(site / "contents.html").as_uri()].text


@pytest.mark.parametrize("entry", SPECS)
def test_every_variable_is_on_the_page_of_the_role(pages: dict[str, Page], site: Path, entry: str) -> None:
    page = page_of(pages, site, "reference/jemalloc_role.html")
    assert f"ansible-collections-preload-jemalloc-jemalloc-role-entrypoint-{entry}" in page.ids
    assert {f"parameter-{entry}--{option}" for option in SPECS[entry]["options"]} <= page.ids


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "playbooks").glob("*.yml"))])
def test_every_playbook_is_in_the_contents(pages: dict[str, Page], site: Path, name: str) -> None:
    assert f"playbook preload.jemalloc.{name}" in " ".join(pages[(site / "contents.html").as_uri()].text.split())


def test_names_are_links_to_the_reference(pages: dict[str, Page], site: Path) -> None:
    links = pages[(site / "contents.html").as_uri()].links
    reference = (site / "reference").as_uri()
    assert f"{reference}/jemalloc_info_module.html#ansible-collections-preload-jemalloc-jemalloc-info-module" in links
    assert f"{reference}/jemalloc_role.html#ansible-collections-preload-jemalloc-jemalloc-role" in links
    anchor = "ansible-collections-preload-jemalloc-jemalloc-role-parameter-main-jemalloc-services"
    assert f"{reference}/jemalloc_role.html#{anchor}" in links


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_no_page_is_wider_than_the_screen(browser: Browser, site: Path, name: str, size: tuple[int, int]) -> None:
    browser.open(site / f"{name}.html", size=size)
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    wide = "return [...document.querySelectorAll('.table-wrapper')].filter((one) => one.scrollWidth > one.clientWidth)"
    assert size == PHONE or browser.run(f"{wide}.length") == 0


def test_pictures_are_shown(browser: Browser, site: Path) -> None:
    for name in ("index", "how-it-works", "fleet-guide", "fleet", "report"):
        browser.open(site / f"{name}.html")
        sizes = browser.run("return [...document.querySelectorAll('article img')].map((img) => img.naturalWidth)")
        assert sizes
        assert min(sizes) > 100


def test_the_search_finds(browser: Browser, site: Path) -> None:
    browser.open(site / "search.html")
    browser.driver.get(f"{(site / 'search.html').as_uri()}?q=narenas")
    browser.until(lambda: "Tuning" in browser.texts("#search-results li a"))
    assert browser.console() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_texts_can_be_read(browser: Browser, site: Path, name: str, scheme: str) -> None:
    browser.open(site / f"{name}.html", scheme)
    assert [one for one in browser.violations() if one.startswith("color-contrast")] == []
