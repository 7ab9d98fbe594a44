"""Has compressed-tensors and transformers judge what llamakit exports in 8 bits.

The peer is an environment of its own with torch, transformers and compressed-tensors. What it says
is recorded in ``tests/data/compressed-tensors/verdict.json``, which the tests compare with:
``--record`` writes it, for ``--model tests/data/reference-cases/gqa-mp1``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from llamakit.api import export

TOKENS = [1, 300, 301, 302, 303]
SCHEMES = ("int8", "int8-weight-only")
PEER = """
import json, sys
import compressed_tensors, torch, transformers
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig
from compressed_tensors.quantization.lifecycle.forward import dequantize

folders, tokens = json.loads(sys.argv[1]), json.loads(sys.argv[2])
tools = (compressed_tensors, transformers)
verdict = {tool.__name__: tool.__version__ for tool in tools}
for scheme, folder in folders.items():
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, -1]
    written = json.load(open(folder + "/config.json"))["quantization_config"]
    again = QuantizationConfig(**written).model_dump(mode="json")
    again.pop("moe_sparsity_config", None)
    verdict[scheme] = {"config": again, "logits": [round(x, 6) for x in logits.tolist()[:128]]}
integers = (torch.arange(4 * 64) * 7 % 16 - 8).to(torch.int8).view(4, 64)
scale = (torch.arange(1, 9).view(4, 2) / 64).to(torch.bfloat16)
arguments = QuantizationArgs(num_bits=4, symmetric=True, strategy="group", group_size=32)
verdict["int4"] = {
    "integers": integers.tolist(),
    "packed": pack_to_int32(integers, 4).tolist(),
    "scale": scale.tolist(),
    "multiplied_out": dequantize(integers, scale, args=arguments).tolist(),
}
print("VERDICT", json.dumps(verdict))
"""


def main() -> None:
    """Export, ask the peer, and print or record what it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", required=True, help="python of the environment of the peer")
    parser.add_argument("--model", type=Path, required=True, help="a folder in Meta's format")
    parser.add_argument("--record", type=Path, help="where to write the verdict")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = {scheme: f"{scratch}/{scheme}" for scheme in SCHEMES}
        for scheme, folder in folders.items():
            export(options.model, folder, quantize=scheme)
        words = [options.peer, "-c", PEER, json.dumps(folders), json.dumps(TOKENS)]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    verdict = said.split("VERDICT ", 1)[1].strip()
    if options.record:
        options.record.write_text(verdict + "\n")
    print({key: value for key, value in json.loads(verdict).items() if isinstance(value, str)})


if __name__ == "__main__":
    main()
