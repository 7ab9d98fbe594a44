"""Hugging Face's chat templates as a prompt format.

``template_file`` finds a template. ``renderer`` has a process, ``render_process``, render it within
limits, in the sandbox of ``chat_environment``. There, ``user_text`` keeps apart what the template
wrote and what came from messages, and ``pieces`` splits it at special tokens. ``format`` makes
tokens of it, and ``tool_format`` has the template write tools, whose JSON ``user_json`` covers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import PromptFormat, PromptFormatFactory, Tokenizer


@hookimpl
def register_prompt_formats(formats: Registrar[PromptFormatFactory]) -> None:
    """Offer ``jinja``."""

    def jinja(
        tokenizer: Tokenizer, file: str | None = None, template: str = "default"
    ) -> PromptFormat:
        """Encode a dialog with a Hugging Face chat template.

        Args:
            file: a template, or a tokenizer_config.json that holds one; none looks in the
                tokenizer's own file, or next to it.
            template: which one, where the file holds several with names.
        """
        from llamakit.plugins.prompt_formats.jinja.format import JinjaFormat
        from llamakit.plugins.prompt_formats.jinja.template_file import find
        from llamakit.plugins.prompt_formats.jinja.tool_format import ToolTemplateFormat

        found = find(tokenizer, file, template)
        with_tools = ToolTemplateFormat(tokenizer, found)
        return with_tools if with_tools.writes_tools else JinjaFormat(tokenizer, found)

    formats.register("jinja", jinja, help="a chat template of Hugging Face's")
