"""Loads well and fails when it is used."""

from llamakit import hookimpl


def moody(patience: int = 0):
    def sample(logits, rows):
        raise IndexError(f"patience of {patience} is over")

    return sample


@hookimpl
def register_samplers(samplers):
    samplers.register("moody", moody, help="fails while sampling")


def drop(checkpoint, destination, options):
    destination.mkdir()
    raise KeyError("the last layer")


@hookimpl
def register_exporters(exporters):
    exporters.register("drop", drop, help="fails while exporting")


@hookimpl
def open_checkpoint(path):
    raise AttributeError(f"cannot think about {path.name}")
