"""Built-in observers, each a file made to be copied."""
