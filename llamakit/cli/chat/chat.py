"""A chat with a model: generates answers and keeps the conversation."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamakit.cli.chat.answer_settings import AnswerSettings
from llamakit.cli.chat.conversation import Conversation
from llamakit.cli.chat.line_reader import say, write
from llamakit.llama.seeds import Seeds

if TYPE_CHECKING:
    from llamakit.api import Llama
    from llamakit.protocols import Drafter, Message, PromptFormat


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
        self.saved = conversation.messages
        """The messages that a file has."""
        self.drafter: Drafter | None = None
        self._format = prompt_format
        self._left_out = 0
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

    def ask(self, text: str) -> None:
        """Answer a message; what is written before Ctrl-C or an error is the answer, too.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            LlamakitError: the message is refused, or the answer failed.
        """
        asked, pieces = self.conversation.asked(text), list[str]()
        try:
            self._reply(asked, pieces)
        except BaseException:
            self._keep(asked, pieces)
            raise

    def retry(self) -> bool:
        """Write the last answer again, and keep it if it is complete. Raises as ``ask``.

        Returns:
            Whether there is one.
        """
        if asked := self.conversation.questions():
            self._reply(asked, [])
        return bool(asked)

    def _reply(self, asked: Sequence[Message], pieces: list[str]) -> None:
        """Answer the last message, and keep both; ``pieces`` gets what is written meanwhile."""
        tokens = self._encode(asked)
        try:
            finish = self._write(tokens, pieces)
        except BaseException:
            if any(pieces):
                write("\n")
            raise
        write("\n")
        if not self._keep(asked, pieces):
            say("the model wrote nothing, so the dialog is as it was")
        elif finish == "length" and self.settings.max_new_tokens is None:
            say("the context is full: the answer ends here (--max-seq-len makes it larger)")

    def _keep(self, asked: Sequence[Message], pieces: Sequence[str]) -> bool:
        """Put an answer into the conversation; return whether there is one."""
        if answer := "".join(pieces).strip():
            self.conversation.answer(asked, answer)
        return bool(answer)

    def _encode(self, asked: Sequence[Message]) -> list[int]:
        max_tokens = self.llama.max_seq_len - self._answer_tokens()
        tokens, left_out = self.conversation.fit(asked, self._format.encode, max_tokens)
        if left_out > self._left_out:
            exchanges = "exchange is" if left_out == 1 else f"{left_out} exchanges are"
            say(
                f"the context is full: the oldest {exchanges} left out of the prompt; the dialog "
                "keeps them"
            )
        self._left_out = left_out
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
                pieces.append(chunk.text)
                write(chunk.text)
                finish = chunk.finish
                drafted, accepted = chunk.drafted, chunk.accepted
        self.drafted += drafted
        self.accepted += accepted
        return finish
