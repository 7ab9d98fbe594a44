"""Files that llamakit 0.1 has left on disk are read: their text is what its code wrote."""

from __future__ import annotations

import json

import pytest

from llamakit.checkpoint.family_detection import embedding_axis
from llamakit.checkpoint.params import ModelParams
from llamakit.cli.chat.session_file import load
from llamakit.download.part_file import Identity, PartFile
from llamakit.download.verified_files import VerifiedFiles

BLOCK = 256 << 10
MD5 = "5d41402abc4b2a76b9719d911017c592"


def test_an_unfinished_shard_resumes_from_the_blocks_that_were_on_disk(tmp_path):
    """0 is absent, 1 written before a reboot, 2 written and synced."""
    final = tmp_path / "consolidated.00.pth"
    (tmp_path / "consolidated.00.pth.part").write_bytes(bytes(600_000))
    (tmp_path / "consolidated.00.pth.part.state").write_bytes(
        b'{"format": 1, "block_nbytes": 262144, "path": "llama-2-7b/consolidated.00.pth", '
        b'"nbytes": 600000, "validator": "\\"abc\\"", '
        b'"boot": "2f8c4c1e-54a4-4a52-9d6f-6f3f4b0a1c7d"}\n\x02\x01\x00'
    )

    part = PartFile(final, Identity("llama-2-7b/consolidated.00.pth", 600_000, '"abc"'))

    assert part.nbytes_there == BLOCK
    assert part.gaps() == [(BLOCK, 600_000)]
    part.close()


def test_a_file_that_was_verified_is_not_read_again(tmp_path):
    (tmp_path / "llama-2-7b").mkdir()
    shard = tmp_path / "llama-2-7b" / "consolidated.00.pth"
    shard.write_bytes(b"hello")
    status = shard.stat()
    entry = [MD5, 5, status.st_mtime_ns, status.st_ctime_ns]
    (tmp_path / ".llamakit-download.json").write_text(
        json.dumps({"llama-2-7b/consolidated.00.pth": entry})
    )

    assert VerifiedFiles(tmp_path).contains("llama-2-7b/consolidated.00.pth", MD5)


def test_a_saved_chat_continues(tmp_path):
    (tmp_path / "chat.json").write_text(
        """{
  "format": "llamakit chat 1",
  "messages": [
    {
      "role": "system",
      "content": "Be brief."
    },
    {
      "role": "user",
      "content": "Hello"
    },
    {
      "role": "assistant",
      "content": "Good day"
    }
  ]
}
"""
    )

    conversation = load(tmp_path / "chat.json")

    assert conversation.dialog() == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Good day"},
    ]


@pytest.mark.parametrize("axis", [0, 1])
def test_reshard_json_says_how_the_embedding_of_one_shard_was_sharded(tmp_path, axis):
    (tmp_path / "reshard.json").write_text(
        f"""{{
  "made_by": "llamakit 0.1.0",
  "from": {{
    "folder": "llama-2-13b",
    "form": "meta",
    "files": [
      {{
        "name": "consolidated.00.pth",
        "nbytes": 13016334699
      }},
      {{
        "name": "consolidated.01.pth",
        "nbytes": 13016334699
      }}
    ]
  }},
  "model_parallel_size": 1,
  "embedding_axis": {axis},
  "dtype": "bfloat16"
}}
"""
    )
    params = ModelParams(
        dim=64, n_layers=1, n_heads=4, n_kv_heads=4, vocab_size=96, hidden_dim=256, norm_eps=1e-5
    )

    assert embedding_axis((96, 64), params, 1, tmp_path) == axis
