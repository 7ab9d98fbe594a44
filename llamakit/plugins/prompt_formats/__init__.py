"""Built-in prompt formats, each a file made to be copied."""
