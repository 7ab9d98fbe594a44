"""The page in a real browser: a chat with the bundled demo model."""

from __future__ import annotations

import json
import re

from browser_kit import Person
from playwright.sync_api import expect
from server_kit import thread

from llamakit.cli.chat import session_file
from llamakit.cli.chat.conversation import Conversation

SLOW = {"text": "one two three four five six seven eight nine ten", "pause": "0.1"}


def test_an_answer_grows_while_it_is_written_and_says_how_fast_it_was(person):
    person.use_sampler("says", **SLOW)
    person.send("Count.")
    person.page.wait_for_selector("#messages > li[aria-busy=true]")
    expect(person.answer).to_contain_text("two")
    early = person.answer.inner_text()
    person.wait(2)

    assert "ten" not in early
    assert person.texts() == ["Count.", SLOW["text"]]
    found = re.search(r"\d+ tokens · ([\d.]+) tokens/s", person.messages.last.inner_text())
    assert found
    assert 0 < float(found[1]) < 100  # the sampler takes 0.1 s for each


def test_an_answer_of_the_model_is_the_same_with_the_same_seed(person):
    person.page.get_by_label("Seed").fill("7")
    first = person.ask("Tell me a story.")
    person.press("New dialog")
    second = person.ask("Tell me a story.")

    assert first == second != ""


def test_enter_sends_and_shift_enter_is_a_new_line(person):
    person.use_sampler("says")
    person.page.get_by_label("Message", exact=True).focus()
    person.page.keyboard.type("one")
    person.page.keyboard.press("Shift+Enter")
    person.page.keyboard.type("two")
    person.page.keyboard.press("Enter")
    person.wait(2)

    assert person.texts() == ["one\ntwo", "Quite so."]


def test_escape_stops_an_answer_and_what_there_is_of_it_stays(person):
    person.use_sampler("says", **SLOW)
    person.send("Count.")
    expect(person.answer).to_contain_text("two")
    person.page.keyboard.press("Escape")
    person.wait(2)

    assert person.texts()[-1].startswith("one two")
    assert "ten" not in person.texts()[-1]
    assert "stopped" in person.messages.last.inner_text()


def test_the_stop_button_is_there_while_an_answer_is_written(person):
    person.use_sampler("says", **SLOW)
    person.send("Count.")
    expect(person.answer).to_contain_text("one")
    person.press("Stop")
    person.wait(2)

    assert "ten" not in person.texts()[-1]
    expect(person.page.locator("#stop")).to_be_hidden()
    expect(person.page.locator("#send")).to_be_focused()


def test_a_retry_keeps_both_answers_to_turn_between(person):
    person.use_sampler("says", text="This.")
    person.ask("This or that?")
    person.use_sampler("says", text="That.")
    person.press("Answer again")
    expect(person.answer).to_have_text("That.")
    person.wait(2)
    person.press("Previous answer")

    assert person.texts() == ["This or that?", "This."]
    assert "1 of 2" in person.messages.last.inner_text()


def test_an_edited_message_continues_from_there_and_can_be_undone(person):
    person.use_sampler("says")
    for question in ("one", "two"):
        person.ask(question)
    person.messages.first.get_by_role("button", name="Edit").click()
    person.page.get_by_label("Your message").fill("another")
    asked = person.request_of(lambda: person.page.keyboard.press("Enter"))
    person.wait(2)
    edited = person.texts()
    person.press("Undo")
    expect(person.messages).to_have_count(4)

    assert asked["messages"] == [{"role": "user", "content": "another"}]
    assert edited == ["another", "Quite so."]
    assert person.texts() == ["one", "Quite so.", "two", "Quite so."]


def test_an_edited_answer_is_what_the_model_sees(person):
    person.use_sampler("says")
    person.ask("one")
    person.messages.last.get_by_role("button", name="Edit").click()
    person.page.get_by_label("The answer").fill("It is 42.")
    person.press("Save")
    asked = person.request_of(lambda: person.send("two"))
    person.wait(4)

    assert [it["content"] for it in asked["messages"]] == ["one", "It is 42.", "two"]


def test_the_system_message_is_sent_and_kept_with_the_dialog(person):
    person.use_sampler("says")
    person.page.locator("#system-summary").click()
    person.page.get_by_label("System message", exact=True).fill("Be brief.")
    asked = person.request_of(lambda: person.send("Hello."))
    person.wait(2)
    person.page.reload()

    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    expect(person.page.locator("#system")).to_have_value("Be brief.")


def test_the_form_offers_what_a_third_party_sampler_declares(person):
    person.use_sampler("says", text="Spelt out.", pause="0.01")
    person.page.locator("#chosen").get_by_label("ending").select_option(label="again")
    person.page.get_by_label("Max tokens").fill("9")
    asked = person.request_of(lambda: person.send("Hello."))
    person.wait(2)

    options = {"text": "Spelt out.", "pause": 0.01, "ending": "again"}
    assert (asked["sampler"], asked["sampler_options"]) == ("says", options)
    assert asked["max_tokens"] == 9
    assert person.texts()[-1].startswith("Spelt out.")
    expect(person.page.locator("#chosen")).to_contain_text("From the package llamakit-says.")


def test_a_server_that_was_started_with_a_sampler_is_left_to_it(browser, llama):
    with thread(llama, sampling={"sampler": "greedy"}) as running:
        someone = Person(browser, running.url)
        someone.page.get_by_label("Max tokens").fill("3")
        asked = someone.request_of(lambda: someone.send("Hello."))
        someone.wait(2)
        someone.close()

    assert not {"sampler", "temperature", "top_p"} & set(asked)


