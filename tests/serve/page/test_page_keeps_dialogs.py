"""The page in a real browser: whatever happens, a dialog stays, and nothing useless is offered."""

from __future__ import annotations

import json
from pathlib import Path

import tomllib
from browser_kit import PATIENCE, Person
from playwright.sync_api import Route, expect

CHAT = "**/v1/chat/completions"
ROOT = Path(__file__).parents[3]
PHONE = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}
FILL = """() => {
  for (let size = 1 << 22; size >= 1; size >>= 1) {
    for (let number = 0; number < 9; number += 1) {
      try { localStorage.setItem(`full-${size}-${number}`, "x".repeat(size)); } catch {}
    }
  }
}"""


BUSY = json.dumps({"error": {"message": "the server is busy"}})


def refuse(person: Person, status: int, body: str = BUSY, **headers: str) -> None:
    """Have a proxy before the server answer once."""
    person.expected.append(str(status))
    person.page.route(
        CHAT,
        lambda route: route.fulfill(status=status, headers=headers, body=body),
        times=1,
    )


def offers(person: Person) -> list[str]:
    """What the page offers below the dialog."""
    return person.page.locator("#offer button").all_inner_texts()


def test_a_message_that_is_too_long_stays_and_is_offered_for_editing_alone(person):
    person.use_sampler("says")
    person.expected.append("400")
    person.ask("one")
    long = "word " * 700
    person.send(long)
    expect(person.page.get_by_role("alert")).to_contain_text("maximum context length is 512")
    offered = offers(person)
    person.page.get_by_label("Seed").fill("3")
    offered_still = offers(person)
    person.page.reload()
    expect(person.messages).to_have_count(3)
    texts = person.texts()
    person.messages.last.get_by_role("button", name="Edit").click()
    person.page.get_by_label("Your message").fill("short")
    person.page.keyboard.press("Enter")
    person.wait(4)

    assert offered == offered_still == ["Edit your message"]
    assert texts == ["one", "Quite so.", long.strip()]


def test_what_no_longer_fits_is_left_out_of_the_request_and_stays_in_the_dialog(person):
    person.use_sampler("says")
    person.expected.append("400")
    for number in (1, 2):
        person.ask(f"{number} " + "word " * 150)
    with person.page.expect_response(lambda it: it.ok and it.url.endswith("completions")) as answer:
        person.send("3 " + "word " * 200)
    person.wait(6)
    sent = [it["content"][0] for it in json.loads(answer.value.request.post_data)["messages"]]
    again = person.request_of(lambda: person.send("4"))
    person.wait(8)
    person.page.reload()
    person.wait(8)

    assert sent == ["2", "Q", "3"]
    assert [it["content"][0] for it in again["messages"]] == ["2", "Q", "3", "Q", "4"]
    assert [text[0] for text in person.texts()] == ["1", "Q", "2", "Q", "3", "Q", "4", "Q"]
    expect(person.messages.nth(5)).to_contain_text("without the first 2 messages")


def test_two_tabs_that_continue_one_dialog_make_two_of_it(person):
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    person.use_sampler("says")
    person.ask("Both?")
    other = person.new_page()
    other.wait_for_selector("#frame:visible")
    person.page.route(CHAT, hold, times=1)
    with person.page.expect_request(CHAT):
        person.send("Here.")
    other.get_by_label("Message", exact=True).fill("There.")
    other.get_by_role("button", name="Send").click()
    other.wait_for_selector("#send:visible")
    held[0].continue_()
    person.wait(4)
    stored = person.page.evaluate(
        "() => Object.entries({...localStorage})"
        ".filter(([name]) => name.startsWith('llamakit.dialog.')).map(([, text]) => text)"
    )

    questions = {
        message["content"]
        for text in stored
        for message in json.loads(text)["messages"]
        if message["role"] == "user"
    }
    assert len(stored) == 2
    assert questions == {"Both?", "Here.", "There."}


def test_a_dialog_that_has_no_room_stays_in_the_tab_and_is_stored_when_there_is_some(person):
    person.use_sampler("says")
    person.ask("Delete me.")
    person.press("New dialog")
    person.page.evaluate(FILL)
    person.ask("Is there room?")
    person.press("New dialog")
    person.page.locator(".dialog", has_text="Is there room?").click()
    texts = person.texts()
    person.page.evaluate("() => localStorage.removeItem('full-1024-0')")
    person.press("Delete “Delete me.”")
    person.page.reload()

    assert texts == ["Is there room?", "Quite so."]
    expect(person.page.locator(".dialog")).to_have_text(["Is there room?"])


