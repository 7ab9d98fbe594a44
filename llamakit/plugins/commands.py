"""The built-in commands: one line each, imported when it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    import click

    from llamakit.hookspecs import Registrar

COMMANDS = {
    "chat": ("chat.command:chat", "Talk with a model."),
    "demo": ("demo:demo", "Show the whole way on the bundled demo model."),
    "doctor": ("doctor:doctor", "Say what models are computed with here."),
    "download": ("download:download", "Fetch models with the link from Meta's email."),
    "embed": ("embed:embed", "Compute embeddings of strings."),
    "generate": ("generate:generate", "Continue a prompt."),
    "join-answers": ("join_answers:join_answers", "Put the files of generate --part together."),
    "moderate": ("moderate:moderate", "Say whether text is safe, by a Llama Guard model."),
    "plugins": ("plugins:plugins", "List the plugins, what each registers, and whether it works."),
    "score": ("score:score", "Say how likely a model finds text: perplexity, multiple choice."),
    "serve": ("serve:serve", "Serve a model to OpenAI's clients and to a browser."),
}
CHECKPOINT_TOOLS = {
    "diff": ("diff:diff", "Compare two checkpoints of any format."),
    "edit": ("edit:edit", "Change dtypes, names, layers or the vocabulary."),
    "export": ("export:export", "Write a checkpoint in another format, such as hf."),
    "import": ("import_:import_", "Bring a Hugging Face folder into Meta's format."),
    "inspect": ("inspect:inspect", "Say what a checkpoint is; no weight is read."),
    "quantize": ("quantize:quantize", "Store weights in 8 or 4 bits."),
    "reshard": ("reshard:reshard", "Change the number of shards."),
    "verify": ("verify:verify", "Check files against their checklists, or --deep."),
}


@hookimpl
def register_commands(commands: Registrar[click.Command | str]) -> None:
    """Offer the commands that are no checkpoint tools."""
    for name, (place, help_) in COMMANDS.items():
        commands.register(name, f"llamakit.cli.{place}", help=help_)


@hookimpl
def register_checkpoint_tools(tools: Registrar[click.Command | str]) -> None:
    """Offer the commands that work on checkpoints."""
    for name, (place, help_) in CHECKPOINT_TOOLS.items():
        tools.register(name, f"llamakit.cli.{place}", help=help_)
