"""Engines to export for: what each starts from, and the command that starts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import Engine

VLLM: Engine = {"exporter": "hf", "command": "vllm serve {folder} --dtype {dtype}"}
TRANSFORMERS: Engine = {
    "exporter": "hf",
    "command": (
        'python -c \'import sys, transformers as t; print(t.pipeline("text-generation", '
        'sys.argv[1])("Once upon a time"))\' {folder}'
    ),
}
TGI: Engine = {
    "exporter": "hf",
    "command": (
        "docker run --rm --shm-size 1g -p 8080:80 -v {path}:/model "
        "ghcr.io/huggingface/text-generation-inference --model-id /model"
    ),
}
LLAMA_CPP: Engine = {
    "exporter": "gguf",
    "package": "llamakit-gguf",
    "command": "llama-server -m {file}",
}


@hookimpl
def register_engines(engines: Registrar[Engine]) -> None:
    """Offer vLLM, transformers, TGI and llama.cpp."""
    engines.register("vllm", VLLM, help="vLLM: a Hugging Face folder")
    engines.register("transformers", TRANSFORMERS, help="transformers: a Hugging Face folder")
    engines.register("tgi", TGI, help="Text Generation Inference: a Hugging Face folder")
    engines.register("llama.cpp", LLAMA_CPP, help="llama.cpp: a GGUF file, with llamakit-gguf")
