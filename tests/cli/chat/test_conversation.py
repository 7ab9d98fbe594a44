"""What a conversation remembers, and what it drops."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from llamakit.cli.chat import session_file
from llamakit.cli.chat.answer_settings import AnswerSettings
from llamakit.cli.chat.conversation import Conversation
from llamakit.errors import (
    DestinationError,
    FileFormatError,
    OptionError,
    PromptTooLongError,
    UnknownNameError,
)
from llamakit.protocols import Message


def words(dialog: Sequence[Message]) -> list[int]:
    """Encode a dialog as one token a word."""
    return [1 for message in dialog for _ in message["content"].split()]


def talk(exchanges: int, system: str | None = None) -> Conversation:
    conversation = Conversation(system)
    for number in range(exchanges):
        asked = conversation.asked(f"question number {number}")
        conversation.answer(asked, f"answer number {number}")
    return conversation


def test_a_dialog_that_fits_is_the_prompt() -> None:
    conversation = talk(2, "be brief")

    tokens, left_out = conversation.fit(conversation.asked("next"), words, 15)

    assert (len(tokens), left_out) == (15, 0)


@pytest.mark.parametrize(("room", "left_out"), [(15, 1), (14, 2), (9, 2), (8, 3), (3, 3)])
def test_a_prompt_leaves_out_as_few_of_the_oldest_exchanges_as_it_can(
    room: int, left_out: int
) -> None:
    conversation = talk(3, "be brief")
    before = conversation.dialog()

    fitted = conversation.fit(conversation.asked("next"), words, room)

    assert fitted == ([1] * (21 - 6 * left_out), left_out)
    assert conversation.dialog() == before


def test_a_message_that_does_not_fit_alone_is_an_error_and_the_dialog_keeps_all() -> None:
    conversation = talk(2)
    asked = conversation.asked("far too many words for this")

    with pytest.raises(PromptTooLongError, match="has 6 tokens and there is room for 5"):
        conversation.fit(asked, words, 5)

    assert conversation.messages == talk(2).messages


def test_undo_forgets_the_last_exchange() -> None:
    conversation = talk(2)

    assert conversation.undo()
    assert conversation.messages == talk(1).messages
    assert conversation.undo()
    assert not conversation.undo()


def test_a_saved_conversation_is_loaded_as_it_was(tmp_path: Path) -> None:
    conversation = talk(2, "你是一名专家 🙂")

    session_file.save(conversation, tmp_path / "talk.json")

    assert session_file.load(tmp_path / "talk.json") == conversation
    assert [file.name for file in tmp_path.iterdir()] == ["talk.json"]


def test_saving_never_overwrites_another_file(tmp_path: Path) -> None:
    file = tmp_path / "precious.json"
    file.write_text('{"mine": 1}')

    with pytest.raises(FileFormatError, match=r"precious\.json is no saved conversation"):
        session_file.save(talk(1), file)

    assert file.read_text() == '{"mine": 1}'


def test_a_folder_or_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match=r"there is no folder .*nodir to save x in"):
        session_file.save(talk(1), tmp_path / "nodir" / "x")
    with pytest.raises(FileFormatError, match=r"there is no file .*nope to load"):
        session_file.load(tmp_path / "nope")


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        json.dumps({"format": session_file.FORMAT, "messages": "x"}),
        json.dumps({"format": session_file.FORMAT, "messages": [{"role": "user", "content": "a"}]}),
        json.dumps({"format": session_file.FORMAT, "messages": [{"role": "x", "content": "a"}]}),
    ],
)
def test_a_file_that_is_no_conversation_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(content)

    with pytest.raises(FileFormatError, match=r"bad\.json"):
        session_file.load(file)


def test_settings_change_one_at_a_time() -> None:
    settings = AnswerSettings().changed("temperature", ["0.5"]).changed("top-p", ["0.8"])

    settings = settings.changed("sampler", ["top-p"]).changed("sampler-option", ["p=0.7"])

    assert settings == AnswerSettings("top-p", ("p=0.7",), (), 0.5, 0.8)
    assert settings.changed("temperature", ["none"]).temperature is None
    assert settings.changed("sampler", ["draw"]).sampler_options == ()


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("temprature", ["1"], UnknownNameError, "did you mean 'temperature'"),
        ("temperature", ["hot"], OptionError, "'hot' is not a number"),
        ("max-new-tokens", ["0"], OptionError, "1 or more"),
        ("seed", ["1.5"], OptionError, "not a whole number"),
        ("sampler", ["a", "b"], OptionError, "takes one value"),
        ("sampler", [], OptionError, "wants a value"),
    ],
)
def test_a_wrong_setting_says_what_is_wrong(
    name: str, value: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        AnswerSettings().changed(name, value)


def test_a_saved_chat_keeps_its_mode_and_the_users_link(tmp_path):
    session_file.save(talk(1), tmp_path / "real.json")
    (tmp_path / "real.json").chmod(0o640)
    (tmp_path / "talk.json").symlink_to("real.json")

    session_file.save(talk(2), tmp_path / "talk.json")

    assert (tmp_path / "talk.json").is_symlink()
    assert (tmp_path / "real.json").stat().st_mode & 0o777 == 0o640
    assert session_file.load(tmp_path / "real.json") == talk(2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real.json", "talk.json"]
