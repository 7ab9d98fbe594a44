"""inspect: what the indexes say, and that nothing else is read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from lazy_torch import needs_torch, torch
from tools_kit import PARAMS, change_shard, random_model, write_model

from llamakit import export, inspect
from llamakit.errors import CheckpointError, LlamakitError


def test_a_reference_case(reference_cases):
    found = inspect(reference_cases / "gqa-mp1")

    assert found.good
    assert (found.form, found.generation, found.shards) == ("meta", "llama 1/2", 1)
    assert (found.params.n_heads, found.params.n_kv_heads, found.head_dim) == (8, 2, 8)
    assert (found.params.dim, found.params.hidden_dim, found.params.n_layers) == (64, 192, 3)
    assert found.dtypes == {"float16": 30}
    assert (found.embedding_axis, found.tokenizer.size) == (1, 576)
    assert found.legal_sizes == (1, 2, 4, 8)


def test_parameters_are_counted_as_torch_counts_them(reference_cases):
    shard = torch.load(reference_cases / "gqa-mp1" / "consolidated.00.pth", weights_only=True)

    expected = sum(it.numel() for name, it in shard.items() if name != "rope.freqs")

    assert inspect(reference_cases / "gqa-mp1").numel == expected


def test_shards_and_axis_are_reported(reference_cases):
    found = inspect(reference_cases / "mha-mp8")

    assert (found.shards, found.embedding_axis) == (8, 1)


def test_memory_of_a_rank_is_what_its_shard_holds(reference_cases):
    shard = torch.load(reference_cases / "mha-mp8" / "consolidated.00.pth", weights_only=True)
    nbytes = sum(it.nbytes for name, it in shard.items() if name != "rope.freqs")

    memory = {it.size: it for it in inspect(reference_cases / "mha-mp8").memory}

    assert memory[8].weights == nbytes


@needs_torch
@pytest.mark.parametrize("rounded", [None, "int8"])
def test_the_kv_cache_is_that_of_the_runtime(reference_cases, rounded):
    from llamakit.runtime.kv_cache import Int8KVCache, KVCache

    found = inspect(
        reference_cases / "gqa-mp1", max_seq_len=100, max_batch_size=3, kv_cache=rounded
    )
    kind = Int8KVCache if rounded else KVCache
    cache = kind(3, 3, 100, 2, 8, torch.float16, torch.device("cpu"))
    memory = {it.size: it.kv_cache for it in found.memory}

    assert memory[1] == sum(it.nbytes for it in cache.tensors)
    assert memory[2] == memory[1] // 2
    assert memory[4] == memory[8] == memory[2]  # a head is not cut: each rank holds a copy


def test_a_huggingface_folder_says_the_same(reference_cases, tmp_path):
    export(reference_cases / "gqa-mp1", tmp_path / "hf")

    one, other = inspect(reference_cases / "gqa-mp1"), inspect(tmp_path / "hf")

    assert other.form == "huggingface"
    for name in ("generation", "numel", "dtypes", "legal_sizes", "embedding_axis"):
        assert getattr(one, name) == getattr(other, name)


def test_what_is_odd_is_reported(tmp_path):
    folder = write_model(tmp_path / "m", random_model(), params=PARAMS | {"colour": "blue"})
    change_shard(
        folder / "consolidated.00.pth",
        lambda it: it.update(
            {"norm.weight": it["norm.weight"].float(), "rope.freqs": torch.ones(2)}
        ),
    )

    odd = "\n".join(inspect(folder).oddities)

    for words in ("colour", "no tokenizer", "rope.freqs", "mixed dtypes", "checklist"):
        assert words in odd


def test_renamed_shards_are_odd(reference_cases, tmp_path):
    folder = shutil.copytree(reference_cases / "mha-mp8", tmp_path / "model")
    (folder / "consolidated.01.pth").rename(folder / "aside")
    (folder / "consolidated.02.pth").rename(folder / "consolidated.01.pth")
    (folder / "aside").rename(folder / "consolidated.02.pth")

    assert any("was written as" in sentence for sentence in inspect(folder).oddities)


def test_parts_that_do_not_fit_are_faults(reference_cases, tmp_path):
    folder = write_model(tmp_path / "m", random_model(), params=PARAMS | {"n_layers": 3})
    shutil.copy(reference_cases / "tokenizer.model", folder)

    found = inspect(folder)

    assert not found.good
    assert any("layers.2" in fault for fault in found.faults)
    assert any("576 tokens" in fault for fault in found.faults)


def test_a_page_under_the_name_of_a_shard_is_an_error(tmp_path):
    folder = write_model(tmp_path / "m", random_model())
    (folder / "consolidated.00.pth").write_bytes(b"<html><title>Gone</title>")

    with pytest.raises(CheckpointError, match="HTML page"):
        inspect(folder)


def test_nothing_that_is_no_checkpoint_is_inspected(tmp_path):
    with pytest.raises(LlamakitError):
        inspect(tmp_path)


PROGRAM = """
import json, os, sys
from pathlib import Path
from llamakit import inspect
from llamakit.plugin_manager.toolkit import default_toolkit

