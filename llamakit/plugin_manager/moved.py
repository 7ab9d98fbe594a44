"""Where modules of 0.1 are now, for plugins that import them.

None of them was promised. A plugin that imports one is broken, and its line says what to write.
"""

from __future__ import annotations

MOVED = {
    "llamakit.registry": "llamakit.hookspecs (Registrar)",
    "llamakit.toolkit": "llamakit itself (open_checkpoint, load_tokenizer)",
    "llamakit.streaming": "llamakit itself (Llama)",
    "llamakit.llama": "llamakit itself (Llama)",
    "llamakit.loading": "llamakit itself (Llama)",
    "llamakit.checkpoint.meta": "llamakit itself (open_checkpoint)",
    "llamakit.checkpoint.huggingface": "llamakit itself (open_checkpoint)",
    "llamakit.checkpoint.plan": "llamakit itself (plan_reshard)",
    "llamakit.convert.carry": "llamakit itself (reshard, export)",
    "llamakit.factories": "llamakit.plugin_manager.factories, which may change",
    "llamakit.docstrings": "llamakit.plugin_manager.docstrings, which may change",
    "llamakit.discovery": "llamakit.plugin_manager.entry_points, which may change",
    "llamakit.records": "llamakit.plugin_manager.plugin_record, which may change",
    "llamakit.guarding": "llamakit.plugin_manager.failures, which may change",
    "llamakit.strangers": "llamakit.plugin_manager.contracts, which may change",
    "llamakit.drafters": "llamakit.llama.drafter_choice, which may change",
    "llamakit.prompts": "llamakit.llama.prompts, which may change",
    "llamakit.options": "llamakit.cli.shared_options, which may change",
    "llamakit.tables": "llamakit.cli.terminal, which may change",
    "llamakit.console": "llamakit.cli.terminal, which may change",
    "llamakit.answer_file": "llamakit.cli.answer_file, which may change",
    "llamakit.authoring": "llamakit.testing",
    "llamakit.runtime.generator": "llamakit.runtime.scheduler, which may change",
    "llamakit.runtime.service": "llamakit.runtime.engine, which may change",
}
"""What a module of 0.1 is called now, with the public names that take its place."""


def where_it_is_now(error: BaseException) -> str:
    """Say what to import instead of a moved module; nothing if the error is about no such one."""
    if not isinstance(error, ImportError) or not error.name:
        return ""
    new = MOVED.get(error.name, "")
    return f"{error.name} is now {new}" if new else ""
