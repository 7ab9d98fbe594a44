"""The tokenizer, as ``llama_models/llama3/tokenizer.py`` spells it."""

from __future__ import annotations

import os

from llamakit.api import load_tokenizer
from llamakit.errors import TokenizerError
from llamakit.llama import tokenizer as plain
from llamakit.protocols import Tokenizer as AnyTokenizer

_PAD = "<|finetune_right_pad_id|>"


class Tokenizer(plain.Tokenizer):
    """A tokenizer, with the padding token of Llama 3.1 and later as ``pad_id``."""

    @classmethod
    def get_instance(cls) -> Tokenizer:
        """Load the tokenizer of the model that the environment names in ``LLAMAKIT_MODEL``.

        Meta's package brings a tokenizer along; llamakit has none but its models'.

        Raises:
            TokenizerError: the environment names no model.
        """
        model = os.environ.get("LLAMAKIT_MODEL")
        if not model:
            raise TokenizerError(
                "Tokenizer.get_instance() takes the tokenizer of the model that the environment "
                "names in LLAMAKIT_MODEL, and it names none: set it to a model's folder, or write "
                'Tokenizer("tokenizer.model"), or take Llama3.build(...).tokenizer'
            )
        return cls.of(load_tokenizer(os.path.expanduser(model)))  # noqa: PTH111 - as the shell's ~

    def _wrap(self, tokenizer: AnyTokenizer) -> None:
        super()._wrap(tokenizer)
        self.pad_id = self.special_tokens.get(_PAD, self.pad_id)
