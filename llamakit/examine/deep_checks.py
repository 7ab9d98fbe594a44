"""What only all files of a checkpoint together show: that they are of one model, and in order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from llamakit.checkpoint.layout import check_parameters, is_key_or_value
from llamakit.checkpoint.meta_checkpoint import MetaCheckpoint, check_replicas
from llamakit.checkpoint.shard_plan import copies
from llamakit.checkpoint.tensor_file import StoredTensor, TensorFile
from llamakit.checkpoint.zip_index import index_zip
from llamakit.errors import CheckpointError
from llamakit.examine.steps import Opener
from llamakit.examine.vocabulary import find_vocabulary
from llamakit.protocols import Checkpoint

_ARCHIVE = re.compile(r"consolidated\.([0-9]{1,9})")
_COMPARED_NBYTES = 4 << 20


@dataclass
class Findings:
    """What was found out about a folder so far."""

    faults: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    def fault(self, sentence: object) -> None:
        """Note what is wrong, once."""
        if str(sentence) not in self.faults:
            self.faults.append(str(sentence))


def look_at_shapes(checkpoint: Checkpoint, findings: Findings) -> None:
    """Check that every parameter is there with the shape that the params imply."""
    try:
        check_parameters(checkpoint)
    except CheckpointError as error:
        findings.fault(error)
        return
    sources = {"meta": "params.json", "huggingface": "config.json"}
    source = sources.get(checkpoint.form, f"the form {checkpoint.form}")
    findings.checked.append(
        f"{len(checkpoint.parameters)} parameters have the shapes that {source} implies"
    )


def look_at_tokenizer(checkpoint: Checkpoint, opener: Opener, findings: Findings) -> None:
    """Check that the tokenizer fits the embedding."""
    tokenizer = find_vocabulary(checkpoint, opener)
    rows = checkpoint.params.vocab_size
    if tokenizer.fault:
        findings.fault(tokenizer.fault)
    elif tokenizer.size is not None:
        findings.checked.append(
            f"the tokenizer's {tokenizer.size} ids fit the embedding's {rows} rows"
        )
    elif tokenizer.path is None:
        findings.not_checked.append("no tokenizer in the folder or in its parent")
    else:
        findings.not_checked.append(f"the size of {tokenizer.path.name}: its form is not read here")


def look_at_shards(checkpoint: MetaCheckpoint, findings: Findings) -> None:
    """Check that several shards are of one model, each once and in its place."""
    shards = checkpoint.shards
    if len(shards) == 1:
        return
    faults = [*_different_replicas(checkpoint), *_different_copies(checkpoint)]
    if not faults:
        findings.checked.append(f"what all {len(shards)} shards hold is the same in each")
    order, out_of_place = _out_of_place(shards)
    twins = _twins(shards)
    for sentence in (*faults, *out_of_place, *twins):
        findings.fault(sentence)
    if order and not out_of_place and not twins:
        findings.checked.append(f"the {len(shards)} shards are in order, by their names inside")
    elif not order:
        findings.not_checked.append(
            "the order of the shards: they do not say it inside, so only a checklist can"
        )


def _different_replicas(checkpoint: MetaCheckpoint) -> Iterator[str]:
    try:
        check_replicas(checkpoint)
    except CheckpointError as error:
        yield str(error)


def _different_copies(checkpoint: MetaCheckpoint) -> Iterator[str]:
    """Compare key/value heads that neighbouring shards both hold."""
    shards = checkpoint.shards
    for name in filter(is_key_or_value, checkpoint.parameters):
        repeated = copies(name, checkpoint.params, len(shards))
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
        if shard.path.suffix != ".pth":  # only a zip has sums in its directory
            continue
        with shard.path.open("rb") as file:
            members = index_zip(file).values()
        data = tuple((member.name, member.nbytes, member.crc) for member in members)
        first = seen.setdefault(data, shard)
        if first is not shard:
            sentences.append(
                f"{shard.path} is a copy of {first.path.name}; expected another shard. "
                "Download it again."
            )
    return sentences
