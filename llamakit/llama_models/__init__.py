"""The Llama 3 entry points of Meta's package ``llama_models``, under its paths.

A script of it runs with ``llamakit.llama_models`` where it says ``llama_models``, or ``models`` in
a clone of its repository. Images and quantization files are not among what is here.
"""
