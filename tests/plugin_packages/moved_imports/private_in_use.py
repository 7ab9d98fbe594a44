"""Imports a module of 0.1 only when its sampler is built."""

from llamakit import hookimpl


def lazy():
    """Import what has moved."""
    from llamakit.streaming import Llama

    return Llama


@hookimpl
def register_samplers(samplers):
    samplers.register("lazy", lazy, help="imports what has moved")
