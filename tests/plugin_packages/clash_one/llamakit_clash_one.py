"""Claims a name that another package claims too."""

from llamakit import hookimpl


@hookimpl
def register_samplers(samplers):
    samplers.register("contested", lambda: None)
