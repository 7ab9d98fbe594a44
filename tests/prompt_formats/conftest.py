"""Small tokenizers with the pieces that prompt formats write, and a process for chat templates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from llamakit.convert.hf_tokenizer import tokenizer_json
from llamakit.convert.sentencepiece_model import read_sentencepiece_model
from llamakit.plugins.prompt_formats.jinja.renderer import Renderer
from llamakit.tokenizer.sentencepiece import SentencePieceTokenizer, load

TEXT = [
    "Once upon a time there was a little shard that wanted to be whole.",
    "def answer(question): return question.strip().upper()  # what is asked",
    "system user assistant: the model answers in one sentence, and then it stops.",
    "### Instruction: write. ### Response: [INST] <<SYS>> <|user|> im_start im_end",
]
CHATML = ["<|im_start|>", "<|im_end|>"]
INFILL = ["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"]
LLAMA3 = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]

Train = Callable[..., SentencePieceTokenizer]


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train a tokenizer as Llama 2's, with further pieces."""

    def make(control: list[str], user_defined: tuple[str, ...] = ()) -> SentencePieceTokenizer:
        folder = tmp_path_factory.mktemp("tokenizer")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXT * 20),
            model_prefix=str(folder / "tokenizer"),
            model_type="bpe",
            vocab_size=420 + len(control) + len(user_defined),
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            hard_vocab_limit=False,
            control_symbols=control,
            user_defined_symbols=list(user_defined),
            minloglevel=2,
        )
        return load(folder / "tokenizer.model")

    return make


@pytest.fixture(scope="session")
def plain_tokenizer(reference_cases: Path) -> SentencePieceTokenizer:
    """A tokenizer with no control pieces but Llama 2's own."""
    return load(reference_cases / "tokenizer.model")


@pytest.fixture(scope="session")
def rich_tokenizer(train: Train) -> SentencePieceTokenizer:
    """A tokenizer with control pieces of several families."""
    return train([*CHATML, *INFILL, *LLAMA3])


@pytest.fixture(scope="session")
def judge(rich_tokenizer: SentencePieceTokenizer) -> Any:
    """The same tokenizer as transformers has it."""
    import tokenizers
    import transformers

    content = tokenizer_json(read_sentencepiece_model(rich_tokenizer.path))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(json.dumps(content)),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    """One for the tests of a file."""
    one = Renderer()
    yield one
    one.close()
