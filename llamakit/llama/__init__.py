"""The ``Llama`` class of the Python API: a loaded model that generates text."""
