"""What is on disk, and which bytes of it make what.

``params`` reads params.json into a ``ModelParams``; ``layout`` names the parameters and the axis
each is split on, ``families`` says how Llama 2, 3 and 4 differ and ``family_detection`` which one
a folder holds; ``shard_plan`` says, as plain values, which rows of which shards make rank r of n.
Two kinds of tensor files are mapped, not loaded (``tensor_file``): a .pth (``pth_reader``, over
``zip_index`` and over ``pickle_reader``, which knows only ``torch_globals`` and runs nothing) and a
.safetensors (``safetensors_reader``). Three kinds of folders are checkpoints: ``meta_checkpoint``,
with ``shards``; ``hf_checkpoint``, with ``hf_config``, ``hf_names``, ``rope_permutation`` and, for
``compressed_tensors``, ``hf_compressed``; and ``quantized_checkpoint``, over ``rounding``.
"""
