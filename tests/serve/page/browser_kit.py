"""A real browser for the tests of the page, and what a person does in it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import axe_playwright_python
from playwright.sync_api import Browser, Locator, Page, Request, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NONE = "there is no Chromium here: apt-get install chromium"
AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
PATIENCE = 90_000  # ms; the machine may be busy


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium without a window."""
    # its sandbox does not start for root; grey edges of letters make smaller pictures
    flags = ["--disable-lcd-text", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


class Person:
    """Someone who uses the page; what the page must never do is watched all the time."""

    def __init__(self, browser: Browser, url: str, **settings: Any) -> None:
        self.url = url
        self.has_touch = bool(settings.get("has_touch"))
        self.wrong: list[str] = []
        self.expected: list[str] = []
        self.context = browser.new_context(
            **{"viewport": {"width": 1160, "height": 720}, "reduced_motion": "reduce", **settings}
        )
        self.context.set_default_timeout(PATIENCE)
        self.page = self.new_page()

    def new_page(self) -> Page:
        """Open a tab, and go to the page."""
        page = self.context.new_page()
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", lambda dialog: self.wrong.append(f"a dialog: {dialog.message}"))
        page.on("request", self._check_host)
        page.goto(self.url)
        return page

    def close(self) -> None:
        """Leave, and say what has been seen that must not be."""
        self.context.close()
        assert self.wrong == []

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(it in text for it in self.expected):
            self.wrong.append(text)

    def _check_host(self, request: Request) -> None:
        asked = urlsplit(request.url)
        if asked.scheme in ("http", "https") and asked.netloc != urlsplit(self.url).netloc:
            self.wrong.append(f"a request to another host: {request.url}")

    # What a person sees ------------------------------------------------------------------------

    @property
    def messages(self) -> Locator:
        return self.page.locator("#messages > li")

    @property
    def answer(self) -> Locator:
        """What the latest message says."""
        return self.messages.last.locator(".body")

    def texts(self) -> list[str]:
        """What all messages say."""
        return [text.strip() for text in self.messages.locator(".body").all_inner_texts()]

    # What a person does ------------------------------------------------------------------------

    def send(self, text: str) -> None:
        """Type a message and press Enter, or the button where there is no such key."""
        self.page.get_by_label("Message", exact=True).fill(text)
        if self.has_touch:
            self.press("Send")
        else:
            self.page.keyboard.press("Enter")

    def wait(self, count: int) -> None:
        """Wait until there are so many messages, and none is being written."""
        done = f"#messages > li:nth-child({count}):last-child:not([aria-busy])"
        self.page.wait_for_selector(done)
        self.page.wait_for_selector("#send:visible")

    def ask(self, text: str) -> str:
        """Send a message and return the answer."""
        count = self.messages.count()
        self.send(text)
        self.wait(count + 2)
        return self.texts()[-1]

    def use_sampler(self, name: str, **options: str) -> None:
        """Choose a sampler in the settings, and fill in its options."""
        self.page.get_by_label("Choose tokens by").select_option("plugins")
        self.page.get_by_label("Sampler", exact=True).select_option(name)
        for option, value in options.items():
            self.page.locator("#chosen").get_by_label(option, exact=True).fill(value)

    def press(self, name: str) -> None:
        """Press a button."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def request_of(self, act: Any, path: str = "/v1/chat/completions") -> dict[str, Any]:
        """Do something, and return what the page asked the server for."""
        with self.page.expect_request(lambda request: request.url.endswith(path)) as asked:
            act()
        return json.loads(asked.value.post_data or "{}")

    def serious_findings(self) -> list[str]:
        """Return what axe-core finds on the page as it is now, serious or worse."""
        # the devtools evaluate this, so the page's policy stays as it is
        devtools = self.context.new_cdp_session(self.page)
        devtools.send("Runtime.evaluate", {"expression": AXE.read_text(encoding="utf-8") + ";0"})
        found = self.page.evaluate("() => axe.run()")["violations"]
        return [
            f"{it['id']}: {it['help']}: {[node['html'][:120] for node in it['nodes'][:3]]}"
            for it in found
            if it["impact"] in ("serious", "critical")
        ]
