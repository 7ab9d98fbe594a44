"""The page as it looks: on a screen and a phone, light and dark, and to those who cannot see it.

The pictures of the documentation are these: ``make pictures`` writes them to docs/images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser_kit import Person
from playwright.sync_api import expect

PICTURES = Path(__file__).parents[3] / "docs" / "images"
LARGEST = 150_000  # bytes of a picture
SCREEN = {"viewport": {"width": 1100, "height": 640}}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}


@pytest.fixture
def visit(browser, page_server) -> Iterator[Callable[..., Person]]:
    people: list[Person] = []

    def come(**settings) -> Person:
        person = Person(browser, page_server.url, **settings)
        people.append(person)
        person.page.wait_for_selector("#frame:visible")
        return person

    yield come
    for person in people:
        person.close()


@pytest.fixture
def pictures(tmp_path) -> Path:
    return Path(os.environ.get("LLAMAKIT_PICTURES", tmp_path))


def check(person: Person, picture: Path) -> None:
    """Take a picture; what is on it has to be readable for all, and nothing sticks out."""
    person.page.evaluate("() => document.activeElement.blur()")
    person.page.screenshot(path=picture)
    width = person.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")

    assert person.serious_findings() == []
    assert width <= 0


def converse(person: Person) -> None:
    if person.page.locator("#settings").is_hidden():
        person.press("Settings")
    person.page.get_by_label("Choose tokens by").select_option("plugins")
    person.page.get_by_label("Sampler", exact=True).select_option("draw")
    for name in ("min-p", "temperature"):
        person.page.get_by_label("Add a processor").select_option(name)
        person.press("Add")
    person.page.get_by_label("Seed").fill("1")
    person.page.locator("#settings").evaluate("it => it.scrollTo(0, 0)")
    person.page.keyboard.press("Escape")
    person.ask("How do I verify a checkpoint?")
    person.page.keyboard.press("Control+k")
    person.ask("Tell me a story about a cat.")


def show_probabilities(person: Person) -> None:
    person.page.get_by_role("tab", name="Probabilities").click()
    person.press("Generate")
    expect(person.page.locator("#p-summary")).to_contain_text("perplexity")
    tokens = person.page.locator("#p-tokens button")
    shades = [
        int((tokens.nth(it).get_attribute("class") or "").split("shade-")[1])
        for it in range(tokens.count())
    ]
    tokens.nth(shades.index(max(shades))).click()


@pytest.mark.soak
def test_a_light_screen(visit, pictures, tmp_path):
    person = visit(**SCREEN, color_scheme="light")
    converse(person)
    check(person, pictures / "serve-light.png")
    show_probabilities(person)
    check(person, tmp_path / "probabilities.png")


@pytest.mark.soak
def test_a_dark_screen(visit, pictures):
    person = visit(**SCREEN, color_scheme="dark")
    converse(person)
    check(person, pictures / "serve-dark.png")
    person.page.locator("#toggle-dialogs").click()
    show_probabilities(person)
    check(person, pictures / "serve-probabilities.png")


def test_a_phone(visit, pictures, tmp_path):
    person = visit(**PHONE)
    converse(person)
    check(person, pictures / "serve-phone.png")
    show_probabilities(person)
    check(person, tmp_path / "probabilities.png")


def test_the_documentations_pictures_are_small():
    sizes = {file.name: file.stat().st_size for file in PICTURES.glob("serve-*.png")}

    assert len(sizes) == 4
    assert all(size < LARGEST for size in sizes.values()), sizes


def test_panels_cover_a_phone_one_at_a_time_and_escape_closes_them(visit, tmp_path):
    person = visit(**PHONE)
    person.page.evaluate(
        "() => {document.getElementById('model').textContent = 'Meta-Llama-3.1-8B-Instruct'}"
    )
    name = "() => {const {scrollHeight: all, clientHeight: shown} = document.querySelector('h1');"
    is_whole = person.page.evaluate(name + " return all <= shown + 1}")
    person.press("Dialogs")
    check(person, tmp_path / "dialogs.png")
    person.press("Settings")
    settings_only = person.page.locator("#dialogs").is_hidden()
    check(person, tmp_path / "settings.png")
    person.page.keyboard.press("Escape")

    assert is_whole
    assert settings_only
    expect(person.page.locator("#settings")).to_be_hidden()


def test_an_empty_page_a_failure_and_a_form_within_a_message_are_readable_too(visit, tmp_path):
    person = visit()
    person.expected.append("400")
    check(person, tmp_path / "empty.png")
    person.use_sampler("mirostat", tau="-1")
    person.send("Hello.")
    person.page.get_by_role("alert").wait_for()
    check(person, tmp_path / "failure.png")
    person.messages.first.get_by_role("button", name="Edit").click()
    check(person, tmp_path / "editor.png")


def test_colors_follow_the_system_until_they_are_chosen(visit):
    person = visit(color_scheme="dark")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    dark = person.page.evaluate(ground)
    person.press("Light colors")
    light = person.page.evaluate(ground)
    person.page.reload()
    person.page.wait_for_selector("#frame:visible")

    assert dark == "rgb(23, 23, 28)"
    assert light == person.page.evaluate(ground) == "rgb(255, 255, 255)"


def test_a_finished_answer_is_announced_once_and_no_token_is(visit):
    person = visit()
    person.page.evaluate(
        """() => {
          window.said = [];
          const note = () => said.push(document.getElementById("announcer").textContent);
          new MutationObserver(note).observe(
            document.getElementById("announcer"), {childList: true, characterData: true});
        }"""
    )
    person.use_sampler("says", text="one two three four five", pause="0.05")
    person.ask("Count.")
    person.page.wait_for_function("said.some(it => it.includes('five'))")
    said = [it for it in person.page.evaluate("said") if it]

    assert said == ["demo: one two three four five"]
    assert person.page.locator("#messages").get_attribute("aria-live") is None
