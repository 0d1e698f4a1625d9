# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report in a browser, as it opens from the disk: search, sorting, filters, curves, accessibility, no network."""

from __future__ import annotations

import base64
import typing as t
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from ansible_collections.preload.jemalloc.plugins.plugin_utils import _page as paging
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _report as reporting
from ansible_collections.preload.jemalloc.plugins.plugin_utils._measurements import Unit
from tests import fleets
from tests.browser.chromium import DESKTOP, PHONE, Browser
from tests.workload import workloads

HOSTILE = "<script>document.title='taken'</script><img src=x onerror=alert(1)>"

LARGEST = 5_000_000

VIEWS = [("light", DESKTOP), ("dark", DESKTOP), ("light", PHONE), ("dark", PHONE)]


@pytest.fixture(scope="module")
def lab() -> reporting.Host:
    """A host with the two workloads, really run with and without jemalloc."""
    rows, known = [], {}
    for kind in workloads.KINDS:
        unit = Unit("lab.example.org", "system", "", f"{kind}.service")
        known[unit] = workloads.points(*workloads.sides(kind))
        rows.append(reporting.Row(unit, known[unit][-1], "5.3.0", workloads.MALLOC_CONF, (), ""))
    host = reporting.Host("lab.example.org", time=workloads.START, current="5.3.0", rows=tuple(rows))
    return reporting.with_histories([host], known)[0]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, lab: reporting.Host) -> Path:
    """The report of a fleet with that host, one that was not read, and one that wants to do harm."""
    answer = fleets.answer(
        fleets.START,
        [fleets.unit(HOSTILE, drift=[HOSTILE], allocators={HOSTILE: 1}, candidate={"why": HOSTILE})],
        unreadable={"processes": 3, "reason": HOSTILE},
    )
    hosts = [*fleets.fleet(10, 20, 16), lab, reporting.read(HOSTILE, answer), reporting.read("lost", {"msg": HOSTILE})]
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(paging.page(hosts), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Browser, page: Path) -> t.Iterator[Browser]:
    """The browser with the report; whatever is done there, nothing is asked of the network and nothing fails."""
    browser.console()
    browser.requests()
    browser.open(page)
    yield browser
    assert browser.console() == []
    assert set(browser.requests()) <= {page.as_uri(), "data:,"}


def rows(browser: Browser) -> list[str]:
    """Return the names of the units on the page."""
    return browser.texts("#units-table .open")


def search(browser: Browser, text: str) -> None:
    """Type into the field of the search, and wait until what is found is shown, in place of all."""
    browser.find("#query").send_keys(f"{Keys.CONTROL}a{Keys.NULL}", Keys.BACKSPACE)
    browser.until(lambda: _is_all(browser.find("#units-count").text))
    everything = browser.find("#units-count").text
    browser.find("#query").send_keys(text)
    browser.until(lambda: browser.find("#units-count").text != everything)


def _is_all(count: str) -> bool:
    found, _of, whole, _units = count.split()
    return found == whole


def choose(browser: Browser, name: str) -> None:
    """Choose a filter by the keyboard."""
    browser.find(f"#filter option[value={name}]").click()


def column(browser: Browser, number: int) -> list[str]:
    """Return what a column of the units shows."""
    return browser.texts(f"#units-table tbody td:nth-child({number})")


def test_what_it_says_first(opened: Browser) -> None:
    assert opened.find("h1").text.startswith("jemalloc saves ")
    assert "compared at equal uptimes" in opened.find(".detail").text
    assert opened.texts("#tiles .tile")[:2] == ["13\nhosts, 1 not read", "203\nunits"]
    assert opened.find("#units-count").text == "203 of 203 units"
    assert len(rows(opened)) == 50


def test_search(opened: Browser) -> None:
    search(opened, "WEB0003 puma")
    assert (rows(opened), opened.find("#units-count").text) == (["puma.service"], "1 of 203 units")
    search(opened, "nobody has this")
    assert opened.texts("#units-table tbody td") == ["No unit is like that."]


