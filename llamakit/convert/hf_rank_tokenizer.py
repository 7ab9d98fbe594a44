"""The tokenizer of Llama 3 and 4 as Hugging Face's files: tiktoken ranks as byte-level BPE.

From Meta's ``tokenizer.model`` they are, byte for byte, those of the hub's Llama 3.1 and later.
Strings become the same tokens, with two exceptions that the format imposes: the name of a special
token in a string becomes that token, and runs of over 25,000 characters are not split.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from llamakit.convert.chat_template import header_template
from llamakit.convert.hf_tokenizer_json import FLAGS, added_tokens, bos_template
from llamakit.tokenizer.added_tokens import AddedToken
from llamakit.tokenizer.byte_level import to_text
from llamakit.tokenizer.rank_tokenizer import RankTokenizer
from llamakit.tokenizer.special_tokens import LLAMA_3_1, LLAMA_3_1_HF, SpecialTokens

_SORTED_FLAGS = dict(sorted(FLAGS.items()))
_INDENT = 6 * " "


class RankParts:
    """The files that are made of ranks.

    Args:
        tokenizer: as the model uses it.
        instruct: an answer of the model ends where a turn does.
    """

    def __init__(self, tokenizer: RankTokenizer, *, instruct: bool) -> None:
        special = tokenizer.special
        self._ranks, self._special = tokenizer.ranks, special
        first = self.bos = len(self._ranks)
        names = LLAMA_3_1_HF.names if special is LLAMA_3_1 else special.names
        tokens = {
            first + offset: AddedToken(first + offset, name) for offset, name in enumerate(names)
        }
        theirs = {entry.content for entry in tokenizer.added}
        tokens = {token: entry for token, entry in tokens.items() if entry.content not in theirs}
        tokens |= {new.id: new for new in tokenizer.added}
        self._added = [tokens[token] for token in sorted(tokens)]
        stops = special.stops if instruct else (special.eos,)
        self.stops = [first + offset for offset in stops]
        # the end of a turn is an instruct model's end of a text
        bos, eos = tokens[first].content, tokens[self.stops[-1]].content
        self._ends = {"bos_token": bos, "eos_token": eos}
        self.template = header_template(
            special, {new.id - first: new.content for new in self._added}
        )

    def tokenizer_json(self) -> bytes:
        """Return the tokenizer.json."""
        return rank_tokenizer_json(self._ranks, self._added, self._special)

    def config(self, context: int) -> dict[str, object]:
        """Say what the tokenizer_config.json holds, a chat template aside."""
        return {
            "added_tokens_decoder": {
                str(entry.id): {"content": entry.content, **_SORTED_FLAGS, "special": entry.special}
                for entry in self._added
            },
            **self._ends,
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": context,
            "tokenizer_class": "PreTrainedTokenizerFast",
        }

    def special_tokens_map(self) -> dict[str, object]:
        """Say what the special_tokens_map.json holds."""
        return {name: {"content": entry, **_SORTED_FLAGS} for name, entry in self._ends.items()}


def rank_tokenizer_json(
    ranks: Sequence[bytes], added: Sequence[AddedToken], special: SpecialTokens
) -> bytes:
    """Return the tokenizer.json of ranks.

    Args:
        ranks: the bytes of each token.
        added: the tokens that follow, the beginning of a string first.
        special: the version's, for the pattern that splits strings.
    Source: what the tokenizers package writes, with merges as strings.
    """
    written = [to_text(token) for token in ranks]
    value: dict[str, object] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(added),
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": special.pattern},
                    "behavior": "Isolated",
                    "invert": False,
                },
                _byte_level(False, True, False),
            ],
        },
        "post_processor": _post_processor(added[0]),
        "decoder": _byte_level(True, True, True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {},
            "merges": [],
        },
    }
    text = json.dumps(value, ensure_ascii=False, indent=2)
    vocab = _lines({token: rank for rank, token in enumerate(written)})
    merges = _lines([f"{written[left]} {written[right]}" for left, right in _merges(ranks)])
    text = text.replace('"vocab": {}', f'"vocab": {vocab}').replace(
        '"merges": []', f'"merges": {merges}'
    )
    return text.encode()


def _lines(values: Mapping[str, int] | Sequence[str]) -> str:
    """Write a long list or object as ``indent=2`` has it, in half the memory."""
    if not values:
        return json.dumps(values)
    text = json.dumps(values, ensure_ascii=False, separators=(f",\n{_INDENT}", ": "))
    return f"{text[0]}\n{_INDENT}{text[1:-1]}\n    {text[-1]}"


def _merges(ranks: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yield the ranks of the two parts of each split of each token, in the order of ranks."""
    known: Mapping[bytes, int] = {token: rank for rank, token in enumerate(ranks)}
    for token in ranks:
        splits = ((token[:at], token[at:]) for at in range(1, len(token)))
        yield from sorted(
            (known[left], known[right])
            for left, right in splits
            if left in known and right in known
        )


def _byte_level(prefix: bool, trim: bool, regex: bool) -> dict[str, object]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": prefix,
        "trim_offsets": trim,
        "use_regex": regex,
    }


def _post_processor(bos: AddedToken) -> dict[str, object]:
    """Put the first token before a string, and before each of two."""
    processors = [_byte_level(True, False, True), bos_template(bos.content, bos.id)]
    return {"type": "Sequence", "processors": processors}
