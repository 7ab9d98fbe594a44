"""Kernels of linear layers: how a weight is stored, and how it is multiplied.

A *kernel* packs one weight when the model is loaded, in the layout that its operator needs, and
frees the original; afterwards it is called with activations. ``choice`` picks the kernel for a
device, a dtype and a weight; ``half_precision`` holds the kernels that keep every value,
``quantized`` those that round, or
take what is ``rounded``; ``calibration`` measures which is fastest. All use operators that
come with PyTorch.
"""
