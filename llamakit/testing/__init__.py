"""The kit for authors of plugins: small checkpoints, rows, and a contract check for each kind.

A check calls a thing as llamakit does and raises an ``AssertionError`` whose sentence says what
to fix. With pytest the fixtures of ``llamakit.testing.pytest_plugin`` are there without an
import. Every name here is imported when first used, so pytest starts no slower.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamakit.testing.catalog_checks import check_catalogue_entry
    from llamakit.testing.checkpoint_checks import check_checkpoint_form
    from llamakit.testing.command_checks import check_checkpoint_tool, check_command
    from llamakit.testing.drafter_checks import check_drafter
    from llamakit.testing.engine_checks import check_engine
    from llamakit.testing.exporter_checks import check_exporter
    from llamakit.testing.kernel_checks import check_kernel, round_weight
    from llamakit.testing.observer_checks import check_observer
    from llamakit.testing.prompt_format_checks import check_prompt_format
    from llamakit.testing.registration_checks import check_plugin
    from llamakit.testing.rows import make_rows
    from llamakit.testing.runner_checks import check_runner
    from llamakit.testing.sampling_checks import check_logits_processor, check_sampler
    from llamakit.testing.small_checkpoints import embedded_tokenizer, write_checkpoint
    from llamakit.testing.tokenizer_checks import check_tokenizer

_HOMES = {
    "check_catalogue_entry": "catalog_checks",
    "check_checkpoint_form": "checkpoint_checks",
    "check_checkpoint_tool": "command_checks",
    "check_command": "command_checks",
    "check_drafter": "drafter_checks",
    "check_engine": "engine_checks",
    "check_exporter": "exporter_checks",
    "check_kernel": "kernel_checks",
    "check_logits_processor": "sampling_checks",
    "check_observer": "observer_checks",
    "check_plugin": "registration_checks",
    "check_prompt_format": "prompt_format_checks",
    "check_runner": "runner_checks",
    "check_sampler": "sampling_checks",
    "check_tokenizer": "tokenizer_checks",
    "embedded_tokenizer": "small_checkpoints",
    "make_rows": "rows",
    "round_weight": "kernel_checks",
    "write_checkpoint": "small_checkpoints",
}

__all__ = [
    "check_catalogue_entry",
    "check_checkpoint_form",
    "check_checkpoint_tool",
    "check_command",
    "check_drafter",
    "check_engine",
    "check_exporter",
    "check_kernel",
    "check_logits_processor",
    "check_observer",
    "check_plugin",
    "check_prompt_format",
    "check_runner",
    "check_sampler",
    "check_tokenizer",
    "embedded_tokenizer",
    "make_rows",
    "round_weight",
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
