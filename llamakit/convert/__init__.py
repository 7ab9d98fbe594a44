"""Converts checkpoints to another number of shards or another format.

``reshard``, ``edit``, ``export``, ``quantize`` and ``meta_format`` make a ``conversion_plan``. Its
``moves`` say, as plain values, which parameter of the source becomes which tensors of which files;
``batches`` splits that into reads of a few megabytes, and ``execute`` does it: ``reader`` runs
ahead in threads of its own, ``writer`` fills blocks that other threads hash and write, and ``disk``
is how both reach the disk past the kernel's cache. ``companion_files`` are the small files next to
the weights.

Memory is that of the blocks, whatever the size of the model.
"""
