"""What people brought to tools that do this job, made again as small inputs.

Each test is called ``test_case_NN_…`` after its number in the table of FIELD-CASES:

====  ==================================================================  =======================
case  what was brought                                                    file
====  ==================================================================  =======================
01    ``tie_word_embeddings``, and an ``lm_head.weight`` that differs     test_stored_output_layer
02    a tied model, imported and exported to other layouts                test_stored_output_layer
03    a tied model on two ranks                                           test_stored_output_layer
04    a fine-tune's ``tokenizer_config.json`` beside Meta's shards        test_tokens_of_fine_tunes
05    several stop tokens in ``generation_config.json``                   test_tokens_of_fine_tunes
06    matrices of integers or float8 without scales                       test_integer_weights
07    a link whose Policy contains ``%7E``                                test_mailed_links
09    ``WORLD_SIZE`` alone, or a rank that nobody joins                   test_lonely_ranks
10    training checkpoints and pickles that hold more than tensors        test_training_checkpoints
11    keys with the prefixes of torch.compile, DDP and FSDP               test_prefixes
12    RoPE scalings, and a Llama 2 with Llama 3's ``rope_theta``          test_rope_settings
====  ==================================================================  =======================

Case 08 (a drop-in replacement) is in ``tests/llama``, case 13 (chat requests) in ``tests/serve``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from llamakit.api import export


@pytest.fixture
def meta(reference_cases: Path, tmp_path: Path) -> Path:
    """A checkpoint in Meta's format with its tokenizer in the folder."""
    folder = tmp_path / "meta"
    shutil.copytree(reference_cases / "gqa-mp1", folder)
    shutil.copy(reference_cases / "tokenizer.model", folder)
    (folder / "checklist.chk").unlink()
    return folder


@pytest.fixture(scope="session")
def exported(reference_cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in Hugging Face's format, made once."""
    folder = tmp_path_factory.mktemp("exported") / "hf"
    tokenizer = reference_cases / "tokenizer.model"
    export(reference_cases / "gqa-mp1", folder, tokenizer=tokenizer)
    return folder


@pytest.fixture
def hf(exported: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed: without the record of what was written."""
    ignored = shutil.ignore_patterns("llamakit.json")
    return shutil.copytree(exported, tmp_path / "hf", ignore=ignored)
