"""What decode.py measured, as tables and as JSON."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Configuration:
    """One engine with one form of the weights and one number of rows."""

    engine: str
    form: str
    rows: int
    first_only: bool = False

    @property
    def name(self) -> str:
        """As the table shows it."""
        what = "cold, to the end" if self.engine == "cat" else "first token, cold"
        what = what if self.first_only else f"batch {self.rows}"
        return f"{self.engine} {self.form}, {what}"


PARTS = {
    "b1": [(it, "bf16", 1) for it in ("llamakit", "transformers", "llama.cpp", "vllm")],
    "b8": [(it, "bf16", 8) for it in ("llamakit", "transformers", "llama.cpp", "vllm")],
    "int8-b1": [("llamakit", "int8", 1), ("llama.cpp", "q8_0", 1)],
    "int8-b8": [("llamakit", "int8", 8), ("llama.cpp", "q8_0", 8)],
    "int4-b1": [("llamakit", "int4", 1), ("llama.cpp", "q4_0", 1)],
    "cold": [
        ("llamakit", "bf16", 1, True),
        ("transformers", "bf16", 1, True),
        ("cat", "to /dev/null", 1, True),
    ],
    "cold-int8": [("llamakit", "int8", 1, True), ("cat", "to /dev/null", 1, True)],
}
WANTED = {
    ("b1", "decoding"): 1.1,
    ("b8", "decoding"): 1.1,
    ("b1", "prefill"): 1.0,
    ("int8-b1", "decoding"): 1.0,
    ("int8-b8", "decoding"): 2.5,
    ("int4-b1", "decoding"): 0.95,
}
"""Of the best peer's rate, by part."""
Results = dict[Configuration, list[dict]]


def rates(configuration: Configuration, runs: list[dict]) -> tuple[float, float]:
    """Return tokens a second while decoding, over all rows: the median, and the quickest tenth."""
    steps = sorted(step for run in runs for step in run["steps"])
    return tuple(
        configuration.rows / it for it in (statistics.median(steps), steps[len(steps) // 10])
    )


def prefill(runs: list[dict]) -> float:
    """Return the tokens a second of the quickest prefill."""
    return max(it["prefill"] for it in runs)


def processor(runs: list[dict]) -> float:
    """Return the processor's milliseconds a step, over all threads."""
    return 1000 * statistics.median(it for run in runs for it in run["processor"])


def summary(run: dict) -> str:
    """Show what one run measured."""
    if "steps" not in run:
        return f"{run['cold']:.1f} s"
    milliseconds = 1000 * statistics.median(run["processor"])
    return (
        f"{1 / statistics.median(run['steps']):.2f} steps/s, {milliseconds:.0f} ms of processor a "
        f"step, prefill {run['prefill']:.0f} tokens/s"
    )


def report(results: Results) -> None:
    """Print what was measured, and llamakit's ratio to each peer of the same part."""
    columns = f"{'tokens/s':>9}{'quickest':>9}{'ms/step':>9}{'prefill':>9}{'cold, s':>9}"
    print(f"\n{'':40}{columns}   llamakit's ratio to it")
    for part in PARTS:
        group = measured(part, results)
        for configuration in group:
            print(_line(configuration, group[0], results))


def measured(part: str, results: Results) -> list[Configuration]:
    """Return what has results of a part, llamakit first."""
    return [it for it in (Configuration(*what) for what in PARTS[part]) if results.get(it)]


def _line(configuration: Configuration, ours: Configuration, results: Results) -> str:
    runs, own = results[configuration], results[ours]
    is_peer = configuration != ours and ours.engine == "llamakit"
    if configuration.first_only:
        cold, best = (statistics.median(it["cold"] for it in some) for some in (runs, own))
        ratio = f"{cold / best:8.2f}" if is_peer else ""
        return f"{configuration.name:40}{'':36}{cold:9.1f}   {ratio}"
    (speed, quickest), (usual, best) = rates(configuration, runs), rates(ours, own)
    used = processor(runs)
    columns = f"{speed:9.2f}{quickest:9.2f}{used:9.1f}{prefill(runs):9.0f}{'':9}"
    if not is_peer:
        return f"{configuration.name:40}{columns}"
    prefills, work = prefill(own) / prefill(runs), used / processor(own)
    ratio = f"{usual / speed:.2f}, quickest {best / quickest:.2f}, prefill {prefills:.2f}"
    return f"{configuration.name:40}{columns}   {ratio}, processor {work:.2f}"


@dataclass(frozen=True)
class Row:
    """One row of the final table: tokens a second of llamakit and of the best peer."""

    row: str
    llamakit: float
    peer: str
    best: float
    wanted: float

    @property
    def ratio(self) -> float:
        """How many times the peer's rate llamakit's is."""
        return self.llamakit / self.best


def final_rows(results: Results) -> list[Row]:
    """Compare llamakit with the best peer of each part that has a wanted ratio."""
    rows = []
    for (part, what), wanted in WANTED.items():
        group = measured(part, results)
        if len(group) < 2 or group[0].engine != "llamakit":
            continue
        speeds = {
            it: rates(it, results[it])[0] if what == "decoding" else prefill(results[it])
            for it in group
        }
        ours, *peers = group
        best = max(peers, key=lambda it: speeds[it])
        name = ours.form + (f", batch {ours.rows}" if what == "decoding" else ", prefill")
        rows.append(Row(name, speeds[ours], f"{best.engine} {best.form}", speeds[best], wanted))
    return rows


def print_final(rows: list[Row]) -> None:
    """Print the table that is read first."""
    print(f"\n{'tokens/s':20}{'llamakit':>10}  {'best peer':28}{'ratio':>6}{'wanted':>8}")
    for it in rows:
        peer = f"{it.peer} {it.best:.1f}"
        missed = "" if it.ratio >= it.wanted else "  missed"
        print(f"{it.row:20}{it.llamakit:10.1f}  {peer:28}{it.ratio:6.2f}{it.wanted:8.2f}{missed}")


def write_json(path: Path, shape: str, results: Results) -> None:
    """Write all that was measured, and the final table."""
    runs = [asdict(it) | {"runs": some} for it, some in results.items()]
    table = [asdict(it) | {"ratio": it.ratio} for it in final_rows(results)]
    whole = {"shape": shape, "measured": runs, "table": table}
    path.write_text(json.dumps(whole, indent=1) + "\n")
