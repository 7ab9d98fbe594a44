"""The numbers of a model, under the path of ``llama_models/llama3/args.py``."""

from llamakit.llama.model import ModelArgs

__all__ = ["ModelArgs"]
