"""A chat computes only what a turn adds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from llamakit import demo
from llamakit.api import Llama
from llamakit.cli.chat import repl
from llamakit.cli.chat.answer_settings import AnswerSettings
from llamakit.cli.chat.chat import Chat
from llamakit.cli.chat.conversation import Conversation
from llamakit.runtime.executor import Executor
from llamakit.runtime.model import Batch


class Counted:
    """A chat with the bundled demo model, and how many tokens each turn has computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.llama = Llama.build(str(demo.path()), max_seq_len=400, dtype="float32")
        settings = AnswerSettings(temperature=0.0, max_new_tokens=8)
        self.chat = Chat(self.llama, self.llama.prompt_format(), Conversation(), settings)
        self.computed = 0
        forward = Executor.forward

        def count(executor: Executor, cache: int, batch: Batch) -> torch.Tensor:
            self.computed += sum(map(len, batch.tokens))
            return forward(executor, cache, batch)

        monkeypatch.setattr(Executor, "forward", count)

    def take(self, line: str) -> int:
        """Type a line; return how many tokens were computed for it."""
        self.computed = 0
        repl.handle(self.chat, line)
        return self.computed

    def prompt_length(self) -> int:
        """How many tokens the dialog before the last answer has."""
        dialog: Any = self.chat.conversation.dialog()[:-1]
        return len(self.llama.prompt_format().encode(dialog))

    def afresh(self) -> str:
        """Return the last answer as it is when nothing is kept."""
        self.llama.forget()
        dialog = self.chat.conversation.dialog()[:-1]
        return "".join(self.llama.stream_chat(dialog, temperature=0, max_new_tokens=8))


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    counted = Counted(monkeypatch)
    yield counted
    counted.llama.close()


def test_a_turn_computes_only_what_it_adds(talk: Counted) -> None:
    talk.take("How do I verify a checkpoint that I have downloaded from somewhere?")
    before = talk.prompt_length()

    computed = talk.take("What is a shard?")

    assert computed < talk.prompt_length() - before + 8 + 1
    assert talk.chat.conversation.messages[-1]["content"] == talk.afresh().strip()


def test_retry_computes_one_token_of_the_prompt(talk: Counted) -> None:
    talk.take("How do I verify a checkpoint?")
    answer = talk.chat.conversation.messages[-1]["content"]

    assert talk.take("/retry") <= 8
    assert talk.chat.conversation.messages[-1]["content"] == answer


def test_undo_goes_back_to_what_is_known(talk: Counted) -> None:
    talk.take("How do I verify a checkpoint?")
    talk.take("What is a shard?")
    talk.take("/undo")
    talk.take("/undo")

    computed = talk.take("How do I verify a shard, please?")

    assert computed < talk.prompt_length() - 4 + 8
    assert talk.chat.conversation.messages[-1]["content"] == talk.afresh().strip()


def test_after_reset_another_dialog_is_answered_as_in_a_new_chat(talk: Counted) -> None:
    talk.take("How do I verify a checkpoint?")
    talk.take("/reset")

    talk.take("What is a shard?")

    assert talk.chat.conversation.messages[-1]["content"] == talk.afresh().strip()
