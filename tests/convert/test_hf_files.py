"""The small files of a Hugging Face folder, the config judged by transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the import below, which reads it

import pytest
import transformers
from lazy_torch import torch

from llamakit.checkpoint.hf_config import parse_config
from llamakit.checkpoint.params import ModelParams
from llamakit.convert.hf_files import hf_files
from llamakit.errors import TokenizerError
from llamakit.protocols import Checkpoint, Parameter

LLAMA_2 = ModelParams(
    dim=64, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=600, hidden_dim=96, norm_eps=1e-6
)
LLAMA_3 = replace(LLAMA_2, rope_theta=500000.0, vocab_size=128256)
WRITTEN = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
WRITTEN += ["special_tokens_map.json", "tokenizer.model"]


class Described:
    """A checkpoint of which nothing is read but what it says of itself."""

    form = "meta"
    nbytes_read = 0

    def __init__(self, params: ModelParams, path: Path, dtype: str = "float16") -> None:
        self.params = params
        self.path = path
        shape = (params.vocab_size, params.dim)
        name = "tok_embeddings.weight"
        self.parameters = {name: Parameter(name, shape, dtype, 1)}

    def read(self, name: str, **_: Any) -> Any:
        raise AssertionError(f"{name} was read")


def write_hf_files(
    checkpoint: Checkpoint, folder: Path, tokenizer: Path | None, instruct: bool | None = None
) -> list[str]:
    """Write the files; return their names."""
    files, _ = hf_files(checkpoint, tokenizer, instruct=instruct)
    for file in files:
        content = file.content
        (folder / file.name).write_bytes(
            content if isinstance(content, bytes) else content.read_bytes()
        )
    return [file.name for file in files]


@pytest.fixture
def config_of(tmp_path: Path) -> Callable[..., Any]:
    """Write the files for some params; return config.json and what transformers makes of it."""

    def written(params: ModelParams, dtype: str = "float16") -> tuple[dict[str, Any], Any]:
        write_hf_files(Described(params, tmp_path, dtype), tmp_path, None)
        raw = json.loads((tmp_path / "config.json").read_text())
        return raw, transformers.AutoConfig.from_pretrained(tmp_path)

    return written


def test_the_config_reads_back_as_the_params(config_of: Callable[..., Any]) -> None:
    raw, _ = config_of(LLAMA_2)

    assert parse_config(raw, Path("config.json")) == replace(LLAMA_2, max_seq_len=4096)


@pytest.mark.parametrize(("kind", "scaled"), [("llama3", True), ("linear", False), ("yarn", False)])
def test_only_llama_3s_scaling_is_the_flag_of_params_json(
    config_of: Callable[..., Any], kind: str, scaled: bool
) -> None:
    raw, _ = config_of(LLAMA_2)
    raw.pop("rope_parameters", None)

    params = parse_config(raw | {"rope_scaling": {"rope_type": kind}}, Path("config.json"))

    assert params.use_scaled_rope is scaled


@pytest.mark.parametrize(
    ("params", "context"),
    [
        (LLAMA_2, 4096),
        (replace(LLAMA_2, max_seq_len=2048), 2048),
        (replace(LLAMA_2, rope_theta=1e6), 16384),
        (LLAMA_3, 8192),
        (replace(LLAMA_3, use_scaled_rope=True), 131072),
    ],
    ids=["llama 2", "as the file says", "code llama", "llama 3", "llama 3.1"],
)
def test_the_context_is_that_of_the_family(
    params: ModelParams, context: int, config_of: Callable[..., Any], tmp_path: Path
) -> None:
    raw, config = config_of(params)

    assert raw["max_position_embeddings"] == config.max_position_embeddings == context
    assert json.loads((tmp_path / "generation_config.json").read_text())["max_length"] == context


@pytest.mark.parametrize("theta", [10000.0, 1e6, 500000.0])
def test_the_rotary_base_is_written_for_old_and_new(
    theta: float, config_of: Callable[..., Any]
) -> None:
    raw, config = config_of(replace(LLAMA_2, rope_theta=theta))

    assert raw["rope_theta"] == theta
    assert raw["rope_scaling"] is None
    assert config.rope_parameters == {"rope_theta": theta, "rope_type": "default"}


@pytest.mark.parametrize(
    ("shape", "tied", "said", "factor"),
    [
        ((2048, 16, 32, 8), True, None, 32.0),
        ((3072, 28, 24, 8), True, None, 32.0),
        ((3072, 28, 24, 4), True, None, 8.0),
        ((4096, 32, 32, 8), False, None, 8.0),
        ((2048, 16, 32, 8), True, 4.0, 4.0),
    ],
    ids=["3.2 1B", "3.2 3B", "another as wide", "3.1 8B", "as the file says"],
)
def test_the_scaled_rotary_factor_follows_from_the_exact_shape(
    shape: tuple[int, ...],
    tied: bool,
    said: float | None,
    factor: float,
    config_of: Callable[..., Any],
) -> None:
    names = ("dim", "n_layers", "n_heads", "n_kv_heads")
    params = replace(LLAMA_3, **dict(zip(names, shape, strict=True)), rope_factor=said)  # type: ignore[arg-type]
    params = replace(params, use_scaled_rope=True, tied_embeddings=tied)
    scaling = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }

    raw, config = config_of(params)

    assert raw["rope_scaling"] == scaling
    assert config.rope_parameters == scaling | {"rope_theta": 500000.0}
    assert config.tie_word_embeddings is tied


def test_the_scaling_of_a_hugging_face_config_is_kept(config_of: Callable[..., Any]) -> None:
    scaling = {"rope_type": "linear", "factor": 2.0}
    params = replace(LLAMA_2, rope_scaling=scaling | {"rope_theta": 10000.0})

    raw, config = config_of(params)

    assert raw["rope_scaling"] == scaling
    assert config.rope_parameters == scaling | {"rope_theta": 10000.0}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_dtype_is_that_of_the_weights(dtype: str, config_of: Callable[..., Any]) -> None:
    raw, config = config_of(LLAMA_2, dtype)

    assert raw["dtype"] == raw["torch_dtype"] == dtype
    assert config.dtype == getattr(torch, dtype)


def test_the_files_are_the_same_bytes_again_and_end_with_a_line_end(
    reference_cases: Path, tmp_path: Path
) -> None:
    tokenizer = reference_cases / "tokenizer.model"
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()

    names = write_hf_files(Described(LLAMA_2, tmp_path), tmp_path / "one", tokenizer)
    write_hf_files(Described(LLAMA_2, tmp_path), tmp_path / "two", tokenizer)

    assert sorted(names) == sorted(WRITTEN)
    for name in names:
        written = (tmp_path / "one" / name).read_bytes()
        assert written == (tmp_path / "two" / name).read_bytes()
        assert written.endswith(b"}\n") or name == "tokenizer.model"
    assert (tmp_path / "one" / "tokenizer.model").read_bytes() == tokenizer.read_bytes()


def test_no_tokenizer_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = write_hf_files(Described(LLAMA_2, tmp_path), tmp_path, None)

    assert names == WRITTEN[:2]
    assert "has no tokenizer" in caplog.text


@pytest.mark.parametrize(("instruct", "end"), [(True, [128001, 128008, 128009]), (False, 128001)])
def test_a_llama_3_without_its_tokenizer_has_the_usual_ends(
    tmp_path: Path, instruct: bool, end: object
) -> None:
    write_hf_files(Described(LLAMA_3, tmp_path), tmp_path, None, instruct)

    for name in WRITTEN[:2]:
        written = json.loads((tmp_path / name).read_text())
        assert (written["bos_token_id"], written["eos_token_id"]) == (128000, end)


def test_a_tokenizer_json_is_copied_with_what_is_next_to_it(
    reference_cases: Path, tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    checkpoint: Checkpoint = Described(LLAMA_2, tmp_path)
    write_hf_files(checkpoint, tmp_path / "one", reference_cases / "tokenizer.model")

    names = write_hf_files(checkpoint, tmp_path / "two", tmp_path / "one" / "tokenizer.json")

    assert sorted(names) == sorted(WRITTEN)
    for name in WRITTEN:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such tokenizer file"),
        (b"<html>not found</html>", "HTML or XML page"),
        (b"", "the file is empty"),
    ],
)
def test_what_is_no_tokenizer_is_refused_and_nothing_is_written(
    content: bytes | None, reason: str, tmp_path: Path
) -> None:
    tokenizer = tmp_path / "tokenizer.model"
    if content is not None:
        tokenizer.write_bytes(content)
    destination = tmp_path / "new"
    destination.mkdir()

    with pytest.raises(TokenizerError, match=reason):
        write_hf_files(Described(LLAMA_2, tmp_path), destination, tokenizer)
    assert not list(destination.iterdir())


def test_the_tokenizer_of_a_larger_model_is_refused(reference_cases: Path, tmp_path: Path) -> None:
    checkpoint = Described(replace(LLAMA_2, vocab_size=512), tmp_path)

    with pytest.raises(TokenizerError, match=r"576 tokens but the embedding of .* has 512 rows"):
        write_hf_files(checkpoint, tmp_path, reference_cases / "tokenizer.model")
    assert not list(tmp_path.glob("*.json"))


def test_neither_torch_nor_transformers_is_imported() -> None:
    code = (
        "import sys, llamakit.convert.hf_files; print({'torch', 'transformers'} & {*sys.modules})"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"
