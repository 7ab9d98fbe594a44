"""What needs a cluster is in ``cluster/``, and left out where Ray is not installed."""

from __future__ import annotations

import importlib.util

collect_ignore = [] if importlib.util.find_spec("ray") else ["cluster"]
