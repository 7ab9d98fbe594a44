"""``llamakit doctor``: describes the hardware and the kernels that models run on."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import RenderableType


@click.command()
@click.option(
    "--calibrate",
    is_flag=True,
    help="Benchmark the kernels for a few seconds, and store which is faster here.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(*, calibrate: bool, as_json: bool) -> None:
    """Show the hardware and the kernels that models run on.

    Machine, PyTorch, threads, devices, ranks, and the matrix-multiplication kernel for each weight
    dtype. Without --calibrate nothing is measured and nothing is written.

    \b
    llamakit doctor
    llamakit doctor --calibrate
    """
    from llamakit.cli.terminal import json_text, rendered
    from llamakit.runtime.machine_report import describe_machine

    # A busy machine takes minutes: what is measured is said meanwhile.
    progress = functools.partial(click.echo, err=True)
    machine = describe_machine(calibrate=calibrate, progress=progress)
    if as_json:
        click.echo(json_text(machine, indent=2))
    else:
        click.echo(rendered(*_parts(machine)))


def _parts(machine: dict[str, Any]) -> list[RenderableType]:
    from rich.text import Text

    from llamakit.cli.terminal import format_nbytes, grid

    facts = grid("", "")
    facts.show_header = False
    for name, value in machine.items():
        if name == "kernels":
            for dtype, kernel in value.items():
                facts.add_row(Text(f"{dtype} weights", style="bold"), Text(kernel))
        elif name == "unavailable":
            for kernel, lacks in value.items():
                facts.add_row(Text(f"not {kernel}", style="bold"), Text(lacks))
        elif name != "timings":
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            facts.add_row(Text(name.replace("_", " "), style="bold"), Text(text))
    if not machine["timings"]:
        return [facts]
    table = grid("kernel", "rows", "µs", "weights a second")
    for timing in machine["timings"]:
        micro = f"{timing['seconds'] * 1e6:.0f}"
        bandwidth = format_nbytes(int(timing["bandwidth"]))
        table.add_row(timing["kernel"], str(timing["rows"]), micro, bandwidth)
    return [facts, "", table]
