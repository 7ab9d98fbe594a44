"""Writes the generated parts of docs/reference, which ``cog`` puts between its markers.

    cog -I docs -r docs/reference/*.md

Everything is taken from the code: the Click tree, the hooks, the registries, docstrings.
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ParamSpec

import click

import llamakit
from llamakit import api, errors, hookspecs, protocols, sampling, testing
from llamakit.checkpoint.params import ModelParams
from llamakit.cli.chat.answer_settings import AnswerSettings
from llamakit.cli.chat.slash_commands import COMMANDS
from llamakit.cli.main import build_cli
from llamakit.convert.conversion_plan import ConversionPlan
from llamakit.convert.plan_summary import PlanSummary
from llamakit.download import events
from llamakit.examine import diff, vocabulary
from llamakit.examine import inspect as inspection
from llamakit.examine import memory_estimate as memory
from llamakit.examine import verify_report as report
from llamakit.plugin_manager.factories import options_of
from llamakit.plugin_manager.registry import Registry
from llamakit.plugin_manager.toolkit import Toolkit, load_toolkit
from llamakit.serve import client_fields, message_schemas, request_schemas
from llamakit.serve.responses_schema import RESPONSES
from llamakit.serve.schema_parts import closed, is_unused
from llamakit.testing import pytest_plugin

USED_BY = {
    "register_samplers": "`generate`, `chat` and `serve` (`--sampler`, and `sampler` in requests), "
    "`choose_sampling` in Python.",
    "register_logits_processors": "`generate`, `chat` and `serve` (`--processor`, and `processors` "
    "in requests), `choose_sampling` in Python.",
    "register_prompt_formats": "`chat`, `serve`, `generate` (`--prompt-format`) for prompts that "
    "are dialogs, and for strings where the format encodes them, and the chat methods of `Llama`.",
    "register_checkpoint_tools": "`llamakit NAME`; `llamakit --help` lists the built-in ones under "
    "*Checkpoint tools*, those of other packages under *From PACKAGE*.",
    "register_exporters": "`export` (`--format`), and `llamakit.export` in Python.",
    "register_models": "`download`, and `llamakit.download_models` in Python.",
    "register_engines": "`export` (`--for`), and `llamakit.export(engine=…)` in Python.",
    "register_drafters": "`generate` and `chat` (`--draft`), `Llama.drafter` and the argument "
    "`draft` of `Llama.stream` in Python.",
    "register_observers": "`generate` (`--observer`) and the argument `observers` of "
    "`Llama.stream`; `embed` and `/v1/embeddings` use the built-in `embedding`.",
    "register_runners": "`generate` (`--on`).",
    "register_kernels": "everything that loads a model, with what `doctor --calibrate` measured.",
    "register_commands": "`llamakit NAME`; `llamakit --help` lists those of other packages under "
    "*From PACKAGE*.",
    "open_checkpoint": "everything that takes a model's folder.",
    "load_tokenizer": "everything that takes a model's folder or a tokenizer's file.",
}
"""Who asks for what a hook brings. A test holds that no hook is missing here."""

CALLED = {
    False: "once at each start, when all plugins are imported: of each plugin, in pluggy's order.",
    True: "when something is opened, on one plugin after another until one returns something else "
    "than None, in pluggy's order: third-party plugins before the built-in ones.",
}
"""When a hook is called, by whether its first result counts."""

ON_AN_EXCEPTION = {
    False: "the plugin is broken and skipped, with one line on standard error; nothing that any of "
    "its hooks registers counts, and everything else works. A name that is taken costs the plugin "
    "that name only.",
    True: "a `LlamakitError` is the answer, and nobody else is asked. At any other the plugin is "
    "broken and skipped until the process ends, with one line on standard error, and the next one "
    "is asked.",
}
"""What llamakit does when a hook raises, by whether its first result counts."""


BODIES = {
    "COMPLETION": request_schemas.COMPLETION,
    "CHAT": request_schemas.CHAT,
    "RESPONSES": RESPONSES,
    "EMBEDDING": request_schemas.EMBEDDING,
    "TOKENIZE": request_schemas.TOKENIZE,
}

P = ParamSpec("P")


def generated(write: Callable[P, str]) -> Callable[P, str]:
    """Set what a function writes apart from cog's markers, as Markdown wants it."""

    @functools.wraps(write)
    def apart(*args: P.args, **kwargs: P.kwargs) -> str:
        return f"\n{write(*args, **kwargs)}\n"

    return apart


