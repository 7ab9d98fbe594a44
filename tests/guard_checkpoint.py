"""A small Llama 3 that answers as a Llama Guard does: always the same word."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
from pth_files import save_pth

from llamakit.api import load_tokenizer, open_checkpoint

LLAMA_3 = Path(__file__).parent / "data" / "reference-cases-llama3" / "llama3-gqa-mp1"
"""Random weights: a Llama 3 that is no Llama Guard."""

LOGIT_OF_NEXT = 12
"""Of the token that follows, where all others have 0: a probability of 0.99."""


def write_guard(folder: Path, answer: str) -> Path:
    """Write a checkpoint whose greedy answer to any dialog is ``answer``, and return its folder.

    Its layers add nothing, so that a token alone says which one follows.
    """
    folder.mkdir()
    shutil.copy(LLAMA_3 / "params.json", folder)
    shutil.copy(LLAMA_3.parent / "tokenizer.model", folder)
    tokenizer = load_tokenizer(folder / "tokenizer.model")
    (header_end,) = tokenizer.encode("\n\n", bos=False, eos=False)
    end = tokenizer.special_tokens["<|eot_id|>"]
    checkpoint = open_checkpoint(LLAMA_3)
    arrays = {name: np.zeros_like(checkpoint.read(name)) for name in checkpoint.parameters}
    arrays["norm.weight"][:] = 1
    scale = LOGIT_OF_NEXT / checkpoint.params.dim**0.5  # RMSNorm makes 1 of 64 values 8
    tokens = [header_end, *tokenizer.encode(answer, bos=False, eos=False), end]
    for axis, (token, following) in enumerate(pairwise(tokens)):
        arrays["tok_embeddings.weight"][token, axis] = 1
        arrays["output.weight"][following, axis] = scale
    save_pth(arrays, folder / "consolidated.00.pth")
    return folder