def test_processors_are_sent_in_the_order_of_the_list(person):
    person.use_sampler("draw")
    for name in ("top-k", "min-p", "dry"):
        person.page.get_by_label("Add a processor").select_option(name)
        person.press("Add")
    person.page.locator("#chosen").get_by_label("k", exact=True).fill("5")
    person.press("Move up min-p")
    person.press("Remove dry")
    asked = person.request_of(lambda: person.send("Hello."))
    person.wait(2)

    assert asked["processors"] == [
        {"name": "min-p", "options": {}},
        {"name": "top-k", "options": {"k": 5}},
    ]
    assert "temperature" not in asked


def test_dialogs_and_settings_are_still_there_after_a_reload(person):
    person.use_sampler("says", text="I stay.")
    person.ask("Do you stay?")
    person.page.reload()
    person.wait(2)

    assert person.texts() == ["Do you stay?", "I stay."]
    assert person.page.get_by_label("Sampler", exact=True).input_value() == "says"
    assert person.ask("Still?") == "I stay."


def test_what_was_written_of_an_answer_survives_a_reload_in_its_midst(person):
    person.use_sampler("says", **SLOW)
    person.send("Count.")
    expect(person.answer).to_contain_text("two")
    person.page.reload()
    person.wait(2)

    assert person.texts()[-1].startswith("one two")


def test_an_answer_continues_while_another_dialog_is_shown(person):
    person.use_sampler("says", **SLOW)
    person.send("Count.")
    expect(person.answer).to_contain_text("one")
    person.press("New dialog")
    empty = person.messages.count()
    person.page.locator(".dialog", has_text="Count.").click()
    person.wait(2)

    assert empty == 0
    assert person.texts() == ["Count.", SLOW["text"]]


def test_dialogs_are_renamed_deleted_and_brought_back(person):
    person.use_sampler("says")
    person.ask("Hello.")
    person.press("Rename “Hello.”")
    person.page.get_by_label("The dialog's name").fill("Greetings")
    person.page.keyboard.press("Enter")
    expect(person.page.locator("#dialog-title")).to_have_text("Greetings")
    person.press("Delete “Greetings”")
    expect(person.page.locator("#dialog-list li")).to_have_count(0)
    person.press("Undo")
    person.page.reload()

    expect(person.page.locator(".dialog")).to_have_text(["Greetings"])
    expect(person.page.locator("#dialog-title")).to_have_text("Greetings")


def test_a_name_that_is_being_typed_outlasts_the_end_of_an_answer(person):
    person.use_sampler("says", **SLOW)
    person.send("Count.")
    expect(person.answer).to_contain_text("one")
    person.press("Rename “Count.”")
    person.page.get_by_label("The dialog's name").fill("Numbers")
    person.wait(2)
    person.page.keyboard.press("Enter")

    expect(person.page.locator(".dialog")).to_have_text(["Numbers"])
    expect(person.page.get_by_role("button", name="Rename “Numbers”")).to_be_focused()


def test_another_tab_shows_what_was_said_in_this_one(person):
    person.use_sampler("says")
    other = person.new_page()
    other.wait_for_selector("#frame:visible")
    person.ask("Hello.")

    expect(other.locator(".dialog")).to_have_text(["Hello."])


def test_ctrl_k_begins_a_dialog_and_arrow_up_edits_the_latest_message(person):
    person.use_sampler("says")
    person.ask("one")
    person.page.keyboard.press("ArrowUp")
    expect(person.page.get_by_label("Your message")).to_be_focused()
    person.page.keyboard.press("Escape")
    person.page.keyboard.press("Control+k")

    expect(person.messages).to_have_count(0)
    expect(person.page.get_by_label("Message", exact=True)).to_be_focused()


def test_an_exported_dialog_is_one_that_llamakit_chat_loads(person, tmp_path):
    person.use_sampler("says")
    person.page.locator("#system-summary").click()
    person.page.get_by_label("System message", exact=True).fill("Be brief.")
    person.ask("Hello.")
    with person.page.expect_download() as download:
        person.press("Export")
    download.value.save_as(tmp_path / "dialog.json")
    conversation = session_file.load(tmp_path / "dialog.json")

    assert download.value.suggested_filename == "hello.json"
    assert conversation.dialog() == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Quite so."},
    ]


def test_a_conversation_that_llamakit_chat_has_saved_is_imported(person, tmp_path):
    said = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    session_file.save(Conversation("Be brief.", said), tmp_path / "saved.json")
    person.page.set_input_files("#import-file", tmp_path / "saved.json")
    person.wait(2)

    assert person.texts() == ["one", "two"]
    expect(person.page.locator("#system")).to_have_value("Be brief.")


def test_exported_dialogs_are_imported_in_another_browser(person, browser, tmp_path):
    person.use_sampler("says")
    for question in ("First?", "Second?"):
        person.ask(question)
        person.press("New dialog")
    with person.page.expect_download() as download:
        person.press("Export all")
    download.value.save_as(tmp_path / "all.json")
    other = Person(browser, person.url)
    other.page.wait_for_selector("#frame:visible")
    other.page.set_input_files("#import-file", tmp_path / "all.json")
    other.wait(2)
    titles = other.page.locator(".dialog").all_inner_texts()
    texts = other.texts()
    other.close()

    assert len(json.loads((tmp_path / "all.json").read_text())["dialogs"]) == 2
    assert titles == ["Second?", "First?"]
    assert texts == ["Second?", "Quite so."]


def test_a_file_that_holds_no_dialog_is_refused_in_a_sentence(person, tmp_path):
    (tmp_path / "other.json").write_text('{"messages": [{"role": "user"}]}')
    person.page.set_input_files("#import-file", tmp_path / "other.json")

    expect(person.page.locator("#note")).to_contain_text("The file is no dialog: expected messages")
    expect(person.page.locator("#dialog-list li")).to_have_count(0)
