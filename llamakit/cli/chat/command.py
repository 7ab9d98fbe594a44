"""``llamakit chat``: a conversation in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llamakit.cli.shared_options import (
    constraint_options,
    draft_option,
    model_options,
    sampling_options,
)

if TYPE_CHECKING:
    from llamakit.llama.options import LoadOptions, SamplingOptions
    from llamakit.plugin_manager.toolkit import Toolkit


@click.command()
@model_options
@sampling_options
@constraint_options
@draft_option
@click.option("--system", metavar="TEXT", help="The system message, which goes before the dialog.")
@click.option(
    "--history/--no-history",
    default=True,
    envvar="LLAMAKIT_CHAT_HISTORY",
    show_envvar=True,
    help="Keep what you type for later chats, in a file that only you can read.  [default: on]",
)
@click.pass_obj
def chat(
    toolkit: Toolkit,
    model: str | None,
    loading: LoadOptions,
    sampling: SamplingOptions,
    max_new_tokens: int | None,
    prompt_format: str | None,
    seed: int | None,
    draft: str | None,
    system: str | None,
    *,
    history: bool,
) -> None:
    """Talk with a model.

    Without -m the bundled demo model answers; it knows llamakit's own commands. In the chat, /help
    lists the slash commands; Ctrl-C stops an answer, Ctrl-D ends the chat.

    \b
    llamakit chat
    llamakit chat -m llama-2-7b-chat/ --system "Answer in French"
    echo "How do I verify a checkpoint?" | llamakit chat
    """
    from dataclasses import replace

    from llamakit.cli.chat import repl, slash_commands
    from llamakit.cli.chat.answer_settings import AnswerSettings
    from llamakit.cli.chat.chat import Chat
    from llamakit.cli.chat.conversation import Conversation
    from llamakit.cli.chat.line_reader import open_line_reader
    from llamakit.cli.open_model import check_choices, open_model
    from llamakit.llama.prompt_checks import check_unicode

    check_unicode(system or "", "--system")
    settings = AnswerSettings(**sampling.as_arguments(), max_new_tokens=max_new_tokens, seed=seed)
    check_choices(toolkit, model, loading.tokenizer, settings, draft)
    with open_model(toolkit, model, replace(loading, max_batch_size=1)) as llama:
        chat_ = Chat(llama, llama.prompt_format(prompt_format), Conversation(system), settings)
        if draft is not None:
            chat_.drafter = llama.drafter(draft)
        commands = [f"/{name}" for name in slash_commands.COMMANDS]
        status = repl.run(chat_, open_line_reader(commands, keeps_history=history))
    click.get_current_context().exit(status)
