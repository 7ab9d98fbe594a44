"""The command that says what this machine computes with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import RenderableType


@click.command()
@click.option(
    "--calibrate",
    is_flag=True,
    help="Measure the kernels, for some seconds, and remember which is faster here.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(*, calibrate: bool, as_json: bool) -> None:
    """Say what models are computed with here.

    Machine, PyTorch, threads, devices, ranks, and the kernels: what multiplies by a weight, by how
    the weight is kept. Without --calibrate nothing is measured and nothing is written.

    \b
    llamakit doctor
    llamakit doctor --calibrate
    """
    from llamakit.cli.terminal import rendered
    from llamakit.runtime.machine_report import describe_machine

    found = describe_machine(calibrate=calibrate)
    if as_json:
        import json

        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(rendered(*_parts(found)))


def _parts(found: dict[str, Any]) -> list[RenderableType]:
    from rich.text import Text

    from llamakit.cli.terminal import grid, sized

    facts = grid("", "")
    facts.show_header = False
    for name, value in found.items():
        if name == "kernels":
            for form, kernel in value.items():
                facts.add_row(Text(f"{form} weights", style="bold"), Text(kernel))
        elif name != "timings":
            words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            facts.add_row(Text(name.replace("_", " "), style="bold"), Text(words))
    if not found["timings"]:
        return [facts]
    table = grid("kernel", "rows", "µs", "weights a second")
    for it in found["timings"]:
        micro = f"{it['seconds'] * 1e6:.0f}"
        table.add_row(it["kernel"], str(it["rows"]), micro, sized(int(it["bandwidth"])))
    return [facts, "", table]
