"""From weights to ids, on one rank or many.

``device`` picks device and dtype, ``loader`` builds the ``model`` (``linear``, ``rope``,
``kv_cache``) from a checkpoint, ``parallel`` joins ranks, ``executor`` does on every rank what
rank 0 asks, ``generator`` turns requests into ids, ``text_stream`` turns ids into text.

The room is handed objects: it knows neither plugins nor the command line.
"""
