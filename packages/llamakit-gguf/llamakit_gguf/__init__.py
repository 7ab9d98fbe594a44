"""Export a checkpoint to GGUF, the format that llama.cpp and its relatives run.

This module is imported at every start of llamakit, so it imports nothing: the work is in
``export.py``, which comes in when somebody exports.
"""

from llamakit import hookimpl


def export_gguf(checkpoint, destination, options):
    """Write a folder with one GGUF file in it.

    Args:
        checkpoint: what is read.
        destination: the folder to make.
        options: by name.
    Options:
        outtype: f32, f16, bf16 or q8_0, else the checkpoint's own.
        tokenizer: its file, else the one in the checkpoint's folder or next to it.
    """
    from llamakit_gguf.export import export

    return export(checkpoint, destination, options)


@hookimpl
def register_exporters(exporters):
    """Offer ``gguf``."""
    exporters.register("gguf", export_gguf, help="one GGUF file, for llama.cpp")
