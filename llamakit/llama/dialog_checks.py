"""Checks of a dialog that prompt formats share: no tags in its text, and whose turn it is."""

from __future__ import annotations

from collections.abc import Sequence

from llamakit.errors import DialogError, SpecialTagError
from llamakit.protocols import Dialog, Message


def check_tags(dialog: Dialog, tags: Sequence[str], format_name: str) -> None:
    """Refuse messages that hold a tag of a format whose tags are text.

    Raises:
        SpecialTagError: one holds a tag.
    """
    for number, message in enumerate(dialog, start=1):
        for tag in tags:
            if tag in message["content"]:
                raise SpecialTagError(
                    f"message {number} ({message['role']}) holds {tag}, a tag of the {format_name} "
                    "format: the model would take it for the end or the beginning of a turn; "
                    "write it in another way"
                )


def check_turns(messages: Sequence[Message], format_name: str) -> None:
    """Refuse what is not user and assistant in turn, the user last.

    Args:
        messages: without the system message.

    Raises:
        DialogError: another role comes, or the dialog ends with the assistant or is empty.
    """
    for number, message in enumerate(messages):
        expected = "assistant" if number % 2 else "user"
        if message["role"] != expected:
            article = "an" if message["role"] == "assistant" else "a"
            raise DialogError(
                f"{article} {message['role']} message comes where the {format_name} format expects "
                f"the {expected}'s: first an optional system message, then user and assistant in "
                "turn"
            )
    if len(messages) % 2 == 0:
        raise DialogError("the dialog has to end with a user message, the one to be answered")