def test_sorting(opened: Browser) -> None:
    def header(number: int) -> t.Any:
        return opened.find(f"#units-table th:nth-child({number})")

    assert (header(7).text, header(7).get_attribute("aria-sort")) == ("Saved", "descending")
    header(2).find_element("css selector", "button").send_keys(Keys.ENTER)
    assert [header(number).get_attribute("aria-sort") for number in (2, 7)] == ["ascending", "none"]
    assert column(opened, 2)[-1] == "web0003.example.org"
    header(2).find_element("css selector", "button").click()
    assert header(2).get_attribute("aria-sort") == "descending"
    assert column(opened, 2)[0] == "web0010.example.org"
    header(4).find_element("css selector", "button").click()
    sizes = [float(text.split()[0]) * (1024 if "GiB" in text else 1) for text in column(opened, 4)]
    assert sizes == sorted(sizes, reverse=True)


def test_filters(opened: Browser) -> None:
    for name, text in (("saves", "saves"), ("costs", "costs"), ("candidates", "candidate"), ("same", "no difference")):
        choose(opened, name)
        found = column(opened, 8)
        assert found
        assert all(text in one for one in found)
    tile = next(element for element in opened.driver.find_elements("css selector", ".tile") if "drift" in element.text)
    tile.click()
    assert opened.find("#filter").get_attribute("value") == "drift"
    assert all("drift" in one for one in column(opened, 8))


def test_pages(opened: Browser) -> None:
    first = column(opened, 2)
    opened.find("#units-pages button:last-child").click()
    assert opened.find("#units-pages span").text == "Page 2 of 5"
    assert column(opened, 2) != first
    opened.find("#units-pages button").click()
    assert column(opened, 2) == first


def painted(browser: Browser) -> list[int]:
    """Return how many pixels of each chart are painted."""
    return t.cast(
        "list[int]",
        browser.run(
            """return [...document.querySelectorAll("dialog canvas")].map((canvas) => {
              const copy = document.createElement("canvas");
              [copy.width, copy.height] = [canvas.width, canvas.height];
              const context = copy.getContext("2d", { willReadFrequently: true });
              context.drawImage(canvas, 0, 0);
              const { data } = context.getImageData(0, 0, copy.width, copy.height);
              return data.filter((value, index) => index % 4 === 3 && value > 0).length;
            });"""
        ),
    )


def test_curves(opened: Browser) -> None:
    search(opened, "web0003 puma")
    opened.find("#units-table .open").send_keys(Keys.ENTER)
    assert opened.find("#detail-title").text == "puma.service"
    assert "At equal uptimes, from 25 h to 7 d, it takes" in opened.find(".reason").text
    assert opened.texts(".legend span") == ["Without jemalloc", "With jemalloc"]
    opened.until(lambda: len(painted(opened)) == 2)
    assert min(painted(opened)) > 1000
    opened.find("summary").click()
    assert len(opened.texts("dialog tbody tr")) == 16
    opened.find("dialog").send_keys(Keys.ESCAPE)
    assert not opened.find("dialog").is_displayed()


def test_what_was_really_measured(opened: Browser, lab: reporting.Host) -> None:
    mixed, steady = (row.comparison for row in lab.rows)
    for name, compared in (("mixed", mixed), ("steady", steady)):
        search(opened, f"lab.example.org {name}")
        opened.find("#units-table .open").click()
        assert str(compared.reason) in opened.find(".reason").text
        assert opened.texts(".legend span") == ["Without jemalloc", "With jemalloc"]
        shown = opened.run("return drawn[0].data.map((column) => [...column].filter((value) => value !== null).length)")
        assert shown == [24, 12, 12]
        opened.find(".close").click()
    assert mixed.verdict == "saves"
    assert opened.find("#units-table .chip").text == "no difference"
    search(opened, "lab.example.org mixed")
    assert opened.find("#units-table .chip").text == f"saves {mixed.saving * 100:.0f} %"


def test_hosts(opened: Browser) -> None:
    opened.find("#tab-units").send_keys(Keys.ARROW_RIGHT)
    assert opened.find("#tab-hosts").get_attribute("aria-selected") == "true"
    assert opened.find("#hosts-count").text == "13 hosts"
    assert "not read" in opened.find("#hosts-table").text
    opened.run("[...document.querySelectorAll('#hosts-table .open')].find((one) => one.innerText[3] === '0').click()")
    assert (opened.find("#query").get_attribute("value"), len(rows(opened))) == ("web0001.example.org", 20)


