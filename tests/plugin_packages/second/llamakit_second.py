"""Choose the n-th most likely token."""

from llamakit import hookimpl


def nth(rank: int = 2):
    def sample(logits, rows):  # (B, V) -> (B,)
        return logits.topk(rank, dim=-1).indices[:, -1]

    return sample


@hookimpl
def register_samplers(samplers):
    samplers.register("nth", nth, help="the n-th most likely token")
