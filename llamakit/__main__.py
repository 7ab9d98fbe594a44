"""``python -m llamakit`` is the same program as ``llamakit``."""

import sys

from llamakit.cli.main import main

sys.exit(main())
