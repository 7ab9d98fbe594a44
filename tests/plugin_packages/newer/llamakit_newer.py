"""Written for a llamakit that has one more hook."""

from llamakit import hookimpl


@hookimpl
def register_dreams(dreams):
    dreams.register("sheep", object())
