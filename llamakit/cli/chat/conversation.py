"""The dialog so far; a prompt leaves out its oldest exchanges when the context is full."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llamakit.errors import PromptTooLongError
from llamakit.protocols import Message


@dataclass
class Conversation:
    """A system message, if there is one, and exchanges of user and assistant.

    Args:
        system: in every prompt.
        messages: user and assistant in turn; the last is an answer.
    """

    system: str | None = None
    messages: list[Message] = field(default_factory=list)

    def dialog(self, messages: Sequence[Message] | None = None) -> list[Message]:
        """Return the messages, its own if None are given, after the system's."""
        messages = self.messages if messages is None else messages
        if self.system is None:
            return list(messages)
        return [{"role": "system", "content": self.system}, *messages]

    def questions(self) -> list[Message]:
        """Return the messages up to the last question, without its answer."""
        return self.messages[:-1]

    def asked(self, text: str) -> list[Message]:
        """Return the messages and a question; the conversation has it once it is answered."""
        return [*self.messages, {"role": "user", "content": text}]

    def answer(self, asked: Sequence[Message], text: str) -> None:
        """Keep what was asked, and the assistant's answer."""
        self.messages = [*asked, {"role": "assistant", "content": text}]

    def reset(self) -> None:
        """Forget all exchanges; the system message stays."""
        self.messages = []

    def undo(self) -> bool:
        """Forget the last exchange; return whether there was one."""
        had_one = bool(self.messages)
        self.messages = self.messages[:-2]
        return had_one

    def fit(
        self,
        asked: Sequence[Message],
        encode: Callable[[Sequence[Message]], list[int]],
        max_tokens: int,
    ) -> tuple[list[int], int]:
        """Encode messages, without as many of the oldest exchanges as have to go to fit.

        Args:
            asked: exchanges, and a question at the end.
            encode: turns a dialog into tokens.
            max_tokens: how many tokens it may have.
        Returns:
            The tokens, and how many exchanges are left out.
        Raises:
            PromptTooLongError: the last message alone, with the system's, does not fit.
        """

        def encoded(dropped: int) -> list[int]:
            return encode(self.dialog(asked[2 * dropped :]))

        if len(tokens := encoded(0)) <= max_tokens:
            return tokens, 0
        exchanges = len(asked) // 2
        fits = range(exchanges + 1)
        dropped = bisect_left(fits, True, lo=1, key=lambda it: len(encoded(it)) <= max_tokens)
        tokens = encoded(min(dropped, exchanges))
        if dropped > exchanges:
            raise PromptTooLongError(
                f"the message has {len(tokens)} tokens and there is room for {max_tokens}: "
                "shorten it, or start again with a larger --max-seq-len"
            )
        return tokens, dropped
