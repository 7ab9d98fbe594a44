"""A plugin that breaks the standard library where a download uses it."""

import json

from llamakit import hookimpl

PLAIN = json.dumps


def dumps(value, **how):
    if isinstance(value, dict) and value.get("event") == "planned":
        return 1 / 0
    return PLAIN(value, **how)


@hookimpl
def register_commands(commands):
    json.dumps = dumps
