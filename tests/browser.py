"""A headless Chromium, as Debian's packages chromium and chromium-driver have it."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.support.wait import WebDriverWait

SLOW = 120.0  # seconds that a slow machine may need for anything


@contextlib.contextmanager
def chromium(downloads: Path, *flags: str) -> Iterator[Chrome]:
    """A browser that saves what it downloads in `downloads`."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("chromium and chromium-driver are not installed")
    options = ChromeOptions()
    options.binary_location = program
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1000,1100", *flags):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Chrome(options=options, service=ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


def wait(browser: Chrome, script: str, what: str) -> None:
    """Until the JavaScript expression `script` is true in the page."""
    WebDriverWait(browser, SLOW, 0.05).until(lambda _: browser.execute_script(f"return {script}"), what)


def complaints(browser: Chrome) -> list[str]:
    """What the console has shown since this was last looked at."""
    return [entry["message"] for entry in _log(browser, "browser")]


def asked_addresses(browser: Chrome) -> set[str]:
    """What the page has asked for since this was last looked at."""
    events = [json.loads(entry["message"])["message"] for entry in _log(browser, "performance")]
    return {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}


def _log(browser: Chrome, kind: str) -> list[dict[str, str]]:
    log: list[dict[str, str]] = browser.get_log(kind)
    return log
