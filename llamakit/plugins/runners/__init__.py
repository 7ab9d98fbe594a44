"""Built-in runners of `generate --on`, each a file made to be copied."""
