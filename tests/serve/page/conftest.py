"""A server with a third-party sampler, a browser, and someone who has just come to the page."""

from __future__ import annotations

from collections.abc import Iterator

import browser_kit
import pytest
from browser_kit import Person
from playwright.sync_api import Browser
from server_kit import Running, demo_folder, thread

from llamakit.api import Llama
from llamakit.plugin_manager.entry_points import EntryPoint, find_entry_points
from llamakit.plugin_manager.toolkit import load_toolkit


@pytest.fixture(scope="module")
def page_server() -> Iterator[Running]:
    """A server whose model has a third-party sampler as well."""
    points = find_entry_points("llamakit")
    says = EntryPoint("says", "says_plugin", "", "llamakit-says", "1.0")
    toolkit = load_toolkit([*points, says])
    folder = demo_folder()
    with (
        Llama.open(folder, max_batch_size=4, dtype="float32", toolkit=toolkit) as llama,
        thread(llama) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; one for each module, for its event loop is in the way of other tests'."""
    if browser_kit.CHROMIUM is None:
        pytest.skip(browser_kit.NONE)
    with browser_kit.chromium() as started:
        yield started


@pytest.fixture
def person(browser: Browser, page_server: Running) -> Iterator[Person]:
    """Someone at the page, who has never been there."""
    someone = Person(browser, page_server.url)
    someone.page.wait_for_selector("#frame:visible")
    yield someone
    someone.close()
