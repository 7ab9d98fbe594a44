"""Converts checkpoints to another number of shards or another format.

``moves`` says, as plain values, which parameter of the source becomes which tensors of which
files; ``batches`` splits that into reads of a few megabytes. ``execute`` does it: ``reader`` runs
ahead in threads of its own, ``writing`` fills blocks that other threads hash and write, and
``disk`` is how both reach the disk past the kernel's cache. ``reshard``, ``export`` and
``importing`` make the moves; ``companions`` are the small files beside the weights.

Memory is that of the blocks, whatever the size of the model.
"""
