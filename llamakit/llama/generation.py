"""The names of the reference's ``llama/generation.py``, under its path."""

from __future__ import annotations

from llamakit.llama.llama import (
    UNSAFE_ERROR,
    ChatPrediction,
    CompletionPrediction,
    InfillingPrediction,
    Llama,
)
from llamakit.llama.model import ModelArgs, Transformer
from llamakit.llama.tokenizer import ChatFormat, Tokenizer
from llamakit.protocols import Dialog, Message, Role

__all__ = [
    "UNSAFE_ERROR",
    "ChatFormat",
    "ChatPrediction",
    "CompletionPrediction",
    "Dialog",
    "InfillingPrediction",
    "Llama",
    "Message",
    "ModelArgs",
    "Role",
    "Tokenizer",
    "Transformer",
]
