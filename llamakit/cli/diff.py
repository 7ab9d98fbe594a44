"""``llamakit diff``: compares two checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llamakit.cli.user_path import UserPath

if TYPE_CHECKING:
    from rich.console import RenderableType

    from llamakit.examine.diff import DiffReport, ParameterDiff


@click.command()
@click.argument("a", metavar="A", type=UserPath())
@click.argument("b", metavar="B", type=UserPath())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff(a: str, b: str, *, as_json: bool) -> None:
    """Compare the checkpoints A and B, parameter by parameter.

    They may have different formats and numbers of shards: whole parameters are compared, under
    Meta's names. The exit status is 1 if they differ.

    \b
    llamakit diff llama-2-13b/ llama-2-13b-mp1/
    """
    from llamakit.api import diff as run
    from llamakit.cli.terminal import json_text, rendered, steps_bar

    with steps_bar("comparing") as progress:
        report = run(a, b, progress=progress)
    if as_json:
        click.echo(json_text(report.as_json(), indent=2))
    else:
        click.echo(rendered(*_parts(report)))
    click.get_current_context().exit(0 if report.same else 1)


def _parts(report: DiffReport) -> list[RenderableType]:
    from rich.text import Text

    from llamakit.cli.terminal import grid

    parts: list[RenderableType] = [
        Text(f"{name}: {a} in A, {b} in B") for name, (a, b) in report.numbers.items()
    ]
    if report.differing:
        table = grid("parameter", "differs in", "")
        for difference in report.differing:
            table.add_row(
                Text(difference.name), Text(difference.kind, style="red"), Text(_remark(difference))
            )
        parts.append(table)
    parts += [Text(f"note: {sentence}") for sentence in report.notes]
    total, differing = len(report.parameters), len(report.differing)
    verdict = "the same" if report.same else f"{differing} of {total} parameters differ"
    if report.numbers:
        verdict += f", and the params differ in {', '.join(report.numbers)}"
    return [*parts, Text(f"{verdict}: {total - differing} parameters are equal in every byte")]


def _remark(difference: ParameterDiff) -> str:
    if difference.a is None or difference.b is None:
        return ""
    if difference.kind == "shape":
        return f"{difference.a.shape} in A, {difference.b.shape} in B"
    dtypes = (
        f"{difference.a.dtype} in A, {difference.b.dtype} in B; "
        if difference.kind == "dtype"
        else ""
    )
    if difference.first is None or difference.first_values is None:
        return f"{dtypes}the values are the same"
    a, b = difference.first_values
    place = f"first at {list(difference.first)}: {a:.9g} in A, {b:.9g} in B"
    if not difference.values:
        return f"{difference.bits} stored in other bytes, the values are the same; {place}"
    nan = f", NaN in one only: {difference.nan_in_one}" if difference.nan_in_one else ""
    most = f"at most {difference.max_abs:.3g}, relative {difference.max_rel:.3g}"
    return f"{dtypes}{difference.values} of {difference.a.numel} values, {most}{nan}; {place}"
