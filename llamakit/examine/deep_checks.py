"""What only all files of a checkpoint together show: that they are of one model, and in order."""

from __future__ import annotations

from dataclasses import dataclass, field

from llamakit.checkpoint.capabilities import deep_checks, weight_files
from llamakit.checkpoint.layout import check_parameters
from llamakit.checkpoint.plain_weights import check_plain_weights
from llamakit.errors import CheckpointError, UnsupportedModelError
from llamakit.examine.steps import Opener
from llamakit.examine.vocabulary import find_vocabulary
from llamakit.files.file_stamp import stamps, unchanged
from llamakit.protocols import Checkpoint


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
    source = sources.get(checkpoint.form, f"the format {checkpoint.form}")
    findings.checked.append(
        f"{len(checkpoint.parameters)} parameters have the shapes that {source} implies"
    )


def look_at_dtypes(checkpoint: Checkpoint, findings: Findings) -> None:
    """Check that the values are plain numbers, as everything that computes with them needs."""
    try:
        check_plain_weights(checkpoint)
    except UnsupportedModelError as error:
        findings.fault(error)
        return
    dtypes = sorted({parameter.dtype for parameter in checkpoint.parameters.values()})
    findings.checked.append(f"the values are plain numbers: {', '.join(dtypes)}")


def look_at_tokenizer(checkpoint: Checkpoint, opener: Opener, findings: Findings) -> None:
    """Check that the tokenizer fits the embedding."""
    tokenizer = find_vocabulary(checkpoint, opener)
    rows = checkpoint.params.vocab_size
    if tokenizer.fault:
        findings.fault(tokenizer.fault)
    elif tokenizer.size is not None:
        findings.checked.append(
            f"the tokenizer's {tokenizer.size} tokens fit the embedding's {rows} rows"
        )
    elif tokenizer.path is None:
        findings.not_checked.append("no tokenizer in the folder or in its parent")
    else:
        findings.not_checked.append(
            f"the size of {tokenizer.path.name}: its format is not read here"
        )


def look_deep(checkpoint: Checkpoint, findings: Findings) -> None:
    """Note what the checks of the format itself show."""
    try:
        with unchanged(stamps(weight_files(checkpoint))):
            for finding in deep_checks(checkpoint):
                if finding.kind == "fault":
                    findings.fault(finding.sentence)
                elif finding.kind == "checked":
                    findings.checked.append(finding.sentence)
                else:
                    findings.not_checked.append(finding.sentence)
    except CheckpointError as error:
        findings.fault(error)
