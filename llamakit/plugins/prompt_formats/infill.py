"""Code Llama's infilling: what is between a prefix and a suffix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llamakit import hookimpl
from llamakit.errors import DialogError, PromptError, SpecialTagError, TokenizerError

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import Dialog, PromptFormat, PromptFormatFactory, Tokenizer

MARKER = "<FILL_ME>"
PREFIX, SUFFIX, MIDDLE, END = "▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"
BLANK = "☺"
"""Takes the space that SentencePiece puts before a string; its tokens are removed again."""


class InfillFormat:
    """BOS ``<PRE>`` prefix ``<SUF>`` suffix ``<MID>``; the answer is the middle, up to ``<EOT>``.

    Args:
        suffix_first: BOS ``<PRE>`` ``<SUF>`` suffix ``<MID>`` prefix.
    Source: ``infilling_prompt_tokens`` in ``llama/generation.py`` of
        https://github.com/meta-llama/codellama, and its paper, https://arxiv.org/abs/2308.12950
    """

    keeps_space = True

    def __init__(self, tokenizer: Tokenizer, suffix_first: bool, marker: str) -> None:
        if not marker:
            raise ValueError("marker is empty; it is the text at whose place to fill in")
        self._tokenizer = tokenizer
        self._suffix_first = suffix_first
        self._marker = marker
        tags = _control_ids(tokenizer)
        self._prefix, self._suffix, self._middle, end = tags
        self._control = {*tags, tokenizer.bos_id, tokenizer.eos_id}
        self._blank = tokenizer.encode(BLANK)
        self.stop_tokens = (end, tokenizer.eos_id)

    def encode(self, dialog: Dialog) -> list[int]:
        """Return the prompt of the only message, which holds the marker once.

        Raises:
            DialogError: there is more than the user's message.
            PromptError: the marker is missing, or there are several.
        """
        if [message["role"] for message in dialog] != ["user"]:
            raise DialogError(
                f"the infill format answers one user message, a string with {self._marker} in it, "
                f"and this dialog has {len(dialog)} messages: in a chat, /reset before each"
            )
        return self.encode_text(dialog[0]["content"])

    def encode_text(self, text: str) -> list[int]:
        """Return the prompt for a string with the marker where to fill in.

        Raises:
            PromptError: the marker is missing, or there are several.
            SpecialTagError: the tokenizer makes a control token of the text.
        """
        if (count := text.count(self._marker)) != 1:
            raise PromptError(
                f"the infill format wants {self._marker} once, where to fill in, and the text has "
                f"it {count} times"
            )
        prefix, _, suffix = text.partition(self._marker)
        return self.encode_gap(prefix, suffix)

    def encode_gap(self, prefix: str, suffix: str) -> list[int]:
        """Return the prompt for what is between two strings.

        Raises:
            SpecialTagError: the tokenizer makes a control token of the text.
        """
        before, after = self._encode(prefix), self._encode_bare(suffix)
        head = [self._tokenizer.bos_id, self._prefix]
        if self._suffix_first:
            return [*head, self._suffix, *after, self._middle, *before]
        return [*head, *before, self._suffix, *after, self._middle]

    def _encode_bare(self, text: str) -> list[int]:
        """Encode without the space that SentencePiece puts before a string."""
        return self._encode(BLANK + text)[len(self._blank) :]

    def _encode(self, text: str) -> list[int]:
        tokens = self._tokenizer.encode(text)
        if not self._control.isdisjoint(tokens):
            raise SpecialTagError(
                "the text holds a tag of the infill format, which this tokenizer makes a control "
                "token of: write it in another way"
            )
        return tokens


def _control_ids(tokenizer: Tokenizer) -> list[int]:
    special: Mapping[str, int] = getattr(tokenizer, "special_ids", dict)()
    missing = [piece for piece in (PREFIX, SUFFIX, MIDDLE, END) if piece not in special]
    if missing:
        raise TokenizerError(
            f"{tokenizer.path} has no piece {missing[0]}: it is not the tokenizer of a Code Llama "
            "that fills in (7B, 13B and 70B, not the Python ones), which the infill format is for"
        )
    return [special[piece] for piece in (PREFIX, SUFFIX, MIDDLE, END)]


@hookimpl
def register_prompt_formats(formats: Registrar[PromptFormatFactory]) -> None:
    """Offer ``infill``."""

    def infill(
        tokenizer: Tokenizer, suffix_first: bool = False, marker: str = MARKER
    ) -> PromptFormat:
        """Encode a string that is to be filled in at a marker, as Code Llama was trained on.

        Args:
            suffix_first: put the suffix before the prefix (SPM), and not behind it (PSM).
            marker: what is in the text where to fill in.
        """
        return InfillFormat(tokenizer, suffix_first, marker)

    formats.register("infill", infill, help="text before and after a gap, of Code Llama")
