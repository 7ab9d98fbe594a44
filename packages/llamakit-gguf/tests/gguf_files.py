"""GGUF files that are made by hand, and mutations of them."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType

DIM, HIDDEN, HEADS, KV_HEADS, ROWS = 256, 512, 4, 2, 300
SHAPES = {
    "token_embd": (ROWS, DIM),
    "output_norm": (DIM,),
    "output": (ROWS, DIM),
    "blk.0.attn_norm": (DIM,),
    "blk.0.attn_q": (DIM, DIM),
    "blk.0.attn_k": (DIM // 2, DIM),
    "blk.0.attn_v": (DIM // 2, DIM),
    "blk.0.attn_output": (DIM, DIM),
    "blk.0.ffn_norm": (DIM,),
    "blk.0.ffn_gate": (HIDDEN, DIM),
    "blk.0.ffn_down": (DIM, HIDDEN),
    "blk.0.ffn_up": (HIDDEN, DIM),
}
SIZES = {"Q4_K": (256, 144), "Q6_K": (256, 210), "Q8_0": (32, 34), "Q4_0": (32, 18)}
"""Values and bytes of a block, spelled out for the tests."""


def write_model(
    path: Path, kind: str = "F32", *, change=None, drop=(), split=0
) -> dict[str, bytes]:
    """Write a small Llama; return the bytes of each tensor.

    Args:
        kind: of the matrices.
        change: called with the writer, before anything is written.
        drop: names of tensors that are left out.
        split: how many tensors a file has at most; 0 is no limit.
    """
    random = np.random.default_rng(0)
    writer = GGUFWriter(path, "llama", split_max_tensors=split)
    numbers = {
        "block_count": 1,
        "context_length": 512,
        "embedding_length": DIM,
        "feed_forward_length": HIDDEN,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
    }
    for name, value in numbers.items():
        writer.add_uint32(f"llama.{name}", value)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(LlamaFileType.ALL_F32)
    if change is not None:
        change(writer)
    written = {}
    for name, shape in SHAPES.items():
        if name not in drop:
            data, raw = _values(random, shape, kind if len(shape) == 2 else "F32")
            writer.add_tensor(f"{name}.weight", data, raw_dtype=raw)
            written[f"{name}.weight"] = data.tobytes()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


def add_pieces(writer: GGUFWriter) -> None:
    """Write a SentencePiece vocabulary: bytes, letters, one word, one that was added, one pad."""
    words = ["▁", "h", "i", "hi", "▁hi"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    kinds += [TokenType.BYTE] * 256 + [TokenType.NORMAL] * len(words)
    tokens += ["<|im_end|>", "[PAD265]"]
    kinds += [TokenType.CONTROL, TokenType.UNUSED]
    padding = ROWS - len(tokens)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens + [f"[PAD{266 + number}]" for number in range(padding)])
    writer.add_token_scores([-float(at) for at in range(ROWS)])
    writer.add_token_types(kinds + [TokenType.UNUSED] * padding)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(264)
    writer.add_chat_template("{{ messages[0].content }}")


def mutated(data: bytes, random: Random, head: int) -> bytes:
    """Return a file with a bit flipped, a number replaced, bytes removed, added or cut off."""
    made = bytearray(data)
    at = random.randrange(head)
    match random.randrange(5):
        case 0:
            made[at] ^= 1 << random.randrange(8)
        case 1:
            width = random.choice((1, 4, 8))
            number = random.choice((0, 1, 0xFF, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 64) - 1))
            made[at : at + width] = struct.pack("<Q", number)[:width]
        case 2:
            del made[at : at + random.choice((1, 8, 64))]
        case 3:
            made[at:at] = bytes(random.choice((1, 8, 64)))
        case _:
            del made[random.randrange(len(made)) :]
    return bytes(made)


def _values(random, shape, kind):
    if kind in SIZES:
        values, nbytes = SIZES[kind]
        blocks = shape[0] * shape[1] // values
        data = random.integers(0, 256, (blocks, nbytes), dtype=np.uint8)
        scales = [0, 2] if kind == "Q4_K" else [nbytes - 2] if kind == "Q6_K" else [0]
        for at in scales:  # finite ones, as files have them
            data[:, at : at + 2] = np.full((blocks, 1), 0.01, np.float16).view(np.uint8)
        return data.reshape(shape[0], -1), GGMLQuantizationType[kind]
    data = random.standard_normal(shape, np.float32)
    if kind == "BF16":
        data = (data.view(np.uint32) >> 16).astype(np.uint16)
        return data.view(np.uint8), GGMLQuantizationType.BF16
    return data.astype(np.float16 if kind == "F16" else np.float32), None
