"""Text to tokens and back: SentencePiece for Llama 1, Llama 2 and Code Llama."""
