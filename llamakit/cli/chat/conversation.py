"""The dialog so far; its oldest exchanges are dropped when the context is full."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llamakit.errors import PromptTooLongError
from llamakit.protocols import Message


@dataclass
class Conversation:
    """A system message, if there is one, and exchanges of user and assistant.

    Args:
        system: never dropped.
        messages: user and assistant in turn, the user first.
    """

    system: str | None = None
    messages: list[Message] = field(default_factory=list)

    def dialog(self) -> list[Message]:
        """Return all messages, the system's first."""
        if self.system is None:
            return list(self.messages)
        return [{"role": "system", "content": self.system}, *self.messages]

    def ask(self, text: str) -> None:
        """Add the user's message."""
        self.messages.append({"role": "user", "content": text})

    def answer(self, text: str) -> None:
        """Add the assistant's message."""
        self.messages.append({"role": "assistant", "content": text})

    def reset(self) -> None:
        """Forget all exchanges; the system message stays."""
        self.messages.clear()

    def undo(self) -> bool:
        """Forget the last exchange; return whether there was one."""
        if not self.messages:
            return False
        del self.messages[-2 if self.messages[-1]["role"] == "assistant" else -1 :]
        return True

    def remove_last_answer(self) -> bool:
        """Forget the last answer, not its question; return whether there was one."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            return False
        self.messages.pop()
        return True

    def fit(
        self, encode: Callable[[Sequence[Message]], list[int]], max_tokens: int
    ) -> tuple[list[int], int]:
        """Encode the dialog, dropping the oldest exchanges until it fits.

        Args:
            encode: turns a dialog into tokens.
            max_tokens: how many tokens it may have.
        Returns:
            The tokens, and how many exchanges were dropped.
        Raises:
            PromptTooLongError: the last message alone, with the system's, does not fit.
        """
        dropped = 0
        while len(tokens := encode(self.dialog())) > max_tokens:
            if len(self.messages) < 3:
                raise PromptTooLongError(
                    f"the message has {len(tokens)} tokens and there is room for {max_tokens}: "
                    "shorten it, or start again with a larger --max-seq-len"
                )
            del self.messages[:2]
            dropped += 1
        return tokens, dropped
