"""What the conversion commands share: how much there is to do, and what they print."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llamakit.checkpoint.dtypes import itemsize
from llamakit.protocols import Checkpoint


def tell(report: Mapping[str, Any], *, as_json: bool) -> str:
    """Say what was made: as JSON, or a line for each file and one for all."""
    if as_json:
        return json.dumps(report, indent=2, ensure_ascii=False)
    files = report.get("files", ())
    lines = [
        f"{file['nbytes']:>15,}  {file['name']}" for file in (files if _lists_files(files) else ())
    ]
    lines.append(f"made {report['destination']}")
    return "\n".join(lines)


def _lists_files(files: Any) -> bool:
    """Tell whether it is a list of files; a plugin's exporter may mean something else by it."""
    return isinstance(files, list | tuple) and all(
        isinstance(file, Mapping)
        and isinstance(file.get("name"), str)
        and isinstance(file.get("nbytes"), int)
        for file in files
    )


def tell_plan(plan: Mapping[str, Any], *, as_json: bool) -> str:
    """Say what would be made: as JSON, or for people."""
    if as_json:
        return json.dumps(plan, indent=2, ensure_ascii=False)
    lines = [f"{file['nbytes']:>15,}  {file['name']}" for file in plan["files"]]
    lines += [
        f"{plan['nbytes']:>15,}  bytes to write to {plan['destination']}",
        f"{plan['nbytes_read']:>15,}  bytes to read from {plan['source']}",
        f"{plan['memory_nbytes']:>15,}  bytes of memory for buffers, and some 60 MB for Python",
    ]
    lines += [f"refused: {reason}" for reason in plan["refusals"]]
    return "\n".join(lines)


def weights_nbytes(checkpoint: Checkpoint) -> int:
    """Return how many bytes the parameters of a checkpoint take."""
    return sum(it.numel * itemsize(it.dtype) for it in checkpoint.parameters.values())