opened = []
toolkit = default_toolkit()
from llamakit.examine.inspect import inspect as run
class Opener:
    def open_checkpoint(self, path):
        opened.append(toolkit.open_checkpoint(path))
        return opened[-1]
    load_tokenizer = toolkit.load_tokenizer

def read():
    lines = Path("/proc/self/io").read_text().splitlines()
    mapped = [it for it in Path("/proc/self/status").read_text().splitlines() if "RssFile" in it]
    return int(lines[0].split()[1]), int(mapped[0].split()[1])

folder = Path(sys.argv[1])
before = read()
found = run(folder, Opener())
after = read()
print(json.dumps({
    "numel": found.numel,
    "nbytes_read": opened[0].nbytes_read,
    "read": after[0] - before[0],
    "mapped": (after[1] - before[1]) << 10,
    "torch": "torch" in sys.modules,
}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
def test_no_weight_is_read(tmp_path, isolated):
    """A model of 8 GB whose values are a hole in the file: there is nothing to be read there."""
    folder = write_holes(tmp_path / "large", layers=100, dim=2048)

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder],
        env=isolated,
        check=True,
        capture_output=True,
        text=True,
    )

    told = json.loads(done.stdout)
    assert (folder / "consolidated.00.pth").stat().st_size > 8e9
    assert told["numel"] * 2 > 8e9
    assert told["nbytes_read"] == 0
    assert told["read"] < 20e6  # the index, and the modules that are imported
    assert told["mapped"] < 60e6  # shared libraries
    assert not told["torch"]


def write_holes(folder, layers, dim):
    """Write the layers of a model as a .pth whose storages were never written to the disk."""
    hidden, vocab = 5632, 32000
    params = {"dim": dim, "n_layers": layers, "n_heads": 16}
    params |= {"vocab_size": vocab, "norm_eps": 1e-5}
    layer = {f"attention.{it}": (dim, dim) for it in ("wq", "wk", "wv", "wo")}
    layer |= {"feed_forward.w1": (hidden, dim), "feed_forward.w2": (dim, hidden)}
    layer |= {"feed_forward.w3": (hidden, dim), "attention_norm": (dim,), "ffn_norm": (dim,)}
    shapes = {"tok_embeddings.weight": (vocab, dim), "output.weight": (vocab, dim)}
    for index in range(layers):
        shapes |= {f"layers.{index}.{name}.weight": shape for name, shape in layer.items()}
    shapes["norm.weight"] = (dim,)
    folder.mkdir()
    (folder / "params.json").write_text(json.dumps(params))

    tensors = {name: torch.empty(shape, dtype=torch.float16) for name, shape in shapes.items()}
    with torch.serialization.skip_data():
        torch.save(tensors, folder / "consolidated.00.pth")
    return folder
