"""Options in messages: flags for commands, keyword arguments for who calls Python."""

from __future__ import annotations

import re

_SWITCHES = ("force", "repair", "deep", "verify", "instruct", "partial")
_RENAMED = {"url-file": "link", "sampler-option": "sampler_options", "base": "instruct=False"}
_OTHERS = (
    "model-parallel-size max-seq-len max-batch-size max-new-tokens dtype device quantize tokenizer "
    "join-timeout rope-factor prompt-format sampler temperature top-p seed stop draft processor "
    "kv-cache output-dir limit-rate connections max-shard-size keep drop rename vocab-size "
    "pad-vocab-to-multiple init into"
)
_FORMAT_OPTION = re.compile(r"--prompt-format ([a-z-]+):([a-z]+)=([A-Z]+)\b")
_FLAG = re.compile(
    rf"(?<![\w-])--({'|'.join((*_SWITCHES, *_RENAMED, *_OTHERS.split()))})(?![\w-])"
    r"(?: ([A-Z][A-Z0-9]*\b|[0-9][0-9.]*\b))?"
)


def as_arguments(message: str) -> str:
    """Replace the flags of commands in a message by the arguments of llamakit's functions.

    Flags of other programs, and those without an argument, stay.
    """
    if "--" not in message:
        return message
    return _FLAG.sub(_argument, _FORMAT_OPTION.sub(r'prompt_format("\1", \2=\3)', message))


def _argument(match: re.Match[str]) -> str:
    flag, value = match[1], match[2]
    name = _RENAMED.get(flag, flag.replace("-", "_"))
    if flag in _SWITCHES:
        return f"{name}=True" + (f" {value}" if value else "")
    return f"{name}={value}" if value else name