def toolkit() -> Toolkit:
    """Return the built-in plugins alone, whatever else is installed."""
    return load_toolkit(disabled="all")


@generated
def commands() -> str:
    """Describe every command with its arguments and options."""
    cli = build_cli(toolkit())
    root = click.Context(cli, info_name="llamakit", **cli.context_settings)
    parts = ["## llamakit", _command_text(cli, root)]
    for context in _subcommands(cli, root):
        parts += [f"## {context.command_path}", _command_text(context.command, context)]
    return _join(parts)


@generated
def chat_commands() -> str:
    """List the words that begin with a slash."""
    rows = []
    for command in COMMANDS.values():
        usage, _, meaning = (command.__doc__ or "").strip().rstrip(".").partition(": ")
        rows.append((f"`{usage}`", meaning))
    return _table(("typed", "what it does"), rows)


@generated
def chat_settings() -> str:
    """List what ``/set`` knows."""
    return "\n".join(f"- `{line.partition(' ')[0]}`" for line in AnswerSettings().lines())


@generated
def hooks() -> str:
    """Describe every hook, in the order of hookspecs.py."""
    parts = []
    for function in hook_functions():
        first = _is_first_result(function)
        docstring = inspect.getdoc(function) or ""
        body, _, since = docstring.rpartition("Since ")
        parts += [
            f"## {function.__name__}",
            f"```python\n{_signature(function)}\n```",
            _prose(body.strip()),
            f"- Called {CALLED[first]}\n"
            f"- On an exception: {ON_AN_EXCEPTION[first]}\n"
            f"- Asked for by: {USED_BY[function.__name__]}\n"
            f"- Since {since.rstrip('.')}.",
        ]
    return _join(parts)


def hook_functions() -> list[Callable[..., Any]]:
    """List the hooks, in the order of hookspecs.py."""
    return [
        value
        for value in vars(hookspecs).values()
        if inspect.isfunction(value) and hasattr(value, "llamakit_spec")
    ]


@generated
def registered(kind: str) -> str:
    """Describe what the built-in plugins register of one kind.

    Args:
        kind: the name of one of the toolkit's registries, such as ``"samplers"``.
    """
    registry: Registry[Any] = getattr(toolkit(), kind)
    parts = []
    for entry in sorted(registry, key=lambda entry: entry.name):
        parts += [f"### {entry.name}", _prose(f"{entry.help[:1].upper()}{entry.help[1:]}.")]
        parts.append(_prose(_description(entry.value)))
        if origin := _origin(entry.value):
            parts.append(_prose(f"From: {origin}"))
        rows = [
            (
                f"`{it.name}`",
                f"`{it.type_name}`",
                f"`{it.default}`" if it.default != "" else "",
                it.help,
            )
            for it in options_of(entry.value)
        ]
        parts.append(_table(("option", "type", "default", ""), rows) if rows else "No options.")
    return _join(parts)


def _description(factory: object) -> str:
    """Return what a docstring says before its sections."""
    sections = r"\n\n?(?:Args|Options|Raises|Source|Returns):"
    return re.split(sections, inspect.getdoc(factory) or "")[0]


def _origin(factory: object) -> str:
    """Return what the ``Source:`` of a docstring says, with its links to click on."""
    said = (inspect.getdoc(factory) or "").partition("\nSource: ")[2].partition("\n\n")[0]
    return re.sub(r"https?://[^\s;,]+", r"<\g<0>>", " ".join(said.split()))


@generated
def python_api() -> str:
    """Describe the public names."""
    parts = []
    for name in sorted(set(llamakit.__all__) - {"Llama", "__version__", "LlamakitError"}):
        value = getattr(llamakit, name)
        if inspect.isfunction(value):
            parts += _function(f"llamakit.{name}", value)
    parts += _function("llamakit.api.plan_reshard", api.plan_reshard)
    parts += _function("llamakit.api.choose_sampling", api.choose_sampling)
    parts += _function("llamakit.api.score", api.score)
    parts += _function("llamakit.api.embed", api.embed)
    parts += _function("llamakit.sampling.draw_ids", sampling.draw_ids)
    parts += _function("llamakit.sampling.count_ids", sampling.count_ids)
    parts += _function("llamakit.sampling.keep_some", sampling.keep_some)
    return _join(parts)


