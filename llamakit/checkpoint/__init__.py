"""What is on disk, and which bytes of it make what.

``params`` reads params.json into a ``ModelParams``; ``layout`` names the parameters and the axis
each is split on, ``generation`` tells Llama 3 from the others, and ``plan`` says, as plain values,
which rows of which shards make rank r of n. Two kinds of tensor files are mapped, not loaded
(``tensor_file``): a .pth (``pth_reader``, over ``zip_index`` and over ``pickle_reader``, which
knows only ``torch_globals`` and runs nothing) and a .safetensors (``safetensors_reader``). Two
kinds of folders are checkpoints: Meta's (``meta``, with ``shards``) and Hugging Face's
(``huggingface``, with ``hf_config``, ``hf_names`` and ``rotary``). Small helpers: ``dtypes``,
``json_fields``, and ``not_weights`` (recognizes error pages and pointers).
"""
