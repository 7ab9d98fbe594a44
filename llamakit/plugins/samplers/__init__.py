"""Built-in samplers, each a file made to be copied."""
