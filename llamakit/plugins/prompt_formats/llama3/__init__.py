"""The prompt formats of Llama 3, Llama 4 and Llama Guard.

``header_format`` writes messages, ``tools`` tools and their calls, ``guard`` what Llama Guard is
asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llamakit import hookimpl
from llamakit.files.home_folder import expand_home

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.plugins.prompt_formats.llama3.header_format import Settings
    from llamakit.plugins.prompt_formats.llama3.tools import Style
    from llamakit.protocols import PromptFormat, PromptFormatFactory, Tokenizer


def llama3(
    tokenizer: Tokenizer,
    trim: bool = False,
    date: str | None = None,
    tools: Path | None = None,
    tool_style: Literal["json", "function-tag", "python-list"] | None = None,
    builtin_tools: str | None = None,
) -> PromptFormat:
    """Encode a dialog as Llama 3, 3.1, 3.2 and 3.3 were trained on.

    Args:
        trim: remove white space at both ends of messages, as Hugging Face's templates do;
            Meta's code keeps it.
        date: write this date into the system message; "today" is today's. None writes none.
        tools: a JSON file of tools, in OpenAI's format, which are described to the model.
        tool_style: how tools are described and calls written; json if not given, while
            Llama 3.2 was trained with python-list.
        builtin_tools: names of tools that the model knows (brave_search, wolfram_alpha,
            code_interpreter), separated by spaces, to be switched on.
    """
    from llamakit.plugins.prompt_formats.llama3.header_format import LLAMA_3, HeaderFormat

    settings = _settings(trim, date, tools, tool_style, builtin_tools)
    return HeaderFormat(tokenizer, LLAMA_3, settings)


def llama4(
    tokenizer: Tokenizer,
    trim: bool = False,
    date: str | None = None,
    tools: Path | None = None,
    tool_style: Literal["json", "function-tag", "python-list"] | None = None,
) -> PromptFormat:
    """Encode a dialog as Llama 4 was trained on.

    Args:
        trim: remove white space at both ends of messages; Meta's code keeps it.
        date: write this date into the system message; "today" is today's. None writes none.
        tools: a JSON file of tools, in OpenAI's format, which are described to the model.
        tool_style: how tools are described and calls written; python-list if not given.
    """
    from llamakit.plugins.prompt_formats.llama3.header_format import LLAMA_4, HeaderFormat

    settings = _settings(trim, date, tools, tool_style, None)
    return HeaderFormat(tokenizer, LLAMA_4, settings)


def llama_guard(tokenizer: Tokenizer, categories: int = 14) -> PromptFormat:
    """Ask Llama Guard 2, 3 or 4 whether the last message of a dialog is safe.

    Args:
        categories: how many, from S1 on: 14 for Llama Guard 3 8B, 13 for 1B and 11B-Vision.
    """
    from llamakit.plugins.prompt_formats.llama3 import header_format
    from llamakit.plugins.prompt_formats.llama3.guard import GuardFormat

    is_4 = getattr(tokenizer, "prompt_format", "") == "llama4"
    tags = header_format.LLAMA_4 if is_4 else header_format.LLAMA_3
    headers = header_format.HeaderFormat(tokenizer, tags, header_format.Settings())
    return GuardFormat(headers, categories)


def _settings(
    trim: bool, date: str | None, tools: Path | None, style: Style | None, builtin: str | None
) -> Settings:
    from llamakit.plugins.prompt_formats.llama3.header_format import Settings
    from llamakit.plugins.prompt_formats.llama3.tools import read_tools

    listed = read_tools(expand_home(tools)) if tools is not None else ()
    return Settings(trim, date, style, (builtin or "").split(), listed)


@hookimpl
def register_prompt_formats(formats: Registrar[PromptFormatFactory]) -> None:
    """Offer ``llama3``, ``llama4`` and ``llama-guard``."""
    formats.register("llama3", llama3, help="<|start_header_id|>role …, of Llama 3 to 3.3")
    formats.register("llama4", llama4, help="<|header_start|>role …, of Llama 4")
    formats.register("llama-guard", llama_guard, help="is a dialog safe?, of Llama Guard 2 to 4")
