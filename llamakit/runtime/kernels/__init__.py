"""How a linear layer keeps its weight, and how it multiplies by it.

A *kernel* takes one weight when the model is loaded, brings it into the form that its operator
wants and lets the original go; afterwards it is called with activations. ``choice`` says which
kernel fits a device, a dtype and a weight; ``sixteen`` holds those that keep every value,
``quantised`` those that round; ``calibration`` measures which is fastest here. All are operators
that come with PyTorch.
"""
