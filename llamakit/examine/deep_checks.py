"""What only all files of a checkpoint together show: that they are of one model, and in order."""

from __future__ import annotations

from llamakit.checkpoint.capabilities import deep_checks, has_capability, weight_files
from llamakit.checkpoint.layout import check_parameters
from llamakit.checkpoint.plain_weights import check_plain_weights
from llamakit.errors import (
    CheckpointError,
    LlamakitError,
    NotACheckpointError,
    UnsupportedModelError,
)
from llamakit.examine.folders import Folder
from llamakit.examine.steps import Opener, warnings_of
from llamakit.examine.tensor_contents import opener_of
from llamakit.examine.verify_report import Findings
from llamakit.examine.vocabulary import find_vocabulary
from llamakit.files.file_stamp import stamps, unchanged
from llamakit.protocols import Checkpoint


def look_at_model(folder: Folder, opener: Opener, findings: Findings, *, deep: bool) -> None:
    """Open the folder as a checkpoint, if it is one, and look at it as a whole."""
    try:
        with warnings_of():
            checkpoint = opener.open_checkpoint(folder.path)
    except NotACheckpointError as error:
        if folder.has_model:
            findings.fault(error)
        return
    except LlamakitError as error:
        findings.fault(error)
        return
    _look_at_shapes(checkpoint, findings)
    is_known = has_capability(checkpoint, "deep_checks") or _has_tensor_files(checkpoint)
    if not is_known:
        findings.not_checked.append(
            f"the weights themselves: what the files of the format {checkpoint.form} hold is its "
            "plugin's to know"
        )
    elif not deep:
        findings.not_checked.append("the weights themselves; --deep looks at them")
    if deep:
        _look_at_dtypes(checkpoint, findings)
        _look_at_tokenizer(checkpoint, opener, findings)
        _look_deep(checkpoint, findings)


def _has_tensor_files(checkpoint: Checkpoint) -> bool:
    """Tell whether all weights are in files that are looked at here, whatever the format."""
    files = weight_files(checkpoint)
    return bool(files) and all(opener_of(file) is not None for file in files)


def _look_at_shapes(checkpoint: Checkpoint, findings: Findings) -> None:
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


def _look_at_dtypes(checkpoint: Checkpoint, findings: Findings) -> None:
    """Check that the values are plain numbers, as everything that computes with them needs."""
    try:
        check_plain_weights(checkpoint)
    except UnsupportedModelError as error:
        findings.fault(error)
        return
    dtypes = sorted({parameter.dtype for parameter in checkpoint.parameters.values()})
    findings.checked.append(f"the values are plain numbers: {', '.join(dtypes)}")


def _look_at_tokenizer(checkpoint: Checkpoint, opener: Opener, findings: Findings) -> None:
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


def _look_deep(checkpoint: Checkpoint, findings: Findings) -> None:
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
