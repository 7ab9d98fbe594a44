"""Llama 3, as ``llama_models/llama3`` has it: ``generation``, ``chat_format``, ``tokenizer``."""
