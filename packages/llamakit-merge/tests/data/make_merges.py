"""Note what mergekit makes of small models: a few values of each tensor, and their sum.

pip install mergekit==0.1.5
python make_merges.py
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from mergekit.config import MergeConfiguration
from mergekit.merge import MergeOptions, run_merge
from safetensors.torch import load_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from merges import MERGES, MODELS, written  # noqa: E402
from small_models import write_model  # noqa: E402

SAMPLES = 4


def main() -> None:
    expected = {name: made(merge) for name, merge in MERGES.items()}
    lines = (f"{json.dumps(name)}: {json.dumps(values)}" for name, values in expected.items())
    (HERE / "merges.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


def made(merge: dict) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        values, dtype = written(merge, Path(folder))
        for name, seed in MODELS.items():
            write_model(Path(folder) / name, seed, dtype=dtype)
        options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
        run_merge(MergeConfiguration.model_validate(values), f"{folder}/out", options)
        (file,) = Path(folder, "out").glob("*.safetensors")
        tensors = load_file(file)
    return {name: described(tensor) for name, tensor in sorted(tensors.items())}


def described(tensor: torch.Tensor) -> dict:
    values = tensor.double().numpy().ravel()
    places = np.linspace(0, len(values) - 1, SAMPLES).astype(int)
    return {
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "sum": float(f"{np.abs(values).sum():.9g}"),
        "samples": [float(f"{it:.9g}") for it in values[places]],
    }


if __name__ == "__main__":
    main()
