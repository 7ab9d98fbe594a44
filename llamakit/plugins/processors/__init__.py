"""Built-in processors, each a file made to be copied."""