def test_what_is_being_written_survives_a_reload(person):
    person.page.get_by_label("Message", exact=True).fill("Half a thought")
    person.page.locator("#system-summary").click()
    person.page.get_by_label("System message", exact=True).fill("Be brief.")
    person.page.reload()
    person.page.wait_for_selector("#frame:visible")

    expect(person.page.get_by_label("Message", exact=True)).to_have_value("Half a thought")
    expect(person.page.locator("#system")).to_have_value("Be brief.")


def test_a_busy_server_is_tried_again_once_it_has_said_it_may_be(person):
    person.use_sampler("says")
    person.page.clock.install()
    refuse(person, 429, **{"Retry-After": "600"})
    person.send("Hello.")
    again = person.page.get_by_role("button", name="Try again")
    again.wait_for()
    was_enabled = again.is_enabled()
    person.page.clock.fast_forward(601_000)
    again.click()
    person.wait(2)
    refuse(person, 503)
    person.send("And now?")
    expect(person.page.get_by_role("alert")).to_have_text("The server is busy.")
    person.press("Try again")
    person.wait(4)

    assert not was_enabled
    assert person.texts() == ["Hello.", "Quite so.", "And now?", "Quite so."]


def test_a_setting_that_is_refused_is_offered_for_a_change_and_then_tried_again(person):
    person.expected.append("400")
    person.use_sampler("mirostat", tau="-1")
    person.send("Hello.")
    person.page.get_by_role("alert").wait_for()
    before = offers(person)
    person.use_sampler("says")

    assert before == ["Change the settings"]
    assert offers(person) == ["Try again"]


def test_a_connection_that_is_lost_within_an_answer_leaves_what_there_is_of_it(person):
    def cut(route: Route) -> None:
        event = {"choices": [{"delta": {"content": "Half an"}}]}
        route.fulfill(content_type="text/event-stream", body=f"data: {json.dumps(event)}\n\n")

    person.page.route(CHAT, cut, times=1)
    person.send("Hello.")
    expect(person.page.get_by_role("alert")).to_contain_text("was lost during the answer")
    person.page.reload()
    person.wait(2)

    assert person.texts() == ["Hello.", "Half an"]
    expect(person.messages.last).to_contain_text("incomplete: the connection was lost")


def test_an_answer_that_an_error_ends_does_not_blame_the_connection(person):
    events = [{"choices": [{"delta": {"content": "Half an"}}]}, {"error": {"message": "a fault"}}]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    answer = {"content_type": "text/event-stream", "body": body}

    person.page.route(CHAT, lambda route: route.fulfill(**answer), times=1)
    person.send("Hello.")

    expect(person.page.get_by_role("alert")).to_have_text("A fault.")
    expect(person.messages.last).to_contain_text("incomplete: an error ended it")


def test_a_refusal_without_a_reason_says_where_to_look(person):
    refuse(person, 502, "<html>")

    person.send("Hello.")

    expect(person.page.get_by_role("alert")).to_contain_text("502 and no reason: look into its log")


def test_an_empty_dialog_offers_questions_and_the_documentation(person):
    person.use_sampler("says")
    example = person.page.locator("#examples button").first
    question = example.inner_text()
    link = person.page.get_by_role("link", name="Documentation").get_attribute("href")
    example.click()
    person.wait(2)

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    folder, _, name = (link or "").replace("/blob/", "/tree/").partition("/docs/")
    assert person.texts() == [question, "Quite so."]
    expect(person.page.locator("#welcome")).to_be_hidden()
    assert f"{folder}/docs" == project["Documentation"]
    assert (ROOT / "docs" / name).is_file()


def test_enter_sends_where_the_page_says_so_and_is_a_new_line_on_a_touch_keyboard(
    browser, page_server, person
):
    on_desktop = person.page.locator("#keys").inner_text()
    phone = Person(browser, page_server.url, **PHONE)
    message = phone.page.get_by_label("Message", exact=True)
    message.fill("one")
    message.press("Enter")
    message.press_sequentially("two")
    on_phone = phone.page.locator("#keys").text_content()
    typed, count = message.input_value(), phone.messages.count()
    phone.close()
    person.use_sampler("says", text="one two three", pause="0.2")
    person.send("Hello.")
    expect(person.page.locator("#keys")).to_have_text("Esc stops the answer.", timeout=PATIENCE)

    assert on_desktop.startswith("Enter sends")
    assert (on_phone, typed, count) == ("", "one\ntwo", 0)
