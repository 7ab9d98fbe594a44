"""Draft the last id again and again."""

from llamakit import hookimpl


def again(times: int = 3):
    def draft(tokens):
        return list(tokens[-1:]) * (6 // times)  # 0 times fails

    return draft


@hookimpl
def register_drafters(drafters):
    drafters.register("again", again, help="the last id once more")
