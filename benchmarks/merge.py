"""How fast ``merge`` is and how much memory it takes, against mergekit on the same models.

    python -m venv /opt/mergekit && /opt/mergekit/bin/pip install mergekit==0.1.5
    python benchmarks/merge.py --mergekit /opt/mergekit/bin/python
    python benchmarks/merge.py --mergekit /opt/mergekit/bin/python --shape tiny

Three models of bfloat16 are merged by each method: both read and write Hugging Face's format. Each
program runs in a process of its own, on files that are not in the kernel's cache; `anonymous` is
the peak of RssAnon. Afterwards the results are compared value by value: `equal` is the share that
is the same in every bit, `apart` the share that differs by more than two steps of bfloat16. With
ties these are values of the very magnitude where the cut is: of equal ones mergekit keeps those
that torch's sort, which is not stable, leaves first. --stable has it sort in a stable way, as we
do: then only query and key projections, whose rows are in another order, are apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
from convert import measure

import llamakit
from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.checkpoint.safetensors_writer import SafetensorsLayout

SHAPES = {
    "1gb": {"dim": 2048, "layers": 8, "hidden": 5632, "vocab": 32000},
    "tiny": {"dim": 256, "layers": 4, "hidden": 704, "vocab": 8000},
}
MODELS = ("base", "one", "two")
PARAMETERS = {
    "linear": ({"weight": 0.6}, {}),
    "slerp": ({}, {"t": 0.4}),
    "task_arithmetic": ({"weight": 0.6}, {}),
    "ties": ({"weight": 0.6, "density": 0.4}, {"normalize": True}),
}
OURS = (
    "import sys, llamakit; from llamakit_merge.api import merge; "
    "llamakit.export(merge(sys.argv[1]), sys.argv[2])"
)
STABLE = (
    "import torch; sort = torch.argsort\n"
    "torch.argsort = lambda *args, **named: sort(*args, stable=True, **named)\n"
)
THEIRS = (
    "import sys; from mergekit.config import MergeConfiguration; import yaml\n"
    "from mergekit.merge import MergeOptions, run_merge\n"
    "options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)\n"
    "config = MergeConfiguration.model_validate(yaml.safe_load(open(sys.argv[1])))\n"
    "run_merge(config, sys.argv[2], options)"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mergekit", metavar="PYTHON", required=True)
    parser.add_argument("--shape", choices=SHAPES, default="1gb")
    parser.add_argument("--method", choices=PARAMETERS, action="append")
    parser.add_argument("--stable", action="store_true", help="have mergekit sort in a stable way")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="llamakit-bench-") as name:
        folder = Path(name)
        for seed, model in enumerate(MODELS):
            nbytes = make_model(folder / model, seed, **SHAPES[arguments.shape])
        print(f"{len(MODELS)} models of {nbytes / 1e9:.2f} GB, {os.cpu_count()} cores", flush=True)
        for method in arguments.method or PARAMETERS:
            theirs = (STABLE if arguments.stable else "") + THEIRS
            programs = {
                "llamakit": (sys.executable, OURS),
                "mergekit": (arguments.mergekit, theirs),
            }
            compare(folder, method, programs)


def compare(folder: Path, method: str, programs: dict[str, tuple[str, str]]) -> None:
    config = write_config(folder, method)
    found = {}
    for name, (python, code) in programs.items():
        destination = folder / name
        command = [python, "-c", code, str(config), str(destination)]
        found[name] = measure(command, folder / "base", destination)
        seconds, peak = found[name]
        print(f"{method:16} {name:9} {seconds:7.1f} s {peak / 1e6:8.0f} MB anonymous", flush=True)
    (ours, our_peak), (theirs, their_peak) = found.values()
    equal, apart = differences(folder / "llamakit", folder / "mergekit")
    print(
        f"{method:16} mergekit takes {theirs / ours:.1f} times as long and "
        f"{their_peak / our_peak:.1f} times the memory; equal {equal:.4%}, apart {apart:.4%}",
        flush=True,
    )


def write_config(folder: Path, method: str) -> Path:
    each, every = PARAMETERS[method]
    others = MODELS[1:2] if method == "slerp" else MODELS[1:]
    values = {
        "merge_method": method,
        "models": [{"model": str(folder / name), "parameters": each} for name in others],
        "parameters": every,
        "dtype": "bfloat16",
    }
    if method != "linear":
        values["base_model"] = str(folder / "base")
    path = folder / f"{method}.yml"
    path.write_text(json.dumps(values))  # which is YAML too
    return path


def differences(ours: Path, theirs: Path) -> tuple[float, float]:
    """Return the shares of values that are equal, and that are more than two steps apart."""
    a, b = llamakit.open_checkpoint(ours), llamakit.open_checkpoint(theirs)
    total = equal = apart = 0
    for name, parameter in a.parameters.items():
        rows = max(1, (1 << 22) // int(np.prod(parameter.shape[1:])))
        for start in range(0, parameter.shape[0], rows):
            stop = min(start + rows, parameter.shape[0])
            x, y = (
                it.read(name, start=start, stop=stop).view(np.int16).astype(np.int32)
                for it in (a, b)
            )
            steps = np.abs(np.where(x < 0, -32768 - x, x) - np.where(y < 0, -32768 - y, y))
            total += steps.size
            equal += int((steps == 0).sum())
            apart += int((steps > 2).sum())
    return equal / total, apart / total


def make_model(folder: Path, seed: int, *, dim: int, layers: int, hidden: int, vocab: int) -> int:
    """Write a model of random values, and for a seed above 0 with noise added to them."""
    folder.mkdir()
    config = {
        **{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": dim},
        **{"intermediate_size": hidden, "num_attention_heads": 16, "num_key_value_heads": 16},
        **{"num_hidden_layers": layers, "vocab_size": vocab, "rms_norm_eps": 1e-5},
        **{"rope_theta": 10000.0, "max_position_embeddings": 4096, "torch_dtype": "bfloat16"},
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    layer = {
        **{f"self_attn.{it}_proj": (dim, dim) for it in "qkvo"},
        **{"mlp.gate_proj": (hidden, dim), "mlp.up_proj": (hidden, dim)},
        **{"mlp.down_proj": (dim, hidden), "input_layernorm": (dim,)},
        "post_attention_layernorm": (dim,),
    }
    shapes = {"model.embed_tokens.weight": (vocab, dim)}
    for index in range(layers):
        shapes |= {f"model.layers.{index}.{name}.weight": it for name, it in layer.items()}
    shapes |= {"model.norm.weight": (dim,), "lm_head.weight": (vocab, dim)}
    tensors = [TensorSpec(name, "bfloat16", shape) for name, shape in shapes.items()]
    layout = SafetensorsLayout(tensors)
    path = folder / "model.safetensors"
    with path.open("wb") as file:
        file.write(layout.head)
        for index, shape in enumerate(shapes.values()):
            values = np.random.default_rng(index).standard_normal(shape, np.float32) * 0.02
            if seed:
                rng = np.random.default_rng([seed, index])
                values += rng.standard_normal(shape, np.float32) * 0.002
            file.write(layout.before(index))
            file.write(values.astype(ml_dtypes.bfloat16).tobytes())
            file.write(layout.after(index, 0))
        file.write(layout.tail([0] * len(tensors)))
    subprocess.run(["sync"], check=True)
    return path.stat().st_size


if __name__ == "__main__":
    main()
