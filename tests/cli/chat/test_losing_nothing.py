"""Whatever goes wrong with an answer, the dialog before it stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llamakit import demo
from llamakit.api import Llama
from llamakit.cli.chat import repl, session_file
from llamakit.cli.chat.answer_settings import AnswerSettings
from llamakit.cli.chat.chat import Chat
from llamakit.cli.chat.conversation import Conversation
from llamakit.errors import NonFiniteError
from llamakit.runtime.sampling_pipeline import Sampling

QUESTION = {"role": "user", "content": "What is a shard?"}
ANSWER = {"role": "assistant", "content": "One file of a checkpoint."}


@dataclass(frozen=True)
class FailingSettings(AnswerSettings):
    """Settings whose sampler takes the likeliest token a few times, then raises."""

    tokens: int = 0
    error: BaseException = field(default_factory=KeyboardInterrupt)

    def build(self, *_: object) -> Sampling:
        steps = iter(range(self.tokens))

        def sampler(logits, rows):
            if next(steps, None) is None:
                raise self.error
            return logits.argmax(-1)

        return Sampling(sampler)


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    with Llama.build(str(demo.path()), max_seq_len=128, dtype="float32") as llama:
        yield llama


@pytest.fixture
def chat(llama: Llama) -> Chat:
    conversation = Conversation(None, [QUESTION, ANSWER])
    return Chat(llama, llama.prompt_format(), conversation, AnswerSettings())


FAILURES = [KeyboardInterrupt(), NonFiniteError("NaN"), MemoryError(), SystemExit(143)]


@pytest.mark.parametrize("error", FAILURES, ids=lambda it: type(it).__name__)
@pytest.mark.parametrize("line", ["What is a checkpoint?", "/retry"])
def test_an_answer_that_fails_before_its_first_token_changes_nothing(
    chat: Chat, error: BaseException, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chat.change(FailingSettings(error=error))

    with pytest.raises(type(error)):
        repl.handle(chat, line)

    assert chat.conversation.messages == [QUESTION, ANSWER]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("error", FAILURES, ids=lambda it: type(it).__name__)
def test_what_was_written_before_a_failure_is_the_answer_and_its_line_ends(
    chat: Chat, error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    chat.change(FailingSettings(tokens=4, error=error))

    with pytest.raises(type(error)):
        repl.handle(chat, "What is a checkpoint?")

    written = capsys.readouterr().out
    *before, question, answer = chat.conversation.messages
    assert before == [QUESTION, ANSWER]
    assert question["content"] == "What is a checkpoint?"
    assert written == f"{answer['content']}\n"


def test_a_retry_that_fails_keeps_the_answer_that_is_complete(
    chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    chat.change(FailingSettings(tokens=4))

    with pytest.raises(KeyboardInterrupt):
        repl.handle(chat, "/retry")

    assert chat.conversation.messages == [QUESTION, ANSWER]
    assert capsys.readouterr().out.endswith("\n")


@pytest.mark.parametrize("content", [None, "{", "[]", b"\xff\xfe"])
def test_a_chat_that_cannot_be_loaded_leaves_the_dialog(
    chat: Chat, content: str | bytes | None, tmp_path: Path
) -> None:
    file = tmp_path / "talk.json"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(Exception, match=r"talk\.json"):
        repl.handle(chat, f"/load {file}")

    assert chat.conversation.messages == [QUESTION, ANSWER]


def test_saving_on_a_full_disk_leaves_the_dialog_and_the_file_before(
    chat: Chat, small_disk: Callable[..., Path]
) -> None:
    file = small_disk(8 << 10) / "talk.json"
    session_file.save(chat.conversation, file)
    chat.conversation.answer(chat.conversation.asked("more"), "word " * 2000)

    with pytest.raises(OSError, match=r"No space left on device.*talk\.json"):
        repl.handle(chat, f"/save {file}")

    assert len(chat.conversation.messages) == 4
    assert session_file.load(file).messages == [QUESTION, ANSWER]
