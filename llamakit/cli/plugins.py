"""``llamakit plugins``: lists plugins, shows what they register, and writes new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamakit.cli.completion import anything_of_plugins
from llamakit.cli.user_path import UserPath
from llamakit.errors import UnknownNameError
from llamakit.plugin_manager.plugin_loader import load_command
from llamakit.testing.new_package import KINDS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from llamakit.plugin_manager.plugin_record import PluginRecord
    from llamakit.plugin_manager.registry import Entry
    from llamakit.plugin_manager.toolkit import Toolkit


@click.group(invoke_without_command=True)
@click.option(
    "--check", is_flag=True, help="Also run everything that third-party plugins register, once."
)
@click.option("--strict", is_flag=True, help="Exit with status 1 where a plugin is broken.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def plugins(ctx: click.Context, *, check: bool, strict: bool, as_json: bool) -> None:
    """List the plugins, what each registers, and whether it works.

    A plugin that can be loaded may still fail in use. The help of every command is always
    rendered; with --check, samplers and processors also choose a token from random logits.

    LLAMAKIT_DISABLE_PLUGINS disables plugins by name, separated by commas; `all` means every
    third-party plugin.
    """
    if ctx.invoked_subcommand is None:
        from llamakit.testing import trial

        trial.try_commands(ctx.obj)
        if check:
            trial.try_all(ctx.obj)
        _show([_describe_plugin(record) for record in ctx.obj.plugins], _table, as_json=as_json)
        is_broken = any(record.status == "broken" for record in ctx.obj.plugins)
        ctx.exit(1 if strict and is_broken else 0)


@plugins.command()
@click.argument("name", shell_complete=anything_of_plugins)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show(toolkit: Toolkit, name: str, *, as_json: bool) -> None:
    """Show NAME: its plugin, its options, their types and defaults.

    NAME is anything that a plugin has registered, such as top-p, or the name of a plugin.
    """
    records = [record for record in toolkit.plugins if record.source.name == name]
    # Each once, by identity: third-party values need not be hashable or comparable.
    entries = {id(entry): entry for entry in (*_entries(toolkit, name), *_all(records))}.values()
    if not entries and not records:
        known = {entry.name for entry in _all(toolkit.plugins)}
        known |= {record.source.name for record in toolkit.plugins}
        kind, off = "plugin, nor anything that one registers,", toolkit.commands.off
        raise UnknownNameError(kind, name, known, off=off)
    shown = [_describe_plugin(record) for record in records if not record.registered]
    _show([*map(_describe_entry, entries), *shown], _details, as_json=as_json)


@plugins.command()
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(list(KINDS)),
    default="sampler",
    show_default=True,
    help="What the plugin registers.",
)
@click.option(
    "--output-dir",
    metavar="FOLDER",
    type=UserPath(path_type=Path),
    default=Path(),
    help="Where its folder is created.  [default: the current folder]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def new(toolkit: Toolkit, name: str, kind: str, output_dir: Path, *, as_json: bool) -> None:
    """Write the package of a new plugin: llamakit-NAME, with a passing test.

    \b
    llamakit plugins new nth
    llamakit plugins new csv --kind exporter
    """
    from llamakit.testing.new_package import plan_package, write_package

    package = plan_package(name, kind, output_dir, _used_names(toolkit))
    write_package(package)
    if as_json:
        from llamakit.cli.terminal import json_text

        click.echo(json_text(package.described(), indent=2))
        return
    click.echo(f"wrote {package.folder}: {', '.join(package.files)}\nnext:")
    for command in package.next_commands:
        click.echo(f"  {command}")


def _used_names(toolkit: Toolkit) -> dict[str, str]:
    """Return every plugin's name and every registered name, each with a description."""
    taken = {record.source.name: f"the {record.source}" for record in toolkit.plugins}
    for entry in _all(toolkit.plugins):
        taken[entry.name] = f"the {entry} of the {entry.source}"
    return taken


def _entries(toolkit: Toolkit, name: str) -> Iterable[Entry]:
    """Yield what is registered under a name, of every kind."""
    for registry in toolkit.registries.values():
        try:
            yield registry.entry(name)
        except UnknownNameError:
            continue


def _all(records: Iterable[PluginRecord]) -> list[Entry]:
    return [entry for record in records for entry in record.registered]


def _describe_plugin(record: PluginRecord) -> dict[str, Any]:
    """Describe a plugin as JSON."""
    return {
        **record.source._asdict(),
        "status": record.status,
        "reason": record.reason,
        "hooks": record.hooks,
        "registered": [
            {"kind": entry.kind, "name": entry.name, "help": entry.help}
            for entry in record.registered
        ],
    }


