"""``/tokenizer_info``: the tokenizer as a tokenizer_config.json describes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llamakit.convert.chat_template import header_template, llama2_template
from llamakit.llama.llama import Llama
from llamakit.protocols import PromptFormat
from llamakit.serve.special_text import SpecialText
from llamakit.tokenizer.rank_tokenizer import RankTokenizer


def describe_tokenizer(
    llama: Llama, special: SpecialText, name: str, prompt_format: PromptFormat
) -> dict[str, Any]:
    """Describe the tokenizer as a tokenizer_config.json does; lm-eval's remote tokenizer reads it.

    Args:
        name: of the prompt format that dialogs are written with.
    """
    tokenizer, names = llama.tokenizer, special.names
    ends = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id}
    ends["pad"] = getattr(tokenizer, "pad_id", -1)
    template = getattr(prompt_format, "chat_template", None) or _own_template(llama, name, names)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{end}_token": names.get(token) for end, token in ends.items()},
        **{f"{end}_token_id": token if token in names else None for end, token in ends.items()},
        "additional_special_tokens": [
            text for token, text in names.items() if token not in ends.values()
        ],
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": template,
        "model_max_length": llama.max_seq_len,
        "vocab_size": tokenizer.vocab_size,
    }


def _own_template(llama: Llama, name: str, names: Mapping[int, str]) -> str | None:
    """Return a chat template that writes what a prompt format does, if there is one.

    It says itself what its tokens are called: lm-eval renders it without.
    """
    tokenizer = llama.tokenizer
    if name == "llama2":
        bos, eos = (json.dumps(names.get(it, "")) for it in (tokenizer.bos_id, tokenizer.eos_id))
        return f"{{%- set bos_token, eos_token = {bos}, {eos} %}}\n{llama2_template()}"
    if isinstance(tokenizer, RankTokenizer) and name == tokenizer.prompt_format:
        first = len(tokenizer.ranks)
        bos = json.dumps(names[tokenizer.bos_id])
        by_offset = {token - first: text for token, text in names.items()}
        template = header_template(tokenizer.special, by_offset)
        return f"{{%- set bos_token = {bos} %}}\n{template}"
    return None
