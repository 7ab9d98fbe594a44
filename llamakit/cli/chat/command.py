"""``llamakit chat``: a conversation in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llamakit.cli.options import (
    constraint_options,
    draft_option,
    model_options,
    sampling_options,
)

if TYPE_CHECKING:
    from llamakit.plugin_manager.toolkit import Toolkit


@click.command()
@model_options
@sampling_options
@constraint_options
@draft_option
@click.option("--system", metavar="TEXT", help="What the model is to be, said before the dialog.")
@click.pass_obj
def chat(
    toolkit: Toolkit,
    model: str | None,
    loading: dict[str, Any],
    sampling: dict[str, Any],
    max_new_tokens: int | None,
    prompt_format: str,
    seed: int | None,
    draft: str | None,
    system: str | None,
) -> None:
    """Talk with a model.

    Without -m the embedded model answers, which knows llamakit's own commands. In the chat, /help
    lists what can be typed besides messages; Ctrl-C stops an answer, Ctrl-D ends the chat.

    \b
    llamakit chat
    llamakit chat -m llama-2-7b-chat/ --system "Answer in French"
    echo "How do I verify a checkpoint?" | llamakit chat
    """
    from llamakit.cli.chat import repl
    from llamakit.cli.chat.answer_settings import Settings
    from llamakit.cli.chat.chat import Chat
    from llamakit.cli.chat.conversation import Conversation
    from llamakit.cli.open_model import open_model, tokenizer_for_sampling
    from llamakit.llama.drafter_choice import choose_drafter

    settings = Settings(**sampling, max_new_tokens=max_new_tokens, seed=seed)
    words = tokenizer_for_sampling(
        toolkit,
        model,
        loading["tokenizer"],
        sampler=settings.sampler,
        processors=settings.processors,
    )
    settings.sampling(toolkit, words)  # refuse what cannot be built before the weights are read
    if draft is not None:
        choose_drafter(draft, toolkit=toolkit)
    loading["max_batch_size"] = 1
    with open_model(toolkit, model, **loading) as llama:
        chat_ = Chat(llama, llama.prompt_format(prompt_format), Conversation(system), settings)
        if draft is not None:
            chat_.drafter = llama.drafter(draft)
        repl.run(chat_)
