"""A script that somebody made an entry point of."""

import sys

sys.exit(3)
