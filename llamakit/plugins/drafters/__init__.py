"""Built-in drafters, each a file made to be copied."""