@generated
def llama() -> str:
    """Describe the class ``Llama``."""
    parts = [_prose(inspect.getdoc(api.Llama) or "")]
    names = ["build", "open", "generate", "text_completion", "chat_completion"]
    names += ["text_infilling", "stream_text", "stream_chat", "stream", "prompt_format", "drafter"]
    names += ["forget", "close"]
    for name in names:
        parts += _function(f"Llama.{name}", getattr(api.Llama, name), level=3)
    rows = [
        (f"`{name}`", (inspect.getdoc(value) or "").rstrip("."))
        for name, value in inspect.getmembers(api.Llama, lambda it: isinstance(it, property))
    ]
    return _join([*parts, "### Attributes", _table(("name", ""), rows)])


@generated
def values() -> str:
    """Describe the values that go in and come out."""
    return _classes(api.Chunk, protocols.Row)


@generated
def testing_checks() -> str:
    """Describe the functions of ``llamakit.testing``."""
    parts: list[str] = []
    for name in testing.__all__:
        parts += _function(f"llamakit.testing.{name}", getattr(testing, name), level=3)
    return _join(parts)


@generated
def testing_fixtures() -> str:
    """List the fixtures that pytest offers where llamakit is installed."""
    rows = [
        (f"`{name}`", " ".join((inspect.getdoc(value) or "").split()))
        for name, value in vars(pytest_plugin).items()
        if name.startswith("llamakit_")
    ]
    return _table(("fixture", ""), rows)


@generated
def checkpoint() -> str:
    """Describe what ``open_checkpoint`` returns, and what a checkpoint of one's own has to have."""
    parts = _methods(protocols.Checkpoint)
    parts += [_classes(protocols.Parameter, ModelParams)]
    parts += _methods(protocols.CheckpointCapabilities)
    return _join(
        [*parts, _classes(protocols.RawRegion, protocols.QuantizedWeight, protocols.Finding)]
    )


@generated
def reports() -> str:
    """Describe what the checkpoint tools return."""
    return _classes(
        *(report.VerifyReport, report.FolderReport, report.FileReport, report.NonFinite),
        *(inspection.Inspection, memory.RankMemory, vocabulary.Vocabulary),
        *(diff.DiffReport, diff.ParameterDiff),
        *(ConversionPlan, PlanSummary, events.Finished, protocols.CatalogEntry, protocols.Engine),
    )


@generated
def plugin_protocols() -> str:
    """Describe what a plugin is called with, or has to look like, with every method."""
    parts = [_classes(protocols.Message, protocols.AnswerJob, protocols.AnswerPiece)]
    classes = (protocols.Tokenizer, protocols.OpenTokenizer)
    formats = (protocols.PromptFormat, protocols.TextFormat, protocols.GapFormat)
    observers = (protocols.Observer, protocols.DrawingObserver, protocols.HiddenStates)
    exporters = (protocols.ExporterCapabilities,)
    runners = (protocols.RunnerCapabilities, protocols.Replica)
    kernels = (protocols.KernelSpec, protocols.PackedWeight, protocols.RoundedWeight)
    for cls in (*classes, *formats, *observers, *exporters, *runners, *kernels):
        parts += _methods(cls)
    return _join(parts)


def _methods(cls: type) -> list[str]:
    """Describe a class, and each of its own methods."""
    parts = [_classes(cls)]
    for name, value in vars(cls).items():
        if inspect.isfunction(value) and not name.startswith("_"):
            parts += _function(f"{cls.__name__}.{name}", value, level=4)
    return parts


def _classes(*classes: type) -> str:
    parts: list[str] = []
    for cls in classes:
        parts += [f"### {cls.__name__}", _prose(inspect.getdoc(cls) or "")]
        rows = list(_attributes(cls))
        if rows and "Args:" not in (inspect.getdoc(cls) or ""):
            parts.append(_table(("attribute", "type", ""), rows))
    return _join(parts)


