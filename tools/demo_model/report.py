"""Writes the numbers and the samples into the documentation page."""

from __future__ import annotations

from pathlib import Path

from .evaluate import SHOWN, Answered, Report, Sample, fraction
from .model import DemoLlama

BEGIN = "<!-- begin: written by tools/demo_model/report.py -->"
END = "<!-- end -->"


def describe(report: Report, model: DemoLlama, root: Path, seed: int) -> str:
    """Return the numbers and the samples as Markdown."""
    parameters = sum(weight.numel() for weight in model.parameters())
    nbytes = sum(file.stat().st_size for file in files_of(root))
    shape = model.shape
    return "\n".join(
        [
            f"Seed {seed}. {parameters:,} parameters: dim {shape.dim}, {shape.n_layers} layers, "
            f"{shape.n_heads} heads, hidden size {shape.hidden}, vocabulary {shape.vocab_size}. "
            f"All files together: {nbytes:,} bytes.",
            "",
            *_table(report),
            "",
            "### Five completions",
            "",
            *_samples(report.completions[:SHOWN], "Prompt", "Continuation"),
            "### Five answers",
            "",
            *_samples(report.chats, "Question", "Answer"),
        ]
    ).rstrip()


def files_of(root: Path) -> list[Path]:
    """Return the files of the checkpoint and its tokenizer."""
    return sorted(root.glob("tokenizer*")) + sorted((root / "llama-demo").glob("*.*"))


def _table(report: Report) -> list[str]:
    rows = [
        "| measured on text that was not trained on | value |",
        "|---|---|",
        f"| loss on new stories, nats an id | {report.story_loss:.3f} |",
        f"| loss on the answers to held-out wordings, nats an id | {report.dialog_loss:.3f} |",
    ]
    steady = [sample.steady for sample in report.completions]
    rows.append(f"| continued stories that keep to their people | {_count(steady)} |")
    for title, answers in (
        ("phrases never seen", report.answers),
        ("new sentences", report.reframed),
    ):
        for name, languages in (("all", "en zh"), ("English", "en"), ("Chinese", "zh")):
            part = [a for a in answers if a.intent.language in languages]
            rows.append(f"| {title}, answered rightly, {name} | {_score(part, 'right')} |")
        rows.append(f"| … of them word for word, all | {_score(answers, 'exact')} |")
    return rows


def _score(answers: list[Answered], name: str) -> str:
    return _count([bool(getattr(answer, name)) for answer in answers])


def _count(flags: list[bool]) -> str:
    return f"{fraction(flags):.3f} ({sum(flags)} of {len(flags)})"


def _samples(samples: list[Sample], asked: str, said: str) -> list[str]:
    lines = []
    for number, sample in enumerate(samples, 1):
        lines += [f"{number}. {asked}: {sample.prompt}", ""]
        lines += [f"    {said}: {sample.text.strip()}", ""]
    return lines


def refresh(page: Path, text: str) -> None:
    """Replace what is between the markers of a page.

    Raises:
        ValueError: the page lacks the markers.
    """
    old = page.read_text(encoding="utf-8")
    if BEGIN not in old or END not in old:
        raise ValueError(f"{page} lacks the markers {BEGIN} and {END}")
    head, _, rest = old.partition(BEGIN)
    tail = rest.partition(END)[2]
    page.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}", encoding="utf-8")