def test_what_hosts_say_is_text(opened: Browser) -> None:
    search(opened, "<script>")
    opened.find("#units-table .open").click()
    assert opened.find("#detail-title").text == HOSTILE
    assert HOSTILE in opened.find("dialog ul").text
    opened.find(".close").click()
    opened.find("#tab-hosts").click()
    assert HOSTILE in opened.find("#hosts-table").text
    assert opened.driver.title.startswith("jemalloc: jemalloc saves")
    assert opened.run("return document.querySelectorAll('img, body script').length") == 3


def test_the_policy_holds(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.console()
    browser.run(
        """const script = document.createElement("script");
        script.textContent = "document.title = 'taken'";
        document.body.append(script);
        const image = document.createElement("img");
        image.src = "http://127.0.0.1:9/";
        document.body.append(image);"""
    )
    assert browser.driver.title != "taken"
    said: list[str] = []

    def both_were_said() -> bool:
        said.extend(browser.console())
        return len(said) >= 2

    browser.until(both_were_said)
    assert all("Content Security Policy" in one for one in said)


def test_the_scheme_can_be_changed(opened: Browser) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = opened.run(ground)
    opened.find("#theme").click()
    assert (opened.run(ground) != light, opened.find("#theme").text) == (True, "Light")
    opened.find("#theme").click()
    assert opened.run(ground) == light


@pytest.mark.parametrize(("scheme", "size"), VIEWS)
def test_accessibility(browser: Browser, page: Path, scheme: str, size: tuple[int, int]) -> None:
    browser.open(page, scheme, size)
    # nothing is wider than the screen
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    if (scheme, size) != VIEWS[0]:
        search(browser, "web0003")  # fewer of the same rows
    assert browser.violations() == []
    browser.find("#units-table .open").click()
    browser.find("summary").click()
    assert browser.violations() == []
    assert browser.run("const d = document.querySelector('dialog'); return d.scrollWidth <= d.clientWidth")
    browser.find(".close").click()
    browser.find("#tab-hosts").click()
    assert browser.violations() == []


def test_printing(opened: Browser) -> None:
    opened.command("Emulation.setEmulatedMedia", media="print")
    assert not opened.find("#theme").is_displayed()
    assert opened.run("return getComputedStyle(document.documentElement).colorScheme") == "light"
    pdf = base64.b64decode(opened.driver.print_page())
    assert pdf.startswith(b"%PDF")
    # all of them, not only those of a page on the screen
    assert pdf.count(b"/Type /Page\n") >= 5
    assert len(rows(opened)) == 50
    opened.command("Emulation.setEmulatedMedia", media="")


def test_the_first_run(browser: Browser, tmp_path: Path) -> None:
    small = fleets.unit("a.service", rss=1 << 20, container="0123456789ab", scope="container")
    host = reporting.read("web1", fleets.answer(fleets.START, [small, fleets.unit("b.service")]))
    path = tmp_path / "report.html"
    known = reporting.points([host])
    hosts = reporting.with_histories([host], {unit: [point] for unit, point in known.items()})
    path.write_text(paging.page(hosts), encoding="utf-8")
    browser.open(path)
    assert browser.texts("#tiles .tile")[0] == "1\nhost"
    # the largest first, as there is no saving yet
    assert column(browser, 1) == ["b.service", "a.service\ncontainer 0123456789ab"]
    browser.find("#units-table .open").click()
    assert browser.texts(".charts") == ["One measurement is no curve; each run of the report adds one."]
    assert browser.console() == []


def test_an_empty_fleet(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(paging.page([]), encoding="utf-8")
    browser.open(path)
    assert browser.find("h1").text == "Nothing was measured with jemalloc yet."
    assert browser.texts("#units-table tbody td") == ["No unit is like that."]
    assert browser.console() == []


def test_a_large_fleet_stays_small(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(paging.page(fleets.fleet(1000, 20, 30)), encoding="utf-8")
    assert path.stat().st_size <= LARGEST
    browser.open(path)
    assert browser.find("#units-count").text == "20,000 of 20,000 units"
    search(browser, "web0777 sidekiq")
    assert rows(browser) == ["sidekiq@1.service"]
    assert browser.console() == []
