"""The prompt format of Vicuna 1.1 to 1.5."""

from llamakit import hookimpl
from llamakit.llama.dialog_checks import check_tags, check_turns

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
TAGS = ("USER:", "ASSISTANT:")


class VicunaFormat:
    """``SYSTEM USER: question ASSISTANT: answer</s>USER: question ASSISTANT:``, with BOS before.

    Source: the conversation template ``vicuna_v1.1`` in FastChat's ``fastchat/conversation.py``.
    """

    def __init__(self, tokenizer, system):
        self._tokenizer = tokenizer
        self._system = system
        self.stop_tokens = (tokenizer.eos_id,)

    def encode(self, dialog):
        """Return the prompt that asks for the next assistant message.

        Every finished pair is encoded on its own: what ends it is the token of EOS, and no text.

        Raises:
            SpecialTagError: a message's text holds one of the tags.
            DialogError: not system (once, first), then user and assistant in turn, user last.
        """
        check_tags(dialog, TAGS, "vicuna")
        begins_with_system = bool(dialog) and dialog[0]["role"] == "system"
        system = dialog[0]["content"] if begins_with_system else self._system
        messages = list(dialog[1:] if begins_with_system else dialog)
        check_turns(messages, "vicuna")
        lead, tokens = f"{system.strip()} ", []
        for user, answer in zip(messages[:-1:2], messages[1::2], strict=True):
            text = f"{lead}{_question(user)} {answer['content'].strip()}"
            tokens += self._tokenizer.encode(text, bos=not tokens, eos=True)
            lead = ""
        return tokens + self._tokenizer.encode(lead + _question(messages[-1]), bos=not tokens)


def vicuna(tokenizer, system: str = SYSTEM):
    """Encode a dialog as Vicuna was trained on.

    Args:
        system: what a dialog without a system message begins with.
    """
    if any(tag in system for tag in TAGS):
        raise ValueError(f"system holds a tag of the format, {' or '.join(TAGS)}")
    return VicunaFormat(tokenizer, system)


def _question(message):
    return f"USER: {message['content'].strip()} ASSISTANT:"


@hookimpl
def register_prompt_formats(formats):
    """Offer ``vicuna``."""
    formats.register("vicuna", vicuna, help="USER: … ASSISTANT: …, of Vicuna 1.1 to 1.5")
