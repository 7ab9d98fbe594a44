"""Loads well and fails when it is used."""

import sys

from llamakit import hookimpl
from llamakit.protocols import KernelSpec


def moody(patience: int = 0):
    def sample(logits, rows):
        if len(rows[0].tokens) - rows[0].prompt_length >= patience:
            raise IndexError(f"patience of {patience} is over")
        return logits.argmax(dim=-1)

    return sample


def leaving(politely: bool = False):
    def sample(logits, rows):
        sys.exit("goodbye" if politely else 3)

    return sample


def gone():
    sys.exit(4)


@hookimpl
def register_samplers(samplers):
    samplers.register("moody", moody, help="fails while sampling")
    samplers.register("leaving", leaving, help="exits while sampling")


@hookimpl
def register_logits_processors(processors):
    processors.register("gone", gone, help="exits while it is built")


def drop(checkpoint, destination, options):
    destination.mkdir()
    raise KeyError("the last layer")


REPORTS = {"nothing": None, "text": "done", "object": {"made": object()}, "files": {"files": ["a"]}}


def mumble(checkpoint, destination, options, *, volume: int = 3):
    """Report nonsense.

    Options:
        report: which kind: nothing, text, object, files
            or empty.
    """
    if options["report"] != "empty":
        destination.mkdir()
    return REPORTS.get(options["report"], {})


@hookimpl
def register_exporters(exporters):
    exporters.register("mumble", mumble, help="reports nonsense")
    exporters.register("drop", drop, help="fails while exporting")


def pack(weight, dtype):
    raise OSError("no such instruction")


@hookimpl
def register_kernels(kernels):
    spec = KernelSpec(f"{__name__}:pack", bits=8, exactness="rounded-weights")
    kernels.register("rusty", spec, help="fails while packing")


@hookimpl
def open_checkpoint(path):
    raise AttributeError(f"cannot think about {path.name}")
