"""A chat with a model: generates the answer to the last message and keeps the conversation."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

from llamakit.cli.chat.answer_settings import AnswerSettings
from llamakit.cli.chat.conversation import Conversation
from llamakit.cli.chat.line_reader import say, write
from llamakit.errors import LlamakitError
from llamakit.llama.seeds import Seeds

if TYPE_CHECKING:
    from llamakit.api import Llama
    from llamakit.protocols import Drafter, PromptFormat


class Chat:
    """A conversation with a model.

    Args:
        prompt_format: encodes the dialog as tokens.
    """

    def __init__(
        self,
        llama: Llama,
        prompt_format: PromptFormat,
        conversation: Conversation,
        settings: AnswerSettings,
    ) -> None:
        self.llama = llama
        self.conversation = conversation
        self.drafter: Drafter | None = None
        self._format = prompt_format
        self.drafted = self.accepted = 0
        self.change(settings)

    def change(self, settings: AnswerSettings) -> None:
        """Use other settings for the next answers.

        Raises:
            LlamakitError: a sampler or processor cannot be built; nothing is changed then.
        """
        self._sampling = settings.build(self.llama.toolkit, self.llama.tokenizer)
        self.settings = settings
        self._seeds = Seeds(secrets.randbits(31) if settings.seed is None else settings.seed)

    def reply(self) -> None:
        """Answer the last message; Ctrl-C stops the answer and keeps what was written."""
        try:
            tokens = self._encode()
        except LlamakitError:
            self.conversation.undo()
            raise
        pieces: list[str] = []
        try:
            finish = self._write(tokens, pieces)
        except KeyboardInterrupt:
            write("\n")
            say("stopped")
        except LlamakitError:
            self.conversation.undo()
            raise
        else:
            write("\n")
            if finish == "length" and self.settings.max_new_tokens is None:
                say("the context is full: the answer ends here (--max-seq-len makes it larger)")
        if answer := "".join(pieces).strip():
            self.conversation.answer(answer)
        else:
            self.conversation.undo()

    def _encode(self) -> list[int]:
        max_tokens = self.llama.max_seq_len - self._answer_tokens()
        tokens, dropped = self.conversation.fit(self._format.encode, max_tokens)
        if dropped:
            exchanges = "exchange was" if dropped == 1 else f"{dropped} exchanges were"
            say(f"the context is full: the oldest {exchanges} dropped")
        return tokens

    def _answer_tokens(self) -> int:
        """How many tokens are reserved for the answer: max_new_tokens, at most a quarter."""
        quarter = self.llama.max_seq_len // 4
        return max(1, min(self.settings.max_new_tokens or quarter, quarter))

    def _write(self, tokens: list[int], pieces: list[str]) -> str | None:
        finish: str | None = None
        chunks = self.llama.stream(
            [tokens],
            sampling=self._sampling,
            max_new_tokens=self.settings.max_new_tokens,
            seeds=self._seeds.of([tokens], None),
            stop=getattr(self._format, "stop_strings", ()),
            stop_tokens=self.llama.stop_tokens.union(self._format.stop_tokens),
            draft=self.drafter,
            keep_space=getattr(self._format, "keeps_space", False),
        )
        drafted = accepted = 0
        with contextlib.closing(chunks):
            for chunk in chunks:
                write(chunk.text)
                pieces.append(chunk.text)
                finish = chunk.finish
                drafted, accepted = chunk.drafted, chunk.accepted
        self.drafted += drafted
        self.accepted += accepted
        return finish
