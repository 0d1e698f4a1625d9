# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Chromium without a window that opens pages from the disk and tells what it was asked for over the network."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

_SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)

DESKTOP, PHONE = (1280, 900), (390, 844)


class Browser:
    """A page in Chromium, by what a user does and sees."""

    def __init__(self, profile: Path) -> None:
        """Start Chromium with a new profile."""
        options = webdriver.ChromeOptions()
        for switch in (*_SWITCHES, f"--user-data-dir={profile}"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        options.binary_location = "/usr/bin/chromium"
        self.driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))

    def open(self, path: Path, scheme: str = "light", size: tuple[int, int] = DESKTOP) -> None:
        """Open a file, as it is on a screen of that size in that colour scheme."""
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        width, height = size
        mobile = size == PHONE
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )
        self.driver.get(path.as_uri())

    def command(self, name: str, **parameters: t.Any) -> t.Any:
        """Call Chromium's own protocol."""
        return self.driver.execute_cdp_cmd(name, parameters)

    def run(self, script: str, *arguments: t.Any) -> t.Any:
        """Run a script in the page."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        """Return an element."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """Return what is to be read in elements."""
        script = "return [...document.querySelectorAll(arguments[0])].map((element) => element.innerText.trim())"
        return t.cast("list[str]", self.run(script, selector))

    def until(self, condition: t.Callable[[], t.Any]) -> None:
        """Wait for something to be so; the limit is for a page that hangs."""
        WebDriverWait(self.driver, 30, 0.02).until(lambda _driver: condition())

    def _log(self, kind: str) -> list[dict[str, t.Any]]:
        return t.cast("list[dict[str, t.Any]]", t.cast(t.Any, self.driver).get_log(kind))

    def console(self) -> list[str]:
        """Return what was written to the console since it was asked for last."""
        return [entry["message"] for entry in self._log("browser")]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since this was asked for last."""
        messages = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def violations(self) -> list[str]:
        """Return what axe finds against the rules of accessibility."""
        tool = pytest.importorskip("axe_selenium_python", reason="with today's rules it is for Python 3.12 and newer")
        axe = tool.Axe(self.driver)
        axe.inject()
        found = axe.run()["violations"]
        return [f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]}" for one in found]
