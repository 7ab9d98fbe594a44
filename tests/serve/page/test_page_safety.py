"""The page in a real browser: what must never happen, and what is said when something fails."""

from __future__ import annotations

import re

import pytest
from browser_kit import Person
from playwright.sync_api import expect
from server_kit import thread

KEY = "a-key-that-opens-the-door"
HOSTILE = '<img src=x onerror=alert(1)><script>alert(2)</script><b onclick="alert(3)">bold</b>'


def test_the_page_comes_with_a_strict_policy(person):
    response = person.page.reload()
    policy = dict(
        part.strip().split(" ", 1)
        for part in response.headers["content-security-policy"].split(";")
    )

    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"


def test_the_page_has_no_script_or_style_of_its_own_within_the_html(person):
    html = person.page.request.get(person.url).text()

    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", html))


def test_html_in_a_message_and_in_an_answer_stays_text(person):
    person.use_sampler("says", text=HOSTILE)
    person.ask(HOSTILE)

    assert person.texts() == [HOSTILE, HOSTILE]
    assert person.page.locator("#frame :is(img, script, b)").count() == 0
    assert person.page.locator(".dialog").inner_text().startswith("<img src=x")


def test_html_in_an_imported_dialog_stays_text(person, tmp_path):
    quoted = HOSTILE.replace('"', '\\"')
    file = tmp_path / "dialog.json"
    file.write_text(
        f'{{"title": "{quoted}", "messages": [{{"role": "user", "content": "{quoted}"}}]}}'
    )
    person.page.set_input_files("#import-file", file)
    expect(person.messages).to_have_count(1)

    assert person.texts() == [HOSTILE]
    assert person.page.locator("#frame :is(img, script, b)").count() == 0


def test_code_and_bold_are_shown_as_such(person):
    person.use_sampler(
        "says", text="Use **this**:\\n\\n```python\\nprint('<b>')\\n```\\n\\nDone, `x`."
    )
    person.ask("How?")

    expect(person.answer.locator("strong")).to_have_text("this")
    expect(person.answer.locator("pre code")).to_have_text("print('<b>')")
    expect(person.answer.locator("p code")).to_have_text("x")
    expect(person.answer.locator("p")).to_have_count(2)


def test_what_the_server_refuses_is_said_in_a_sentence_and_can_be_tried_again(person):
    person.expected.append("400")  # Chromium notes every failed request
    person.use_sampler("mirostat", tau="-1")
    person.send("Hello.")
    alert = person.page.get_by_role("alert")
    expect(alert).to_contain_text(re.compile(r"^[A-Z].*tau.*\.$"))
    person.use_sampler("says")
    person.press("Try again")
    person.wait(2)

    assert person.texts() == ["Hello.", "Quite so."]
    expect(alert).to_have_count(0)


def test_a_server_that_is_gone_is_distinguished_from_one_that_refuses(person):
    person.expected.append("ERR_INTERNET_DISCONNECTED")
    person.use_sampler("says")
    person.context.set_offline(True)
    person.send("Hello?")
    expect(person.page.get_by_role("alert")).to_have_text(
        "The server does not answer. Is llamakit serve still running?"
    )
    person.context.set_offline(False)
    person.press("Try again")
    person.wait(2)

    assert person.texts() == ["Hello?", "Quite so."]


def test_a_full_browser_storage_is_reported_and_the_answer_is_shown_all_the_same(person):
    person.use_sampler("says")
    person.page.evaluate(
        """() => {
          for (let size = 1 << 22; size >= 1; size >>= 1) {
            for (let number = 0; number < 9; number += 1) {
              try { localStorage.setItem(`full-${size}-${number}`, "x".repeat(size)); } catch {}
            }
          }
        }"""
    )

    assert person.ask("Is there room?") == "Quite so."
    expect(person.page.locator("#note")).to_contain_text("full, so this is not saved")


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "null",
        '{"messages": [3], "system": "", "processors": [3], "samplers": 1}',
        '{"messages": [{"role": "assistant"}], "sampler": "gone", "temperature": "hot"}',
    ],
)
def test_what_the_browser_kept_may_be_damaged(person, damage):
    person.page.evaluate(
        """(damage) => {
          localStorage.setItem("llamakit.dialog.broken", damage);
          localStorage.setItem("llamakit.open", "broken");
          localStorage.setItem("llamakit.settings", damage);
        }""",
        damage,
    )
    person.page.reload()
    person.use_sampler("says")

    assert person.ask("Hello.") == "Quite so."


def test_a_server_with_keys_is_asked_with_one_that_only_the_tab_keeps(browser, llama):
    with thread(llama, keys=(KEY,)) as running:
        someone = Person(browser, running.url)
        someone.expected.append("401")
        page = someone.page
        page.get_by_label("Key", exact=True).fill("a-wrong-key")
        someone.press("Use this key")
        expect(page.locator("#key-words")).to_have_text("The server does not accept this API key.")
        page.get_by_label("Key", exact=True).fill(KEY)
        someone.press("Use this key")
        page.get_by_label("Max tokens").fill("3")
        answer = someone.ask("Hello.")
        page.reload()
        page.wait_for_selector("#frame:visible")
        kept = page.evaluate("() => JSON.stringify({...localStorage})")
        shown = page.content()
        someone.close()

    assert answer
    assert KEY not in kept
    assert KEY not in shown
