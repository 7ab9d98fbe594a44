"""Waits for a machine that does not answer, before it has registered anything."""

import sys
import time

sys.stderr.write("waiting\n")
sys.stderr.flush()
while True:
    time.sleep(60)
