"""Refuses grammars for which the engine would take minutes, and gigabytes, before it says no.

Whether some string matches several patterns at once takes twice as long for each further one, and
the engine cannot be interrupted. So where many may meet, and where a grammar is long, another
process tries first.
"""

from __future__ import annotations

import os
import subprocess
import sys

from llamakit.errors import OptionError
from llamakit.plugins.processors.grammar.messages import MAX_SCHEMA_LENGTH

MOST_PATTERNS = 8
"""Patterns of a schema that may meet in one string without a try: 2 ms."""
LONGEST_UNTRIED = MAX_SCHEMA_LENGTH
"""Characters of a grammar that is not tried: one second and 200 MB at worst."""
NBYTES = 512 << 20
"""Memory of a try; the calls of 128 tools need 100 MB."""
WALL_SECONDS = 60
"""For a process that waits for others; it may compute for one or two seconds."""
_PROGRAM = f"""
import sys
NBYTES = {NBYTES}
sys.path[:] = sys.argv[1:]
from llguidance import LLMatcher
try:
    import resource
    usage = resource.getrusage(resource.RUSAGE_SELF)
    most = int(usage.ru_utime + usage.ru_stime) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = NBYTES if hard == resource.RLIM_INFINITY else min(NBYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
except ImportError:
    pass
grammar = LLMatcher.grammar_from_lark(sys.stdin.buffer.read().decode())
LLMatcher.validate_grammar_with_warnings(grammar)
"""


class TooSlowError(OptionError):
    """The engine would take too long for a grammar."""


def check_time(grammar: str, name: str) -> None:
    """Try a grammar in another process if it is long or many patterns may have to match at once.

    Args:
        grammar: in Lark's notation.
        name: of what the user has given, as the subject of a sentence.
    Raises:
        TooSlowError: it takes too long, or too much memory.
    """
    is_long = len(grammar) > LONGEST_UNTRIED
    if not (is_long or may_be_slow(grammar)):
        return
    places = [os.path.abspath(place) for place in sys.path]  # noqa: PTH100 - "" is the folder
    try:
        tried = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, *places],
            input=grammar.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ},
            timeout=WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        is_slow = True
    else:
        is_slow = tried.returncode < 0  # other failures are the engine's to explain
    if is_slow and is_long:
        raise TooSlowError(
            f"{name} cannot be used: its {len(grammar)} characters take too much time or memory; "
            "make it shorter"
        )
    if is_slow:
        raise TooSlowError(
            f"{name} cannot be used: it takes too long to find out whether some string matches all "
            "its patterns; join fewer of them by allOf and $ref"
        )


def may_be_slow(grammar: str) -> bool:
    """Return whether more than a few patterns may meet; a key may be written with escapes."""
    escapes = grammar.count("\\u")
    patterns = grammar.count('"pattern"') + grammar.count('"format"') + escapes
    joins = grammar.count('"allOf"') + grammar.count('"$ref"') + escapes
    return "%json" in grammar and patterns > MOST_PATTERNS and joins > 0
