"""What only all shards of a checkpoint together show: that they are of one model, and in order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from llamakit.checkpoint.layout import ROPE_FREQS, is_key_or_value
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.shard_plan import copies
from llamakit.checkpoint.tensor_file import StoredTensor, TensorFile, open_file
from llamakit.checkpoint.zip_index import index_zip
from llamakit.protocols import Finding, Parameter

_ARCHIVE = re.compile(r"consolidated\.([0-9]{1,9})")
_COMPARED_NBYTES = 4 << 20


def check_shards(
    shards: Sequence[TensorFile], parameters: Mapping[str, Parameter], params: ModelParams
) -> Iterator[Finding]:
    """Check that several shards are of one model, each once and in its place.

    Args:
        shards: by number.
        parameters: what they hold together.

    Raises:
        DamagedFileError: a shard has changed since it was opened.
        ValueError: the directory of a shard is damaged.
    """
    if len(shards) == 1:
        return
    faults = [
        *_different_replicas(shards, parameters),
        *_different_copies(shards, parameters, params),
    ]
    if not faults:
        yield Finding(f"what all {len(shards)} shards hold is the same in each", "checked")
    order, out_of_place = _out_of_place(shards)
    twins = _twins(shards)
    for sentence in (*faults, *out_of_place, *twins):
        yield Finding(sentence, "fault")
    if order and not out_of_place and not twins:
        yield Finding(f"the {len(shards)} shards are in order, by their names inside", "checked")
    elif not order:
        yield Finding(
            "the order of the shards: they do not say it inside, so only a checklist can",
            "not checked",
        )


def _different_replicas(
    shards: Sequence[TensorFile], parameters: Mapping[str, Parameter]
) -> Iterator[str]:
    """Compare what every shard holds, which shards of two models show; name one that differs.

    Reads the norms of all shards: 2.6 MB a shard in a 70B.
    """
    first, *others = shards
    for name, parameter in parameters.items():
        if parameter.axis is not None or name == ROPE_FREQS:
            continue
        expected = first.array(name).tobytes()
        for shard in others:
            if shard.array(name).tobytes() != expected:
                yield (
                    f"{shard.path}: {name} differs from that in {first.path.name}, and all shards "
                    "of a model hold the same; they are of two models, or one is damaged. "
                    "Check them against checklist.chk and download the odd one again."
                )
                return


def _different_copies(
    shards: Sequence[TensorFile], parameters: Mapping[str, Parameter], params: ModelParams
) -> Iterator[str]:
    """Compare key/value heads that neighbouring shards both hold."""
    for name in filter(is_key_or_value, parameters):
        repeated = copies(name, params, len(shards))
        for index, shard in enumerate(shards):
            first = shards[index - index % repeated]
            if shard is not first and not _same(first, shard, name):
                yield (
                    f"{shard.path}: {name} differs from that in {first.path.name}, and both hold "
                    "the same key/value heads. Check them against checklist.chk."
                )


def _same(first: TensorFile, second: TensorFile, name: str) -> bool:
    one, other = first.tensors[name], second.tensors[name]
    row_nbytes = max(1, one.nbytes // max(1, one.shape[0]))
    step = max(1, _COMPARED_NBYTES // row_nbytes)
    return all(
        _bytes(first, one, start, step) == _bytes(second, other, start, step)
        for start in range(0, one.shape[0], step)
    )


def _bytes(shard: TensorFile, tensor: StoredTensor, start: int, step: int) -> bytes:
    return shard.view(tensor.narrow(0, start, min(start + step, tensor.shape[0]))).tobytes()


def _out_of_place(shards: Sequence[TensorFile]) -> tuple[bool, list[str]]:
    """Compare each shard's place with what it calls itself inside.

    Returns:
        Whether the shards say it at all, and a sentence for each that is out of place.
    """
    matches = [_ARCHIVE.fullmatch(shard.archive) for shard in shards]
    written = [int(match[1]) if match else None for match in matches]
    if len(set(written)) == 1:
        return False, []
    return None not in written, [
        f"{shard.path} was written as {shard.archive}.pth: the shards are swapped or renamed. "
        "Give each its own name again, or download it again."
        for number, (shard, said) in enumerate(zip(shards, written, strict=True))
        if said is not None and said != number
    ]


def _twins(shards: Sequence[TensorFile]) -> list[str]:
    """Find shards that are copies of one another, by the CRCs in their directories."""
    seen: dict[tuple[object, ...], TensorFile] = {}
    sentences = []
    for shard in shards:
        if shard.path.suffix != ".pth":  # only a zip has CRCs in its directory
            continue
        with open_file(shard.path) as file:
            members = index_zip(file).values()
        data = tuple((member.name, member.nbytes, member.crc) for member in members)
        first = seen.setdefault(data, shard)
        if first is not shard:
            sentences.append(
                f"{shard.path} is a copy of {first.path.name}; expected another shard. "
                "Download it again."
            )
    return sentences
