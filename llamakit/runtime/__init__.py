"""Inference: prompts as tokens in, new tokens out, on one rank or many.

``device`` picks device and dtype. ``loader`` builds the ``model`` (``attention``, ``linear``,
``rope``, ``kv_cache``) from a checkpoint. ``rank_setup`` starts or joins the ranks, and
``executor`` runs each step on all of them. ``scheduler`` turns requests into tokens by continuous
batching, ``engine`` runs it in a thread, and ``text_stream`` turns tokens into text.

The package knows neither plugins nor the command line: it is called with samplers and checkpoints.
"""
