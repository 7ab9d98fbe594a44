"""The server: the model on the network, as OpenAI's clients expect it, and in the browser."""
