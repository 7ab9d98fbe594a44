"""A third-party model in the download catalog; when asked to, it breaks the download too."""

import json
import os

from llamakit import hookimpl

PLAIN = json.dumps


@hookimpl
def register_models(models):
    entry = {
        "names": ["the-small-one"],
        "folder": "small/1b",
        "root_files": ["TERMS.txt"],
        "tokenizer_files": [],
    }
    models.register("Small-1B", entry, help="A model for tests")
    if "BREAK_JSON" in os.environ:
        json.dumps = dumps


def dumps(value, **how):
    if isinstance(value, dict) and value.get("event") == "planned":
        return 1 / 0
    return PLAIN(value, **how)
