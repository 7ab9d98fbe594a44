"""Built-in formats, each a file made to be copied."""
