"""The kit for authors of plugins: small checkpoints, rows, and a contract check for each kind.

A check calls a thing as llamakit does and raises an ``AssertionError`` whose sentence says what
to fix. With pytest the fixtures of ``llamakit.testing.pytest_plugin`` are there without an
import. Every name here is imported when first used, so pytest starts no slower.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamakit.testing.catalogs import check_catalogue_entry
    from llamakit.testing.commands import check_checkpoint_tool, check_command
    from llamakit.testing.drafters import check_drafter
    from llamakit.testing.exporters import check_exporter
    from llamakit.testing.formats import check_checkpoint_form
    from llamakit.testing.prompt_formats import check_prompt_format
    from llamakit.testing.registration import check_plugin
    from llamakit.testing.rows import make_rows
    from llamakit.testing.sampling_checks import check_logits_processor, check_sampler
    from llamakit.testing.small import embedded_tokenizer, write_checkpoint
    from llamakit.testing.tokenizers import check_tokenizer

_HOMES = {
    "check_catalogue_entry": "catalogs",
    "check_checkpoint_form": "formats",
    "check_checkpoint_tool": "commands",
    "check_command": "commands",
    "check_drafter": "drafters",
    "check_exporter": "exporters",
    "check_logits_processor": "sampling_checks",
    "check_plugin": "registration",
    "check_prompt_format": "prompt_formats",
    "check_sampler": "sampling_checks",
    "check_tokenizer": "tokenizers",
    "embedded_tokenizer": "small",
    "make_rows": "rows",
    "write_checkpoint": "small",
}

__all__ = [
    "check_catalogue_entry",
    "check_checkpoint_form",
    "check_checkpoint_tool",
    "check_command",
    "check_drafter",
    "check_exporter",
    "check_logits_processor",
    "check_plugin",
    "check_prompt_format",
    "check_sampler",
    "check_tokenizer",
    "embedded_tokenizer",
    "make_rows",
    "write_checkpoint",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOMES[name]}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
