"""Top-a: draw among few tokens when the model is sure, among many when it is not."""

from llamakit import hookimpl


def top_a(a: float = 0.2):
    """Draw from the tokens whose probability is at least ``a`` times the square of the largest.

    Args:
        a: 0 keeps every token, 1 the most; with 0.2, a largest probability of 0.9 needs 0.16 of the
            others, and one of 0.1 needs 0.002.
    Source: Peng Bo, "The top-a sampling method", https://github.com/BlinkDL/RWKV-LM
    """
    if not 0 <= a <= 1:
        raise ValueError(f"a is {a}; it has to be between 0 and 1")
    from llamakit.sampling import draw_ids

    def sample(logits, rows):  # (B, V) -> (B,)
        probs = logits.softmax(dim=-1)
        least = a * probs.amax(dim=-1, keepdim=True) ** 2
        return draw_ids(probs.masked_fill(probs < least, 0.0), rows)

    return sample


@hookimpl
def register_samplers(samplers):
    """Offer ``top-a``."""
    samplers.register("top-a", top_a, help="a draw from few tokens when the model is sure")
