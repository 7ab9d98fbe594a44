"""How much memory loading takes at its peak, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llamakit.checkpoint.layout import expected_parameters
from llamakit.checkpoint.params import parse_params
from llamakit.runtime.host_memory import has_room
from llamakit.runtime.kernels import half_precision

PROGRAM = """
import json, sys, threading, time
from pathlib import Path
import torch
from llamakit import open_checkpoint
from llamakit.llama.loading import LoadSpec, load_slice
from llamakit.runtime.kernels.choice import Packer
from llamakit.runtime.kernels.kernel import Kernel
from llamakit.runtime.loader import load
from llamakit.runtime.model import Batch
from llamakit.runtime.group import Group

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

def watch():
    while not done.is_set():
        peak[0] = max(peak[0], anonymous())
        done.wait(0.002)

torch.set_num_threads(1)
small = torch.ones(64, 64, dtype=torch.bfloat16)
small @ small
torch.ops.onednn.qlinear_prepack(torch.ones(64, 64, dtype=torch.int8), None)
before, peak, done = anonymous(), [0], threading.Event()
threading.Thread(target=watch, daemon=True).start()
quantize, batch, mapped = json.loads(sys.argv[2])
if mapped:
    checkpoint, bfloat16, cpu = open_checkpoint(sys.argv[1]), torch.bfloat16, torch.device("cpu")
    packer = Packer(cpu, bfloat16, rows=1, mapped=True)
    model = load(checkpoint, dtype=bfloat16, device=cpu, packer=packer)
else:
    model = load_slice(LoadSpec(sys.argv[1], "auto", "cpu", quantize, batch=batch), Group()).model
cache = model.new_cache(1, 64)
logits = model(Batch(((1, 2, 3),), (0,)), cache)
done.set()
packed = sum(it.nbytes for it in model.modules() if isinstance(it, Kernel))
caches = cache.keys.nbytes + cache.values.nbytes
print(json.dumps({"peak": peak[0] - before, "needed": packed + caches}))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random bfloat16 weights of 354 MB."""
    folder = tmp_path_factory.mktemp("model")
    values = {"dim": 1024, "n_layers": 12, "n_heads": 16, "vocab_size": 8000}
    values |= {"multiple_of": 256, "norm_eps": 1e-5}
    (folder / "params.json").write_text(json.dumps(values))
    params = parse_params(values, folder / "params.json")
    weights = {
        it.name: torch.randn(it.shape, dtype=torch.bfloat16) / 32
        for it in expected_parameters(params, 1, "bfloat16").values()
    }
    torch.save(weights, folder / "consolidated.00.pth")
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="counted in /proc")
@pytest.mark.skipif(not half_precision.has_onednn(), reason="no bfloat16 in this CPU's oneDNN")
@pytest.mark.parametrize(("quantize", "batch"), [(None, 1), (None, 2), ("int8", 1), ("int4", 1)])
def test_loading_takes_little_more_than_the_packed_weights(
    checkpoint: Path, quantize: str | None, batch: int
) -> None:
    found = measured(checkpoint, quantize, batch)

    others = 24 << 20  # activations, and what torch allocates with its first layers
    assert found["peak"] < 1.1 * found["needed"] + others, found
    assert found["peak"] > 0.9 * found["needed"], found


@pytest.mark.skipif(sys.platform != "linux", reason="counted in /proc")
@pytest.mark.skipif(not half_precision.has_onednn(), reason="no bfloat16 in this CPU's oneDNN")
def test_a_model_that_memory_has_no_room_for_stays_in_its_mapped_file(checkpoint: Path) -> None:
    found = measured(checkpoint, None, 1, mapped=True)

    assert found["peak"] < 0.1 * found["needed"], found


def test_room_is_what_the_system_says_less_a_fifth(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       2000 kB\nMemAvailable:       1000 kB\n")

    assert has_room(800 * 1024, meminfo)
    assert not has_room(800 * 1024 + 1, meminfo)
    assert has_room(10**15, tmp_path / "another system")


def measured(
    checkpoint: Path, quantize: str | None, batch: int, *, mapped: bool = False
) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(checkpoint), json.dumps([quantize, batch, mapped])],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found
