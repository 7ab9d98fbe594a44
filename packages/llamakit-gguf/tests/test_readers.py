"""What transformers makes of the file: it reads the metadata and permutes the rows by itself."""

import numpy as np
import pytest
import torch
from conftest import Changed, made_of
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import llamakit
from llamakit.demo import path

TEXTS = ["Once upon a time", "  two  spaces\n\tand ünï 🙂 </s>"]
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def tokenizer():
    return llamakit.load_tokenizer(path())


@pytest.mark.parametrize("outtype", ["f32", "f16"])
def test_transformers_gives_the_same_greedy_tokens(base, tokenizer, export, outtype):
    file = export(base, outtype=outtype)
    prompts = [tokenizer.encode(text, bos=True) for text in TEXTS]
    llama = llamakit.Llama.open(path(), dtype="float32")
    ours, _ = llama.generate(prompts, max_gen_len=24, temperature=0)

    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )

    for prompt, expected in zip(prompts, ours, strict=True):
        made = model.generate(
            torch.tensor([prompt]), max_new_tokens=24, max_length=None, do_sample=False
        )
        tokens = made[0, len(prompt) :].tolist()
        assert [token for token in tokens if token != tokenizer.eos_id] == expected


def test_transformers_gives_the_same_tokens_of_plain_text(base, tokenizer, export):
    file = export(base)

    theirs = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)

    assert theirs(TEXTS[0]).input_ids == tokenizer.encode(TEXTS[0], bos=True)


def test_frequencies_scaled_as_in_llama_3_1_are_those_of_transformers(export):
    file = export(made_of(0.0, n_layers=1, use_scaled_rope=True, rope_scaling=LLAMA3))
    config = LlamaConfig(
        hidden_size=256, num_attention_heads=8, rope_parameters={"rope_theta": 10000.0, **LLAMA3}
    )
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")

    (factors,) = (it for it in GGUFReader(file).tensors if it.name == "rope_freqs.weight")

    plain = 10000.0 ** (-np.arange(0, 32, 2) / 32)
    np.testing.assert_allclose(plain / factors.data, expected.numpy(), rtol=1e-5)
    assert len(set(factors.data.tolist())) > 2


def test_linear_scaling_is_in_the_metadata(export):
    file = export(Changed(rope_scaling={"type": "linear", "factor": 4.0}))

    fields = GGUFReader(file).fields
    assert fields["llama.rope.scaling.type"].contents() == "linear"
    assert fields["llama.rope.scaling.factor"].contents() == 4.0


def test_meta_files_that_say_no_factor_are_scaled_by_that_of_their_family(export):
    said = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    theta = {"rope_theta": 500000.0, "use_scaled_rope": True}

    first, second = (rope_freqs(export(Changed(**theta, rope_scaling=it))) for it in (said, None))

    assert first == second


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "scaled by dynamic"),
        ({"rope_scaling": {"rope_type": "linear"}}, "has no 'factor'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "of type yarn is not supported"),
    ],
)
def test_other_ways_to_scale_are_refused(tmp_path, numbers, message):
    with pytest.raises(llamakit.LlamakitError, match=message):
        llamakit.export(Changed(**numbers), tmp_path / "made", "gguf")


def rope_freqs(file):
    (tensor,) = (it for it in GGUFReader(file).tensors if it.name == "rope_freqs.weight")
    return tensor.data.tobytes()