@generated
def round_trips() -> str:
    """Say which format gives back which reference case, as the tests have found."""
    file = Path(__file__).parents[1] / "tests" / "packages" / "data" / "formats_held.json"
    held = json.loads(file.read_text("utf-8"))
    names = list(next(iter(held.values())))
    rows = [
        (f"`{name}`", *("refused" if it[name] else "every bit" for it in held.values()))
        for name in names
    ]
    return _table(("", *(f"`{case}`" for case in held)), rows)


@generated
def error_tree() -> str:
    """Show the exception tree as errors.py draws it."""
    tree = (errors.__doc__ or "").partition("\n\n")[2].partition("\n\n")[0]
    return f"```text\n{textwrap.dedent(tree)}\n```"


def _subcommands(group: click.Group, context: click.Context) -> Iterator[click.Context]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, parent=context, info_name=name)
        yield inner
        if isinstance(command, click.Group):
            yield from _subcommands(command, inner)


def _command_text(command: click.Command, context: click.Context) -> str:
    help_text = inspect.cleandoc(command.help or "")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"```text\n{usage}\n```", _examples(help_text)]
    rows = [_option(it, context) for it in command.get_params(context) if _is_option(it)]
    if rows:
        parts.append(_table(("option", "", ""), rows))
    return _join(parts)


