"""The page in a real browser: the tab of probabilities."""

from __future__ import annotations

import math
import re

import pytest
from browser_kit import Person
from playwright.sync_api import Locator, expect

COMPLETIONS = "/v1/completions"


def write(person: Person, prompt: str = "Once upon a time", tokens: int = 12) -> Locator:
    """Open the tab, have a string continued, and return its tokens."""
    page = person.page
    page.get_by_role("tab", name="Probabilities").click()
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Tokens", exact=True).fill(str(tokens))
    person.press("Generate")
    expect(page.locator("#p-summary")).to_contain_text("perplexity")
    return page.locator("#p-tokens button")


def likelihoods(person: Person, column: int = 2) -> list[float]:
    """What a column of the table of alternatives says, in percent."""
    cells = person.page.locator(f".alternatives tbody tr > :nth-child({column}) .amount")
    return [float(re.sub(r"[<>% ]", "", amount)) for amount in cells.all_inner_texts()]


def test_each_token_shows_how_likely_it_was(person, page_server):
    person.page.get_by_label("Choose tokens by").select_option("plugins")
    person.page.get_by_label("Sampler", exact=True).select_option("greedy")
    tokens = write(person)
    shown = [tokens.nth(number).get_attribute("title") for number in range(tokens.count())]
    body = {"prompt": "Once upon a time", "max_tokens": 12, "logprobs": 1, "sampler": "greedy"}
    logprobs = page_server.post(COMPLETIONS, body).json()["choices"][0]["logprobs"]

    expected = [100 * math.exp(logprob) for logprob in logprobs["token_logprobs"]]
    found = [float(re.sub(r"[<>% ]", "", it or "")) for it in shown]
    assert tokens.all_inner_texts() == logprobs["tokens"]
    assert found == pytest.approx(expected, rel=0.06, abs=0.1)


def test_unlikely_tokens_have_another_color_than_likely_ones(person):
    person.use_sampler("says", text="Quixotic")
    tokens = write(person)
    unlikely = tokens.first.evaluate("it => getComputedStyle(it).backgroundColor")
    person.page.get_by_label("Sampler", exact=True).select_option("greedy")
    tokens = write(person)
    likely = tokens.first.evaluate("it => getComputedStyle(it).backgroundColor")

    assert unlikely != likely == "rgba(0, 0, 0, 0)"


def test_a_chosen_token_shows_the_alternatives_in_its_place(person):
    tokens = write(person)
    tokens.nth(3).click()
    rows = person.page.locator(".alternatives tbody tr")

    expect(rows.last).to_contain_text("All others")
    assert rows.count() in (9, 10)  # eight, all others, and what was taken if none of the eight
    assert sum(likelihoods(person)) == pytest.approx(100, abs=1.5)
    assert person.page.locator(".alternatives tr.taken").count() == 1


def test_what_the_sampler_drew_from_is_shown_next_to_what_the_model_thought(person):
    person.use_sampler("draw")
    person.page.get_by_label("Add a processor").select_option("top-k")
    person.press("Add")
    person.page.locator("#chosen").get_by_label("k", exact=True).fill("2")
    tokens = write(person)
    tokens.nth(3).click()
    rows = person.page.locator(".alternatives tbody tr")

    assert person.page.locator(".alternatives th[scope=col]").all_inner_texts() == [
        "Token",
        "Model",
        "Sampler",
        "Continue",
    ]
    assert sum(likelihoods(person, 2)) == pytest.approx(100, abs=1.5)
    assert sum(likelihoods(person, 3)) == pytest.approx(100, abs=0.5)
    assert len(likelihoods(person, 3)) == 2
    expect(rows.last).to_contain_text("Ruled out")


def test_colors_show_the_model_or_the_sampler(person):
    person.use_sampler("draw")
    person.page.get_by_label("Add a processor").select_option("top-k")
    person.press("Add")
    person.page.locator("#chosen").get_by_label("k", exact=True).fill("1")
    tokens = write(person)
    model = [tokens.nth(it).get_attribute("title") for it in range(tokens.count())]
    person.page.get_by_label("Colors show").select_option("sampler")
    sampler = [tokens.nth(it).get_attribute("title") for it in range(tokens.count())]

    assert set(sampler) == {"100 %"}  # one token is left
    assert set(model) != {"100 %"}
    assert tokens.first.get_attribute("aria-label").endswith("100 %")


def test_arrow_keys_go_from_token_to_token(person):
    tokens = write(person)
    tokens.first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        person.page.keyboard.press(key)

    expect(tokens.nth(1)).to_be_focused()
    expect(person.page.locator("#p-inspector h3")).to_contain_text("Token 2")


def test_the_text_continues_with_an_alternative(person):
    tokens = write(person, "Once upon a", 6)
    first = tokens.first.inner_text()
    tokens.first.click()
    row = person.page.locator(".alternatives tbody tr:not(.taken)").first
    text = row.locator("code").inner_text().replace("␣", " ")
    asked = person.request_of(row.get_by_role("button").click, COMPLETIONS)

    assert text != first
    assert asked["prompt"] == f"Once upon a{text}"
    expect(person.page.get_by_label("Prompt", exact=True)).to_have_value(f"Once upon a{text}")


def test_the_prompts_own_tokens_are_shown_when_asked_for(person):
    person.page.get_by_role("tab", name="Probabilities").click()
    person.page.get_by_label("Show the prompt's tokens").check()
    tokens = write(person, "Once upon a time", 4)
    prompts = person.page.locator("#p-tokens .prompt")
    prompts.nth(2).click()

    assert "".join(prompts.all_inner_texts()).endswith("Once upon a time")
    assert tokens.count() == prompts.count() + 4
    expect(person.page.locator("#p-inspector")).to_contain_text("was not sampled")
    assert len(likelihoods(person)) == person.page.locator(".alternatives tbody tr").count()
    assert sum(likelihoods(person)) == pytest.approx(100, abs=1.5)


def test_a_chats_answer_shows_its_probabilities_too(person):
    person.use_sampler("says", text="Quite so.")
    person.page.get_by_role("tab", name="Probabilities").click()
    person.page.get_by_label("The prompt is").select_option("chat")
    tokens = write(person, "Is it so?", 12)
    tokens.first.click()

    assert "".join(tokens.all_inner_texts()).strip() == "Quite so."
    expect(person.page.locator("#p-inspector")).to_contain_text("logprob")
    expect(person.page.locator("#p-inspector").get_by_role("button")).to_have_count(0)


def test_html_in_tokens_stays_text(person):
    person.use_sampler("says", text="<b>bold</b>")
    tokens = write(person, "<i>x</i>", 30)
    tokens.first.click()

    assert "<b>" in "".join(tokens.all_inner_texts())
    assert person.page.locator("#probabilities :is(b, i)").count() == 0


def test_escape_stops_the_text(person):
    person.use_sampler(
        "says",
        text="one two three",
        pause="0.1",
    )
    person.page.locator("#chosen").get_by_label("ending").select_option(label="again")
    page = person.page
    page.get_by_role("tab", name="Probabilities").click()
    person.press("Generate")
    expect(page.locator("#p-tokens button").nth(2)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#p-write")).to_be_visible()

    assert page.locator("#p-tokens button").count() < 64


def test_what_the_server_refuses_is_said_in_a_sentence(person):
    person.expected.append("400")
    page = person.page
    page.get_by_role("tab", name="Probabilities").click()
    page.get_by_label("Prompt", exact=True).fill("word " * 2000)
    person.press("Generate")

    expect(page.get_by_role("alert")).to_contain_text(
        re.compile(r"maximum context length is .* tokens\..*\.\s*$")
    )
