"""Make the demonstration checkpoint from nothing: ``python -m tools.demo_model``."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import torch

from .evaluate import evaluate
from .questions import load_intents
from .report import describe, files_of, refresh
from .tokenizer import Encoder, check, train_tokenizer
from .train import Recipe, train
from .write_checkpoint import FOLDER, read_checkpoint, write_checkpoint

ROOT = Path(__file__).parents[2]
LARGEST = 7_900_000


def main() -> None:
    """Train, write, measure; nothing gets its final place until all of it is there."""
    options = _options()
    torch.set_num_threads(2)
    if not options.evaluate_only:
        options.output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=options.output.parent) as temporary:
            build(Path(temporary), options.seed, options.steps)
            install(Path(temporary), options.output)
    measure(options.output, options.page, options.seed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.demo_model", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "llamakit" / "demo")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/explanation/demo-model.md")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--evaluate-only", action="store_true", help="measure what is there")
    return parser.parse_args()


def build(root: Path, seed: int, steps: int) -> None:
    """Make the tokenizer and the checkpoint in an empty folder."""
    encoder = Encoder(train_tokenizer(root, seed))
    longest = check(encoder, load_intents(seed))
    print(f"tokenizer: {encoder.size} pieces; the longest tutorial chat takes {longest} ids")
    write_checkpoint(train(encoder, seed, Recipe(steps=steps)), root)
    nbytes = sum(file.stat().st_size for file in files_of(root))
    print(f"checkpoint: {nbytes:,} bytes")
    if nbytes > LARGEST:
        raise ValueError(f"the checkpoint takes {nbytes:,} bytes; at most {LARGEST:,} may be used")


def install(made: Path, output: Path) -> None:
    """Move the files to their place; other files of that folder stay."""
    shutil.rmtree(output / FOLDER, ignore_errors=True)
    for name in ("tokenizer.model", "tokenizer_checklist.chk", FOLDER):
        (made / name).replace(output / name)


def measure(root: Path, page: Path, seed: int) -> None:
    """Print the measurements and refresh the page."""
    begin = time.monotonic()
    report = evaluate(root, seed)
    encoder = Encoder(root / "tokenizer.model")
    text = describe(report, read_checkpoint(root, encoder.size), root, seed)
    for answer in report.answers:
        if not answer.right:
            print(f"wrong [{answer.intent.key}] {answer.question} -> {answer.said}")
    print(text)
    if page.exists():
        refresh(page, text)
    print(f"measured in {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
