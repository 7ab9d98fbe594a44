"""The process that renders chat templates, within limits that the kernel holds.

Whatever a template calls, its memory and its CPU time are bounded here, and nobody has to know the
call. Run by ``renderer``; imports Jinja and nothing heavy. It ends with its standard input.
"""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Template
from jinja2.exceptions import SecurityError, TemplateSyntaxError

from llamakit.plugins.prompt_formats.jinja.chat_environment import RaisedError, chat_environment
from llamakit.plugins.prompt_formats.jinja.framing import NO_MEMORY, read_message, write_message
from llamakit.plugins.prompt_formats.jinja.pieces import AmbiguousTextError, split_rendering
from llamakit.plugins.prompt_formats.jinja.user_json import covered_json, texts_of
from llamakit.plugins.prompt_formats.jinja.user_text import Cover, is_unicode

try:
    import resource
except ImportError:  # Windows has no limits of this kind: the renderer's clock is all there is
    resource = None  # type: ignore[assignment]  # typeshed has the module everywhere

LARGEST_KEPT = 100_000
"""Characters of a template that stays compiled: a real one has 30,000 at most."""
MOST_PIECES = 200_000
"""Special tokens and the strings between them: the tokenizer is called for each string."""


def main(limits: str) -> None:
    """Answer requests until there are no more.

    Args:
        limits: JSON of ``renderer.Limits``.
    """
    allowed = json.loads(limits)  # noqa: TID251 - of the parent
    _warm_up()
    with Path(os.devnull).open("wb") as nothing:  # errors of the start were worth reading
        os.dup2(nothing.fileno(), 2)
    _set_limits(allowed["nbytes"])
    try:
        while True:
            request = read_message(sys.stdin.buffer)
            _allow_cpu_time(allowed["cpu_seconds"])
            write_message(sys.stdout.buffer, _reply(request, allowed["characters"]))
    except MemoryError:
        os._exit(NO_MEMORY)
    except (EOFError, OSError):  # the other process has ended
        os._exit(0)


def _warm_up() -> None:
    """Import now what Jinja and Python would import later, when no file can be opened."""
    import pprint  # noqa: F401
    import unicodedata  # noqa: F401

    import jinja2.debug  # noqa: F401

    text = r"{{ lipsum() | urlize | wordwrap | striptags | pprint ~ '\n' }}"
    chat_environment().from_string(text).render()


def _set_limits(nbytes: int) -> None:
    """Bound the memory; leave no files, no sockets and no core dumps."""
    if resource is not None:
        _lower(resource.RLIMIT_DATA, nbytes)
        _lower(resource.RLIMIT_NOFILE, 3)
        _lower(resource.RLIMIT_FSIZE, 0)
        _lower(resource.RLIMIT_CORE, 0)


def _lower(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _allow_cpu_time(seconds: int) -> None:
    """Have the kernel end this process when it has computed for so long from now on."""
    if resource is not None:
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        most = math.ceil(time.process_time()) + seconds
        resource.setrlimit(
            resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
        )


def _reply(request: dict[str, Any], characters: int) -> list[str] | dict[str, str]:
    """Render a dialog; return its pieces, or what is wrong."""
    try:
        template = _compiled(request["template"])
    except TemplateSyntaxError as error:
        return _failure("syntax", f"line {error.lineno} of the template: {error.message}")
    except Exception as error:  # noqa: BLE001 - Python's compiler gives up in several ways
        return _failure("syntax", f"the template cannot be compiled ({_named(error)})")
    try:
        return _pieces(template, request, characters)
    except MemoryError:
        raise
    except RaisedError as error:
        return _failure("raised", error.message or "")
    except AmbiguousTextError as error:
        return _failure("ambiguous", str(error))
    except Exception as error:  # noqa: BLE001 - a template may do anything wrong
        return _failure("failed", f"fails with {_named(error)}")


def _check_output(text: str, characters: int) -> None:
    if len(text) > characters:
        raise SecurityError(f"it writes more than {characters} characters")
    if not is_unicode(text):
        raise SecurityError("it writes a lone surrogate, which is no character")


def _compiled(text: str) -> Template:
    return _kept(text) if len(text) <= LARGEST_KEPT else chat_environment().from_string(text)


@functools.lru_cache(maxsize=8)
def _kept(text: str) -> Template:
    return chat_environment().from_string(text)


def _pieces(template: Template, request: dict[str, Any], characters: int) -> list[str]:
    special = request["special"]
    given: dict[str, Any] = {"messages": request["messages"], "tools": request["tools"]}
    spaces = {character for name in special for character in name if character.isspace()}
    texts = [*texts_of(given["messages"], "message"), *texts_of(given["tools"] or (), "tool")]
    cover = Cover(spaces, [*(text for _, text in texts), *special])
    hidden = {
        "messages": [
            {"role": message["role"]}
            | {name: covered_json(it, cover) for name, it in message.items() if name != "role"}
            for message in given["messages"]
        ],
        "tools": covered_json(given["tools"], cover),
    }
    now = datetime.fromisoformat(request["now"])
    plain, covered = (
        template.render(
            request["names"],
            **values,
            add_generation_prompt=request["answer"],
            strftime_now=now.strftime,
            documents=None,
        )
        for values in (given, hidden)
    )
    _check_output(plain, characters)
    pieces = split_rendering(plain, covered, cover, texts, special)
    if len(pieces) > MOST_PIECES:
        raise SecurityError(f"it writes more than {MOST_PIECES // 2} special tokens")
    return pieces


def _failure(kind: str, message: str) -> dict[str, str]:
    return {"failure": kind, "message": message[:1000]}


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
