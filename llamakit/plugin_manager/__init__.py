"""How plugins are found, loaded, checked and kept apart. Nothing here knows Llama."""