def _is_option(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and not parameter.hidden


def _option(option: click.Parameter, context: click.Context) -> tuple[str, str, str]:
    assert isinstance(option, click.Option)
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    value = "" if option.is_flag or option.count else option.make_metavar(context)
    if isinstance(option.type, click.Choice):
        value = "|".join(option.type.choices)
    notes = [(option.help or "").strip().replace("  [", " [")]
    if option.show_default and not option.is_flag:
        notes.append(f"Default: `{option.default}`")
    if isinstance(option.type, (click.IntRange, click.FloatRange)):
        notes.append(_range(option.type))
    if option.multiple:
        notes.append("May be repeated")
    if option.envvar:
        notes.append(f"Environment: `{option.envvar}`")
    return names, f"`{value}`" if value else "", " ".join(map(_sentence, notes))


def _sentence(text: str) -> str:
    return text if text.endswith((".", "]")) else f"{text}."


def _range(kind: click.IntRange | click.FloatRange) -> str:
    if kind.max is None:
        return f"{kind.min} or more"
    return f"{kind.min} to {kind.max}"


def _examples(help_text: str) -> str:
    """Set the lines after Click's no-rewrap mark as code."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", help_text):
        if paragraph.startswith("\b"):
            parts.append(f"```console\n{paragraph[1:].strip()}\n```")
        else:
            parts.append(" ".join(paragraph.split()))
    return _join(parts)


def _function(name: str, function: Callable[..., Any], level: int = 2) -> list[str]:
    return [
        f"{'#' * level} {name}",
        f"```python\n{_signature(inspect.unwrap(function), name)}\n```",
        _prose(inspect.getdoc(function) or ""),
    ]


def _signature(function: Callable[..., Any], name: str = "") -> str:
    """Write a signature, a parameter a line when it is long."""
    signature = inspect.signature(getattr(function, "__func__", function))
    shown = [
        it.replace(annotation=_Bare(it.annotation))
        for it in signature.parameters.values()
        if it.name not in ("self", "cls")
    ]
    result = f" -> {signature.return_annotation}"
    name = name or function.__name__
    line = f"{name}{inspect.Signature(shown)}{result}"
    if len(line) <= 88:
        return line
    lines = []
    for before, parameter in zip([None, *shown], shown, strict=False):
        keyword_only = parameter.kind is parameter.KEYWORD_ONLY
        if keyword_only and (before is None or before.kind is not parameter.KEYWORD_ONLY):
            lines.append("    *,")
        lines.append(f"    {parameter},")
    return "\n".join([f"{name}(", *lines, f"){result}"])


class _Bare:
    """An annotation that is a text, shown without quotes."""

    def __init__(self, annotation: object) -> None:
        self._text = str(annotation)

    def __repr__(self) -> str:
        return self._text


def _is_first_result(function: Callable[..., Any]) -> bool:
    options: dict[str, Any] = function.llamakit_spec  # type: ignore[attr-defined]
    return bool(options["firstresult"])


def _attributes(cls: type) -> Iterator[tuple[str, str, str]]:
    """Yield the annotated attributes of a class with the docstrings below them."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(body, ast.ClassDef)
    for node, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            text = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                text = " ".join(str(following.value.value).split())
            yield f"`{ast.unparse(node.target)}`", f"`{ast.unparse(node.annotation)}`", text
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            text = (ast.get_docstring(node) or "").partition("\n")[0]
            is_property = any(ast.unparse(it) == "property" for it in node.decorator_list)
            kind = f"`{ast.unparse(node.returns)}`" if is_property and node.returns else "method"
            yield f"`{node.name}`", kind, text


_HEADING = "(?:Args|Returns|Raises|Yields|Source)"
_SECTION = re.compile(rf"^({_HEADING}(?:(?:, | and ){_HEADING})*):(.*)$")


def _prose(docstring: str) -> str:
    """Turn a Google docstring into Markdown: its sections become lists."""
    lines: list[str] = []
    section = ""
    for line in docstring.replace("``", "`").splitlines():
        found = _SECTION.match(line)
        if found:
            section = found[1]
            lines += ["", f"*{section}*: {found[2].strip()}".rstrip(), ""]
        elif section and line[:1].isspace():
            lines.append(_item(line, section))
        else:
            section = section if not line.strip() else ""
            lines.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _item(line: str, section: str) -> str:
    """Set one line of a section: ``name: text`` is an item, deeper lines belong to it."""
    indent = len(line) - len(line.lstrip())
    name, colon, text = line.strip().partition(":")
    if indent == 4 and section.endswith(("Args", "Raises")) and colon:
        return f"- `{name}`:{text}"
    return f"{'  ' if indent > 4 else ''}{line.strip()}"


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    headings = list(headings)
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(line.replace("  ", " ").replace("``", "`") for line in lines)


def _join(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part)


@generated
def request_fields(kind: str) -> str:
    """Tabulate what a request may hold: ``COMPLETION``, ``CHAT``, …; null means the default.

    Both kinds of requests have the fields of ``COMMON``, which are a table of their own.
    """
    common = request_schemas.COMMON | request_schemas.OTHER_NAMES
    schema = closed(common) if kind == "COMMON" else BODIES[kind]
    rows = []
    for name, field in schema["properties"].items():
        if is_unused(field):
            continue
        if kind != "COMMON" and name in common:
            continue
        needed = " (has to be there)" if name in schema.get("required", ()) else ""
        rows.append(f"| `{name}`{needed} | {_kind(field)} | {field.get('description', '')} |")
    return "\n".join(["| field | value | |", "|---|---|---|", *rows])


@generated
def unused_fields(kind: str) -> str:
    """Tabulate the fields that are ignored, or that are not offered, with the reason."""
    tables = {
        "ignored": [client_fields.IGNORED],
        "refused": [client_fields.NOT_OFFERED_ANYWHERE, client_fields.NOT_OFFERED],
        "messages": [message_schemas.MESSAGE_IGNORED],
    }
    names: dict[str, list[str]] = {}
    for table in tables[kind]:
        for name, schema in table.items():
            reason = schema["description"].partition(": ")[2].rstrip(".")
            harmless = ", ".join(json.dumps(value) for value in schema.get("enum", ()))
            shown = f"`{name}` (`{harmless}`)" if harmless else f"`{name}`"
            names.setdefault(reason, []).append(shown)
    return _table(("fields", "because"), ((", ".join(it), why) for why, it in names.items()))


def _kind(schema: dict[str, Any]) -> str:
    """Say in words what values a schema takes."""
    if "anyOf" in schema:
        kinds = [_kind(it) for it in schema["anyOf"] if it != {"type": "null"}]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = "" if low is None else f", {low} or more" if high is None else f", {low} to {high}"
    if high is not None and high > 2**62:
        bounds = ", 64 bits"
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of: {_kind(schema['items'])}"
    if kind == "object" and "properties" in schema:
        return "object: " + ", ".join(f"`{name}`" for name in schema["properties"])
    return f"{kind}{bounds}"
