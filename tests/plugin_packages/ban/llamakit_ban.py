"""Write without a letter."""

from llamakit import hookimpl


def ban(tokenizer, *, letter: str = "e"):
    if len(letter) != 1:
        raise ValueError(f"letter is {letter!r}; it has to be one character")
    ids = [i for i in range(tokenizer.vocab_size) if letter in tokenizer.decode([i])]

    def process(logits, rows):  # (B, V) -> (B, V)
        logits = logits.clone()
        logits[:, ids] = -float("inf")
        return logits

    return process


@hookimpl
def register_logits_processors(processors):
    processors.register("ban", ban, help="no id whose text has a letter")
