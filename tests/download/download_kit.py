"""A signed link as Meta sends it, and a folder as Meta's server has it."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from datetime import datetime, timezone

SIGNATURE = "SECRET" + "Xq9~b-Zr_4TmLw0s" * 21 + "__"
"""As long as a real one, in the same letters, and easy to search for."""

KEY = "K15QRJLYKIFSLZ"
IN_TIME = datetime(2099, 1, 1, tzinfo=timezone.utc)
PARAMS = {"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32} | {
    "norm_eps": 1e-05,
    "vocab_size": -1,
}


def signed_query(
    resource="https://download.llamameta.net/*", ends=IN_TIME, signature=SIGNATURE, key=KEY
):
    """Build a query as CloudFront takes it; its policy says what it covers and when it ends.

    The hash gives the policy all three letters that CloudFront writes for those of base64.
    """
    condition = {"DateLessThan": {"AWS:EpochTime": int(ends.timestamp())}}
    statement = {"unique_hash": "q???>>>x", "Resource": resource, "Condition": condition}
    policy = json.dumps({"Statement": [statement]}, separators=(",", ":")).replace("/", "\\/")
    letters = base64.b64encode(policy.encode()).decode().translate(str.maketrans("+=/", "-_~"))
    return f"Policy={letters}&Signature={signature}&Key-Pair-Id={key}"


def make_model(folder, name="llama-2-7b", shards=1, nbytes=1 << 20):
    """Write Meta's files into a folder; return the model's own.

    Args:
        nbytes: of each shard. The same name, number and size give the same bytes.
    """
    model = folder / name
    model.mkdir(parents=True)
    (folder / "LICENSE").write_text("LLAMA 2 COMMUNITY LICENSE AGREEMENT\n")
    (folder / "USE_POLICY.md").write_text("# Llama 2 Acceptable Use Policy\n")
    tokenizer = write_random(folder / "tokenizer.model", 50_000)
    (folder / "tokenizer_checklist.chk").write_text(f"{tokenizer}  tokenizer.model\n")
    lines = []
    for rank in range(shards):
        shard = model / f"consolidated.{rank:02d}.pth"
        lines.append(f"{write_random(shard, nbytes, seed=f'{name} {rank}')}  {shard.name}\n")
    params = json.dumps(PARAMS).encode()
    (model / "params.json").write_bytes(params)
    lines.append(f"{hashlib.md5(params).hexdigest()}  params.json\n")
    (model / "checklist.chk").write_text("".join(lines))
    return model


def write_random(path, nbytes, seed="0"):
    """Write bytes that hang on the seed only; return their md5."""
    source = random.Random(seed)
    md5 = hashlib.md5()
    with path.open("wb") as file:
        for start in range(0, nbytes, 1 << 20):
            block = source.randbytes(min(1 << 20, nbytes - start))
            md5.update(block)
            file.write(block)
    return md5.hexdigest()
