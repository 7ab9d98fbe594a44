"""The kinds of plugins that there are templates of. Apart from the rest: `--help` lists them."""

from __future__ import annotations

KINDS: dict[str, str] = {
    "sampler": 'llamakit generate --sampler {name} "Once upon a time"',
    "processor": 'llamakit generate --temperature 0 --processor {name} "Once upon a time"',
    "prompt-format": "llamakit generate --prompt-format {name} --prompts dialogs.jsonl",
    "exporter": "llamakit export llama-2-7b/ exported/ --format {name}",
    "checkpoint-tool": "llamakit {name} llama-2-7b/",
    "command": 'llamakit {name} "Once upon a time"',
    "drafter": "llamakit plugins show {name}",
    "checkpoint-form": "llamakit export llama-2-7b/ exported/ --format {name}",
    "tokenizer": 'llamakit generate --tokenizer tokenizer.{name} "once upon a time"',
    "models": "llamakit plugins show {name}",
}
"""The kinds of plugins there are templates of, and how each is used."""
