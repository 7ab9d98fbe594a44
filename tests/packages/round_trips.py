"""Takes checkpoints through pairs of formats and back to Meta's, and compares: a program.

It is called with a folder to write below, and with ``[[SOURCE, [[A, B], …]], …]`` as JSON. It
prints, by source and pair, what is not as it was, or the error of a conversion that is refused.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import llamakit
from llamakit.checkpoint.capabilities import model_parallel_size
from llamakit.protocols import Checkpoint

FORMATS: dict[str, dict[str, str]] = {
    "meta": {},
    "hf": {"form": "hf"},
    "safetensors": {"form": "safetensors"},
    "dcp": {"form": "dcp", "shards": "3"},
    "dcp-hf": {"form": "dcp", "names": "huggingface"},
    "gguf": {"form": "gguf"},
    "gguf-f32": {"form": "gguf", "outtype": "f32"},
}
"""Options of ``export`` by name of the format; ``meta`` has another number of shards."""
NOT_STORED = {"rope.freqs"}
"""Llama 1's, which only Meta's names have: it is computed."""


def write(checkpoint: Checkpoint, name: str, folder: Path) -> Path:
    """Write a checkpoint in a format; return what is to be opened."""
    if name == "meta":
        size = model_parallel_size(checkpoint)
        llamakit.reshard(checkpoint, folder, size // 2 if size > 1 else 2)
    else:
        llamakit.export(checkpoint, folder, **FORMATS[name])
    return next(folder.glob("*.gguf"), folder)


def differences(source: Path, back: Path) -> Iterator[str]:
    """Name what is not as it was."""
    before, after = llamakit.open_checkpoint(source), llamakit.open_checkpoint(back)
    if (set(before.parameters) ^ set(after.parameters)) - NOT_STORED:
        yield "names"
    for name in set(before.parameters) & set(after.parameters):
        if before.read(name).tobytes() != after.read(name).tobytes():
            yield name
    yield from llamakit.diff(before, after).numbers
    folders = (source, source.parent)
    tokenizer = next(it / "tokenizer.model" for it in folders if (it / "tokenizer.model").exists())
    made = back / "tokenizer.model"
    if not made.exists() or made.read_bytes() != tokenizer.read_bytes():
        yield "tokenizer"


def there_and_back(source: Path, pairs: list[tuple[str, str]], place: Path) -> dict[str, list[str]]:
    """Return what is not as it was, by pair."""
    checkpoint = llamakit.open_checkpoint(source)
    size = model_parallel_size(checkpoint)
    stored = max(checkpoint.parameters.values(), key=lambda it: it.numel).dtype
    firsts: dict[str, Path | str] = {}
    results = {}
    for first, second in pairs:
        try:
            if first not in firsts:
                firsts[first] = write(checkpoint, first, place / first)
            opened = llamakit.open_checkpoint(firsts[first])
            made = write(opened, second, place / "second")
            dtype = stored if "gguf-f32" in (first, second) else None
            llamakit.reshard(made, place / "back", size, dtype=dtype)
            results[f"{first} {second}"] = list(differences(source, place / "back"))
        except llamakit.LlamakitError as error:
            results[f"{first} {second}"] = [str(error).replace(f"{place}/", "")]
        for name in ("second", "back"):
            shutil.rmtree(place / name, ignore_errors=True)
    return results


if __name__ == "__main__":
    work = Path(sys.argv[1])
    answers = {}
    for path, pairs in json.loads(sys.argv[2]):
        place = work / Path(path).name
        place.mkdir()
        answers[Path(path).name] = there_and_back(Path(path), pairs, place)
    print(json.dumps(answers))
