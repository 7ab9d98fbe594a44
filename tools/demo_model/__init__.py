"""What makes the demonstration checkpoint: ``python -m tools.demo_model``."""

import os

# Read when torch is loaded. A thread that waits must not spin: on a machine that others use as
# well, two spinning threads train four times slower than two that sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
