"""Built-in exporters, each a file made to be copied."""
