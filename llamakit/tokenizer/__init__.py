"""Text to tokens and back: ``sentencepiece`` for Llama 1 and 2, ``rank_tokenizer`` for 3 and 4."""
