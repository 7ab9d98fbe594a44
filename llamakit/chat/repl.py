"""The loop of a chat: read, answer, remember."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

from llamakit.chat import commands
from llamakit.chat.conversation import Conversation
from llamakit.chat.settings import Settings
from llamakit.chat.terminal import open_terminal, say, write
from llamakit.drafters import drafts_summary
from llamakit.errors import LlamakitError
from llamakit.seeds import Seeds

if TYPE_CHECKING:
    from llamakit.api import Llama
    from llamakit.protocols import Drafter, PromptFormat


class Chat:
    """A conversation with a model.

    Args:
        prompt_format: dialog to ids.
    """

    def __init__(
        self,
        llama: Llama,
        prompt_format: PromptFormat,
        conversation: Conversation,
        settings: Settings,
    ) -> None:
        self.llama = llama
        self.conversation = conversation
        self.drafter: Drafter | None = None
        self._format = prompt_format
        self._drafted = self._accepted = 0
        self.change(settings)

    def change(self, settings: Settings) -> None:
        """Write the next answers in another way.

        Raises:
            LlamakitError: what cannot be built; nothing is changed then.
        """
        self._sampling = settings.sampling(self.llama.toolkit, self.llama.tokenizer)
        self.settings = settings
        self._seeds = Seeds(secrets.randbits(31) if settings.seed is None else settings.seed)

    def run(self) -> None:
        """Talk until the user has had enough."""
        self._talk()
        if self.drafter is not None:
            say(drafts_summary(self._drafted, self._accepted))

    def _talk(self) -> None:
        terminal = open_terminal([f"/{name}" for name in commands.COMMANDS])
        while True:
            try:
                line = terminal.read()
            except KeyboardInterrupt:
                say("Ctrl-D or /quit ends the chat")
                continue
            except EOFError:
                return
            try:
                self.take(line)
            except EOFError:
                return
            except (LlamakitError, OSError) as error:
                say(str(error))

    def take(self, line: str) -> None:
        """Carry out a command, or answer a message.

        Raises:
            LlamakitError: it could not be done; the conversation is as it was before.
            EOFError: the user has had enough.
        """
        if line.startswith("/"):
            commands.run(self, line)
        elif line.strip():
            self.conversation.ask(line)
            self.reply()

    def reply(self) -> None:
        """Write an answer to the last message; Ctrl-C stops it and keeps what is written."""
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
        room = self.llama.max_seq_len - self._answer_room()
        tokens, dropped = self.conversation.fit(self._format.encode, room)
        if dropped:
            what = "exchange was" if dropped == 1 else f"{dropped} exchanges were"
            say(f"the context is full: the oldest {what} dropped")
        return tokens

    def _answer_room(self) -> int:
        """How many ids are kept free for the answer: what is asked, at most a quarter."""
        quarter = self.llama.max_seq_len // 4
        return max(1, min(self.settings.max_new_tokens or quarter, quarter))

    def _write(self, tokens: list[int], pieces: list[str]) -> str | None:
        finish: str | None = None
        chunks = self.llama.stream(
            [tokens],
            sampling=self._sampling,
            max_new_tokens=self.settings.max_new_tokens,
            seeds=self._seeds.of([tokens], None),
            stop_tokens=self._format.stop_tokens,
            draft=self.drafter,
        )
        drafted = accepted = 0
        with contextlib.closing(chunks):
            for chunk in chunks:
                write(chunk.text)
                pieces.append(chunk.text)
                finish = chunk.finish
                drafted, accepted = chunk.drafted, chunk.accepted
        self._drafted += drafted
        self._accepted += accepted
        return finish
