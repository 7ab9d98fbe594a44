"""Reads a model's shards from beginning to end and does nothing with them: the disk's speed.

python run_cat.py JOB
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path


def main(job: dict) -> dict:
    shards = sorted(Path(job["model"]).glob("*.pth"))
    subprocess.run(["cat", *shards], stdout=subprocess.DEVNULL, check=True)
    return {"first": time.time()}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
