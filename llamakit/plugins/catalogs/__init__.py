"""Built-in catalogs, each a file made to be copied."""
