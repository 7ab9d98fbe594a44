"""Change the code a little, at 200 seeded places, and see whether a test notices.

Run as ``make mutants``, which installs cosmic-ray into ``.mutants``; ``make mutants ONLY=convert``
runs one area. Works on a copy of the tracked files. Each change is first met by the test files that
name its module, or a module that imports it; where those notice nothing, by all of the area's.
Survivors are printed as diffs and kept in ``.mutants/survivors.diff``.

Survivors that were judged equal to the code: how much is read at a time (``_CHUNK`` of
``source_checksums``, ``step`` of ``shard_checks``), and an empty range in ``batches._overlaps``.
"""

from __future__ import annotations

import ast
import filecmp
import functools
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cosmic_ray.commands import execute, init
from cosmic_ray.config import ConfigDict
from cosmic_ray.modules import find_modules
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkResult

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".mutants"
ORIGINAL = FOLDER / "original"
SEED = 20261130
TIMEOUT = 900.0
"""Seconds; a mutant whose tests run longer counts as noticed."""
NEAR_TIMEOUT = 240.0
"""The same, of the test files that name the module."""

AREAS = {
    "checkpoint": (
        ["llamakit/checkpoint"],
        ["tests/checkpoint", "tests/convert", "tests/examine"],
        60,
    ),
    "convert": (["llamakit/convert"], ["tests/convert"], 50),
    "download": (["llamakit/download"], ["tests/download"], 50),
    "sampling": (
        [
            "llamakit/plugins/samplers",
            "llamakit/plugins/processors",
            "llamakit/sampling.py",
            "llamakit/runtime/sampling_pipeline.py",
            "llamakit/runtime/text_stream.py",
        ],
        ["tests/plugins", "tests/runtime/test_text_stream.py", "tests/runtime/test_engine.py"],
        40,
    ),
}
"""What is changed, the tests that should notice, and how many changes."""


def main() -> None:
    """Run the areas; exit with 1 if a mutant survived."""
    if sys.argv[1:2] == ["--tests"]:  # a change was made; cosmic-ray asks
        sys.exit(notices(*AREAS[sys.argv[2]][:2]))
    copy = FOLDER / "tree"
    for target in (copy, ORIGINAL):
        copy_tracked_files(target)
    if (shared := ROOT.parent / "shared").is_dir() and not (FOLDER / "shared").exists():
        (FOLDER / "shared").symlink_to(shared)  # tests look for it beside the repository
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)  # programs that tests start import the copy, too
    survivors: list[str] = []
    for name in sys.argv[1:] or AREAS:
        survived, count = run(name)
        survivors += survived
        print(f"mutants: {name}: {count - len(survived)} of {count} noticed", flush=True)
    (FOLDER / "survivors.diff").write_text("\n".join(survivors))
    print("\n".join(survivors))
    sys.exit(bool(survivors))


def run(name: str) -> tuple[list[str], int]:
    """Run an area's sample; return the diffs of the survivors, and the sample's size."""
    places, _, count = AREAS[name]
    config = ConfigDict(
        {
            "module-path": places,
            "timeout": TIMEOUT,
            "excluded-modules": [],
            "test-command": f"{sys.executable} {Path(__file__)} --tests {name}",
            "distributor": {"name": "local"},
        }
    )
    session = FOLDER / f"{name}.sqlite"
    session.unlink(missing_ok=True)
    with use_db(str(session), WorkDB.Mode.create) as work:
        init(find_modules(list(map(Path, places))), work, {})
        keep_a_sample(work, count)
        execute(work, config)
        results = [result for _, result in work.results if not is_skipped(result)]
    diffs = [result.diff for result in results if result.test_outcome == TestOutcome.SURVIVED]
    return diffs, len(results)


def notices(places: list[str], tests: list[str]) -> bool:
    """Return whether a test of the area fails on the changed copy, which is the current folder."""
    (changed,) = [
        path for path in files(places) if not filecmp.cmp(path, ORIGINAL / path, shallow=False)
    ]
    near = nearest(changed, [path for path in files(tests) if path.name.startswith("test_")])
    rest = [f"--ignore={path}" for path in near]
    return bool(near and fails(near, NEAR_TIMEOUT)) or fails([*tests, *rest], TIMEOUT)


def files(places: list[str]) -> list[Path]:
    """Return the Python files at or below these places."""
    found = [path for place in map(Path, places) for path in (place, *place.rglob("*.py"))]
    return [path for path in found if path.suffix == ".py"]


def nearest(module: Path, tests: list[Path]) -> list[Path]:
    """Return the test files that name a module, else those of modules that import it, and so on."""
    wave, seen = {module}, {module}
    while wave:
        if found := [test for test in tests if any(names(test, it) for it in wave)]:
            return found
        wave = {
            path for path in files(["llamakit"]) if any(imports(path, it) for it in wave)
        } - seen
        seen |= wave
    return []


def names(test: Path, module: Path) -> bool:
    """Return whether a test file is named like a module, or imports it."""
    return module.stem in test.stem or imports(test, module)


def imports(path: Path, module: Path) -> bool:
    """Return whether a file imports a module."""
    pattern = rf"\b{module.parent.name}(\.| import .*\b){module.stem}\b"
    return re.search(pattern, path.read_text("utf-8")) is not None


def fails(tests: Sequence[Path | str], timeout: float) -> bool:
    """Return whether these tests fail, or take too long."""
    interpreter = ROOT / os.environ.get("VENV", ".venv") / "bin" / "python"
    options = ("-x", "-q", "-p", "no:cacheprovider")
    try:
        command = [interpreter, "-m", "pytest", *options, *tests]
        return subprocess.run(command, timeout=timeout, check=False).returncode != 0
    except subprocess.TimeoutExpired:
        return True


def keep_a_sample(work: WorkDB, count: int) -> None:
    """Mark all but ``count`` changes as skipped, and those of annotations, which are not run."""
    mutations = {item.job_id: item.mutations[0] for item in work.work_items}
    candidates = sorted(
        (str(it.module_path), it.operator_name, it.occurrence, job_id)
        for job_id, it in mutations.items()
        if not is_annotation(it)
    )
    sample = random.Random(SEED).sample(candidates, min(count, len(candidates)))
    chosen = {job_id for *_, job_id in sample}
    skipped = WorkResult(worker_outcome=WorkerOutcome.SKIPPED, output="not in the sample")
    work.set_multiple_results([job_id for job_id in mutations if job_id not in chosen], skipped)


def is_skipped(result: WorkResult) -> bool:
    """Return whether a change was not tried."""
    return result.worker_outcome == WorkerOutcome.SKIPPED


def is_annotation(mutation: MutationSpec) -> bool:
    """Return whether a change is in an annotation, as of ``X | None``."""
    spans = annotation_spans(Path(mutation.module_path))
    return any(start <= mutation.start_pos < end for start, end in spans)


@functools.cache
def annotation_spans(path: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return where the annotations of arguments, results and variables start and end."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    fields = [getattr(node, field, None) for node in nodes for field in ("annotation", "returns")]
    return [
        ((it.lineno, it.col_offset), (it.end_lineno or 0, it.end_col_offset or 0))
        for it in fields
        if isinstance(it, ast.expr)
    ]


def copy_tracked_files(target: Path) -> None:
    """Copy what git knows, as it is now."""
    shutil.rmtree(target, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (source := ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


if __name__ == "__main__":
    main()
