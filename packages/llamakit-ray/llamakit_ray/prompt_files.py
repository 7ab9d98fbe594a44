"""Files of prompts, read by Ray: JSON Lines and Parquet, from any place that it knows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llamakit.errors import FileFormatError
from llamakit.files.json_reader import parse_json
from llamakit_ray.cluster import connect, ray_errors


def read_prompts(file: str, address: str) -> Iterator[Any]:
    """Yield the prompts of a file in their order, each as a line of JSON Lines has it.

    Args:
        file: a path that every machine of the cluster has, or an address such as ``s3://…``. Its
            name ends in ``.parquet``, or it is JSON Lines.
        address: of the cluster.
    Raises:
        FileFormatError: there is no such file, or Ray cannot read it.
    """
    place = file if "://" in file else os.path.abspath(file)  # noqa: PTH100 - links stay
    if "://" not in file and not Path(file).is_file():
        raise FileFormatError(f"{file}: there is no such file of prompts")
    connect(address)
    import ray.data

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    is_parquet = file.endswith((".parquet", ".pq"))
    name = shown(file)
    with ray_errors(f"Ray cannot read {name}", says="://" not in file):
        if is_parquet:
            tables = ray.data.read_parquet(place)
            for table in tables.iter_batches(batch_size=None, batch_format="pyarrow"):
                yield from map(plain, table.to_pylist())
            return
        rows = ray.data.read_text(place, drop_empty_lines=True).iter_rows()
        for number, row in enumerate(rows, start=1):
            yield parse_json(row["text"], f"{name}, prompt {number}")


def shown(file: str) -> str:
    """Return the name of a file for messages: of an address nothing that may be secret."""
    if "://" not in file:
        return file
    parts = urlsplit(file)
    return f"{parts.scheme}://…/{Path(parts.path).name}"


def plain(value: Any) -> Any:
    """Return a value of a table as JSON has it; what JSON has not becomes a string."""
    if isinstance(value, dict):
        return {str(key): plain(it) for key, it in value.items() if it is not None}
    if isinstance(value, list | tuple):
        return [plain(it) for it in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