def _describe_entry(entry: Entry) -> dict[str, Any]:
    """Describe what is registered under a name as JSON."""
    from llamakit.plugin_manager.docstrings import summary_of

    is_command = entry.kind in ("command", "checkpoint tool")
    is_factory = callable(entry.value) and not is_command
    fields = {"fields": dict(entry.value)} if isinstance(entry.value, Mapping) else {}
    command = load_command(entry) if is_command else None
    summary = command.help if command else ""
    options = _command_options(command) if command else _options(entry) if is_factory else []
    return {
        "kind": entry.kind,
        "name": entry.name,
        "help": entry.help,
        "plugin": entry.source.name,
        "package": entry.source.package,
        "version": entry.source.version,
        "builtin": entry.source.builtin,
        "summary": summary_of(entry.value) if is_factory else (summary or "").partition("\n\n")[0],
        "options": options,
        **fields,
    }


def _options(entry: Entry) -> list[dict[str, Any]]:
    """Describe the options of a factory, or of an exporter, whose options are strings."""
    from llamakit.plugin_manager.docstrings import exporter_options
    from llamakit.plugin_manager.factories import options_of

    if entry.kind == "exporter":
        return [
            {"name": name, "type": "str", "default": None, "help": text}
            for name, text in exporter_options(entry.value).items()
        ]
    return [
        {
            "name": option.name,
            "type": option.type_name,
            "default": option.default,
            "help": option.help,
        }
        for option in options_of(entry.value)
    ]


def _command_options(command: click.Command) -> list[dict[str, Any]]:
    """Describe the arguments and options of a command, and of a group the commands."""
    context = click.Context(command)
    described = [_command_option(param) for param in command.get_params(context)]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            text = inner.get_short_help_str(100) if inner else ""
            described.append({"name": name, "type": "command", "default": None, "help": text})
    return described


def _command_option(param: click.Parameter) -> dict[str, Any]:
    is_option = isinstance(param, click.Option)
    long = [it for it in param.opts if it.startswith("--")] or param.opts
    name = long[0] if is_option else param.metavar or (param.name or "").upper()
    kind = "|".join(map(str, getattr(param.type, "choices", ()))) or param.type.name
    default = None if callable(param.default) or param.multiple else param.default
    return {
        "name": name,
        "type": "flag" if getattr(param, "is_flag", False) else kind if is_option else "argument",
        "default": default if isinstance(default, str | int | float | bool) else None,
        "help": getattr(param, "help", None) or "",
    }


def _show(
    described: list[dict[str, Any]],
    render: Callable[[list[dict[str, Any]]], RenderableType],
    *,
    as_json: bool,
) -> None:
    """Print descriptions as JSON, or rendered."""
    from llamakit.cli.terminal import json_text, rendered

    if as_json:
        click.echo(json_text(described, indent=2))
        return
    click.echo(rendered(render(described)))


def _table(described: list[dict[str, Any]]) -> RenderableType:
    """Lay out the listing."""
    from rich.text import Text

    from llamakit.cli.terminal import grid

    table = grid("plugin", "package", "status", "registers")
    colors = {"ok": "green", "broken": "red", "disabled": "yellow"}
    for plugin in described:
        package = "built in" if plugin["builtin"] else f"{plugin['package']} {plugin['version']}"
        others = [hook for hook in plugin["hooks"] if not hook.startswith("register_")]
        offers = ", ".join(
            [*(f"{row['kind']} {row['name']}" for row in plugin["registered"]), *others]
        )
        status = Text(plugin["status"], style=colors[plugin["status"]])
        remarks = "; ".join(filter(None, (offers, plugin["reason"])))
        table.add_row(Text(plugin["name"]), Text(package), status, Text(remarks))
    return table


def _details(described: list[dict[str, Any]]) -> RenderableType:
    """Lay out the output of ``show``."""
    from rich.console import Group

    parts = [_entry_details(row) if "kind" in row else _table([row]) for row in described]
    return Group(*(part for pair in zip(parts, [""] * len(parts), strict=True) for part in pair))


def _entry_details(entry: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    from llamakit.cli.terminal import grid

    origin = "built in" if entry["builtin"] else f"from {entry['package']} {entry['version']}"
    lines = [entry["help"], entry["summary"]]
    rows = [Text(line) for line in dict.fromkeys(lines) if line]
    heading = Text(f"{entry['kind']} {entry['name']} ({origin})", style="bold")
    table = grid("option", "type", "default", "help")
    for option in entry["options"]:
        default = "none" if option["default"] is None else str(option["default"])
        table.add_row(*map(Text, (option["name"], option["type"], default, option["help"])))
    if entry["kind"] == "exporter":  # its options are strings without types or defaults
        table = grid("option", "help")
        for option in entry["options"]:
            table.add_row(Text(option["name"]), Text(option["help"]))
    if "fields" in entry:
        table = grid("field", "value")
        for name, value in entry["fields"].items():
            table.add_row(Text(str(name)), Text(_field_value(value)))
    body = Group(*rows, table if table.row_count else Text("no options"))
    return Group(heading, Padding(body, (0, 0, 0, 2), expand=False))


def _field_value(value: object) -> str:
    """Format the value of a catalog entry's field."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if type(value) is int else str(value)
